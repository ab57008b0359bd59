"""The stages of the check on a GPU: each compares a device with golden data or the CPU, or measures it.

    python -m tests.gpu.stages NAME [--device cuda] [--small] --out FILE

A stage gives named differences with what is allowed, or figures. Tolerances are relative to the largest golden value:
float32 1e-4 (sums in another order), float16 1e-2 and bfloat16 6e-2 (their own rounding, over a tiny model's layers;
the CPU's differences in these types are of that size). TF32 is switched off, so that float32 is float32.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from assets.tiny.random_checkpoint import make_tiny
from collavo.checkpoint.names import from_released, to_released
from collavo.config import CoLLaVOConfig
from collavo.engine import Engine, Generation, Query
from collavo.load_collavo import load_engine, load_model
from collavo.options import LLMConfig
from modeling.image import DecodedImage
from modeling.plora import ImageTokens, PLoRALinear
from modeling.segmenters.none import NoSegmenter
from tests.benchmark.engine import GEOMETRIES, compare
from tests.fixtures import ROOT, fixtures_root
from tests.parity import collavo as collavo_parity
from tests.parity import xdecoder_network as network

ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
NF4_ALLOWED = 6e-2
"""Of 4-bit logits in bfloat16 against the CPU's: both unpack the same weights and round products otherwise."""
LOSS_ALLOWED = 2e-3
"""Of a loss of about 6 after three updates in float32."""


@dataclass(kw_only=True)
class Found:
    """What a stage found.

    Attributes:
        ok: whether everything is within what is allowed.
        figures: by name: differences with what is allowed, or measurements.
        skipped: whether there was nothing to compare with.
        reason: why it is not ok, or was skipped.
    """

    ok: bool = True
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False
    reason: str = ""

    def compare(self, name: str, ours: Tensor, theirs: Tensor, allowed: float) -> None:
        """Note the largest difference, relative to the largest value of ``theirs``; NaN is never allowed."""
        ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
        scale = max(float(theirs.abs().max()), 1e-9)
        value = float((ours - theirs).abs().max()) / scale if ours.shape == theirs.shape else float("inf")
        self.check(name, value, allowed)

    def check(self, name: str, value: float, allowed: float) -> None:
        """Note a value that may be ``allowed`` at most."""
        self.figures[name] = {"difference": value, "allowed": allowed}
        if not value <= allowed:
            self.ok = False
            self.reason = self.reason or f"{name} differs by {value:.3g}, {allowed:g} is allowed"


Stage = Callable[[torch.device, bool], Found]


def golden(name: str) -> Path | None:
    """A folder of golden data; None where it is absent."""
    folder = fixtures_root() / name
    return folder if folder.is_dir() else None


def absent(name: str) -> Found:
    """A stage without its golden data."""
    return Found(skipped=True, reason=f"golden data not found at {fixtures_root() / name}")


def short(dtype: torch.dtype) -> str:
    """Name of a type without its module."""
    return str(dtype).removeprefix("torch.")


@torch.no_grad()
def plora(device: torch.device, small: bool) -> Found:
    """One PLoRA layer against the golden data, in three types."""
    folder = golden("collavo")
    if folder is None:
        return absent("collavo")
    data, found = load_file(folder / "plora.safetensors"), Found()
    for dtype, allowed in ALLOWED.items():
        layer = golden_layer(data, folder).to(device, dtype)
        x, crayon = data["x"].to(device, dtype), data["crayon"].flatten(0, 1).to(device, dtype)
        positions = data["im_mask"].flatten().nonzero()[:, 0].to(device)
        image = ImageTokens(positions, crayon, torch.arange(len(crayon), device=device))
        found.compare(f"{short(dtype)}.y_crayon", layer(x, image), data["y_crayon"], allowed)
        found.compare(f"{short(dtype)}.y_no_crayon", layer(x, ImageTokens(positions)), data["y_no_crayon"], allowed)
        found.compare(f"{short(dtype)}.y_no_mask", layer(x, None), data["y_no_mask"], allowed)
    return found


def golden_layer(data: dict[str, Tensor], folder: Path) -> PLoRALinear:
    """The layer of the golden data, see `tests.parity.collavo.compare_plora`."""
    settings = json.loads((folder / "tiny" / "config.json").read_text())["plora"]
    rank, width = data["w.Plora_A.weight"].shape
    scale = float(data["scale"]) if "scale" in data else settings["scale"]
    layer = PLoRALinear(width, len(data["w.Plora_main.weight"]), rank=rank, alpha=scale * rank).eval()
    prefix = "language_model.layers.0.attention.wqkv."
    released = to_released(prefix + "base.weight").removesuffix("Plora_main.weight")
    names = {key: str(from_released(released + key[2:])) for key in data if key.startswith("w.")}
    layer.load_state_dict({name.removeprefix(prefix): data[key] for key, name in names.items()})
    return layer


def _batch(golden_inputs: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    inputs = {name: tensor.to(device) for name, tensor in collavo_parity._inputs(golden_inputs).items()}
    return inputs | {"pixel_values": inputs["pixel_values"].to(dtype)}


@torch.no_grad()
def collavo(device: torch.device, small: bool) -> Found:
    """Image features, logits and (in float32) generated ids of the whole model against the golden data."""
    folder = golden("collavo")
    if folder is None:
        return absent("collavo")
    prefill, found = load_file(folder / "tiny" / "prefill.safetensors"), Found()
    for dtype, allowed in ALLOWED.items():
        model, _ = collavo_parity.load_tiny(folder / "tiny")
        model.to(device, dtype)
        inputs = _batch(prefill, device, dtype)
        features = model.encode_images(inputs["pixel_values"])
        found.compare(f"{short(dtype)}.image_features", features, prefill["image_features"], allowed)
        for backend in ("eager", "sdpa"):
            model.set_attn_implementation(backend)
            logits, theirs = model(**inputs).logits, prefill["logits"]
            real = _padding_free(prefill, theirs)
            found.compare(f"{short(dtype)}.{backend}.logits", logits.cpu()[real], theirs[real], allowed)
    model, _ = collavo_parity.load_tiny(folder / "tiny")
    model.to(device)
    on_device = {name: tensor.to(device) for name, tensor in prefill.items()}
    cases = json.loads((folder / "tiny" / "generate.json").read_text())
    for item in collavo_parity.compare_generation(model, on_device, cases):
        found.check(item.quantity, item.value, item.tolerance)
    return found


def _padding_free(prefill: dict[str, Tensor], logits: Tensor) -> Tensor:
    """Bool (B, T): positions of tokens, with every image token written out."""
    copies = 1 + prefill["im_mask"].shape[1] - prefill["input_ids"].shape[1]
    real = torch.nn.functional.pad(prefill["attention_mask"], (0, copies - 1), value=1).bool()
    return real[:, -logits.shape[1] :]


@torch.no_grad()
def xdecoder(device: torch.device, small: bool) -> Found:
    """X-Decoder's network against the golden data: all it predicts in float32, its features in half precision.

    A mask of attention is a threshold of a prediction, so that rounding in half precision can turn single points of
    it; what follows is then another number, and is compared in float32 alone.
    """
    folder = golden("xdecoder")
    if folder is None:
        return absent("xdecoder")
    recorded, found = load_file(folder / "tiny" / "forward.safetensors"), Found()
    runs = sorted({key.partition("/")[0] for key in recorded if "/" in key})
    for dtype, allowed in ALLOWED.items():
        model = network.load_tiny(folder).to(device, dtype)
        for run in runs[:1] if small else runs:
            pixels = network.run_input(run, recorded, model.config).to(device, dtype)
            maps = model.backbone(pixels)
            for index, ours in enumerate(maps, start=2):
                if f"{run}/res{index}" in recorded:
                    found.compare(f"{short(dtype)}.{run}.res{index}", ours, recorded[f"{run}/res{index}"], 3 * allowed)
            if dtype == torch.float32:
                output = model(pixels, recorded["text_embeddings"].to(device))
                for name, ours in (("pred_logits", output.logits), ("pred_masks", output.masks)):
                    found.compare(f"{run}.{name}", ours, recorded[f"{run}/{name}"], 3 * allowed)
    return found


@torch.no_grad()
def nf4(device: torch.device, small: bool) -> Found:
    """Logits of 4-bit weights on the device against the CPU's."""
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        make_tiny(Path(name), seed=0)
        llm = LLMConfig(BITS=4, DTYPE="bf16", ATTENTION="eager")
        logits = []
        for where in (torch.device("cpu"), device):
            model = load_model(llm, Path(name), where)
            ids = torch.arange(3, 43, device=where)[None]
            logits.append(model(input_ids=ids).logits.float())
    found.compare("bfloat16.logits", logits[1], logits[0], NF4_ALLOWED)
    return found


@torch.no_grad()
def attention(device: torch.device, small: bool) -> Found:
    """PyTorch's attention and flash attention against the plain one, on the device."""
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        make_tiny(Path(name), seed=0)
        for bits, dtype in ((32, "fp32"), (16, "fp16"), (16, "bf16")):
            model = load_model(LLMConfig(BITS=bits, DTYPE=dtype, ATTENTION="eager"), Path(name), device)  # type: ignore[arg-type]
            ids = torch.arange(3, 43, device=device)[None]
            plain = model(input_ids=ids).logits
            for backend in ("sdpa", "flash_attention_2"):
                if why := _no_flash(backend, device, model.dtype):
                    found.figures[f"{dtype}.{backend}"] = {"skipped": why}
                    continue
                model.set_attn_implementation(backend)
                found.compare(f"{dtype}.{backend}", model(input_ids=ids).logits, plain, ALLOWED[model.dtype])
    return found


def _no_flash(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why a backend cannot run; "" where it can."""
    if backend != "flash_attention_2":
        return ""
    if importlib.util.find_spec("flash_attn") is None:
        return "flash_attention_2: the package flash-attn is not installed"
    if device.type != "cuda" or dtype == torch.float32:
        return f"flash_attention_2 needs CUDA and half precision, not {device.type} and {short(dtype)}"
    return ""


def engine(device: torch.device, small: bool) -> Found:
    """The engine: replies of the device against the CPU's, and those of batches of 1, 4, 18 and 64 in any order.

    Where a device sums up otherwise for another batch, the share of replies that this turns is a figure, and not a
    failure; texts that differ must be close decisions.
    """
    found = Found()
    for beams in (1, 3):
        _compare_batches(found, device, small, Generation(num_beams=beams, max_new_tokens=6))
    return found


def _compare_batches(found: Found, device: torch.device, small: bool, generation: Generation) -> None:
    rng = np.random.default_rng(0)
    images = [DecodedImage(rng.integers(0, 256, (112, 112, 3)).astype(np.uint8), f"{n}.png") for n in range(4)]
    asked = [Query(image, f"Is there a {n}?") for image in images for n in range(4 if small else 16)]
    asked += [Query(None, "Hello"), Query(None, "What is two and two?")]
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(Path(folder), seed=0)
        for bits, dtype in ((32, "fp32"), (16, "fp16"), (16, "bf16")):
            llm, name = LLMConfig(BITS=bits, DTYPE=dtype), f"{generation.num_beams} beams, {dtype}"  # type: ignore[arg-type]
            ours = load_engine(llm, folder, NoSegmenter(), device)
            whole = ours.answer(asked, generation)
            if dtype == "fp32":
                cpu = load_engine(llm, folder, NoSegmenter()).answer(asked, generation)
                turned = sum(a.text != b.text and not b.close for a, b in zip(whole, cpu, strict=True))
                found.check(f"{name}: replies unlike the CPU's", turned, 0)
            for size in (1, 4, 18, 64):
                texts, same = _asked_in_parts(ours, asked, generation, size, rng)
                pairs = zip(texts, whole, strict=True)
                far = sum(text != reply.text and not reply.close for text, reply in pairs)
                found.check(f"{name}: batch {size}: replies that differ and are not close", far, 0)
                found.figures[f"{name}: batch {size}: margins bit-equal"] = equal = same(whole)
                if device.type == "cpu":
                    found.check(f"{name}: batch {size}: margins unlike", not equal, 0)
            found.figures[f"{name}: graphs"] = ours._graphs is not None
            found.figures[f"{name}: close replies"] = sum(reply.close for reply in whole) / len(whole)


def _asked_in_parts(
    ours: Engine, asked: list[Query], generation: Generation, size: int, rng: np.random.Generator
) -> tuple[list[str], Callable[[Iterable[Any]], bool]]:
    """Texts of replies to questions asked so many at a time, in a random order; and whether their margins are equal."""
    ours.forget()
    texts, margins = [""] * len(asked), [0.0] * len(asked)
    order = rng.permutation(len(asked)).tolist()
    for start in range(0, len(order), size):
        part = order[start : start + size]
        for index, reply in zip(part, ours.answer([asked[i] for i in part], generation), strict=True):
            texts[index], margins[index] = reply.text, reply.margin
    return texts, lambda replies: margins == [reply.margin for reply in replies]


def benchmarks(device: torch.device, small: bool) -> Found:
    """The tiny benchmarks on the device, and their replies against the CPU's."""
    found, texts = Found(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = "12" if small else "40"
        _python("-m", "assets.tiny.world", str(folder / "data"), "--seed", "1", "--scenes", scenes)
        names = "pope_test" if small else "pope_test,gqa_testdev_balanced,scienceqa_test,tiny_world"
        for where in ("cpu", device.type):
            save = folder / where
            settings = ["DATASETS.TEST", names, "DATASETS.ROOT", folder / "data", "SAVE_DIR", save]
            settings += ["EVAL.LIMIT", 8 if small else 60]
            _entry("eval", where, "--conf_files", "configs/collavo_tiny.yaml", "--overrides", *settings)
            texts[where] = {file.parent.name: _texts(file) for file in sorted(save.glob("*/predictions.jsonl"))}
    for dataset, replies in texts["cpu"].items():
        turned = sum(texts[device.type][dataset][key] != text for key, text in replies.items())
        found.check(f"{dataset}: replies unlike the CPU's, of {len(replies)}", turned, 0)
    if not texts["cpu"]:
        found.check("benchmarks without predictions", 1, 0)
    return found


def _texts(file: Path) -> dict[str, str]:
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return {row["id"]: row["text"] for row in rows}


def _python(*words: str, environment: dict[str, str] | None = None) -> None:
    """Run Python from the repository's root.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:3])}: {done.stdout[-500:]}{done.stderr[-1500:]}")


def _entry(command: str, device: str, *words: object) -> None:
    """Run a command of lbk_entry.py on the CPU or the GPU."""
    environment = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    _python("lbk_entry.py", command, *map(str, words), environment=environment)


def training(device: torch.device, small: bool) -> Found:
    """Three updates of each stage on the device, and their losses against the CPU's."""
    from tests.tiny_training import settings

    found = Found()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _python("-m", "assets.tiny.world", str(folder / "data"), "--seed", "0", "--scenes", "12", "--size", "112")
        make_tiny(folder / "checkpoint", seed=0)
        config = folder / "checkpoint" / "config.json"
        config.write_text(config.read_text().replace('"plora_dropout": 0.05', '"plora_dropout": 0.0'))
        for stage in ("cpt",) if small else ("cpt", "cit"):
            losses = {}
            for where in ("cpu", device.type):
                save = folder / f"{stage}-{where}"
                more = settings(folder, save, "TRAIN.STAGE", stage, "TRAIN.STEPS", 3)
                _entry("train", where, "--conf_files", "configs/collavo_tiny_train.yaml", "--overrides", *more)
                losses[where] = [json.loads(line)["loss"] for line in (save / "log.jsonl").read_text().splitlines()]
            gaps = [abs(a - b) for a, b in zip(losses["cpu"], losses[device.type], strict=True)]
            found.check(f"{stage}: losses unlike the CPU's", max(gaps), LOSS_ALLOWED)
    return found


def marked(device: torch.device, small: bool) -> Found:
    """All other tests that are marked ``gpu``; without a GPU they are collected and skip, each with its reason."""
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-n0", "-q", "-p", "no:cacheprovider"]
    words += ["tests/unit/benchmark/test_memory.py"] if small else ["--ignore=tests/gpu"]  # stages of their own
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr[-300:]]
    return Found(ok=done.returncode == 0, figures={"said": last[0]}, reason="" if done.returncode == 0 else last[0])


def speed(device: torch.device, small: bool, bits: int) -> Found:
    """Answering at 7B with random weights: 18 questions an image, and long replies."""
    geometry = GEOMETRIES["tiny" if small else "7b"]
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    shared: dict[str, Any] = {"repeats": 1, "device": device, "dtype": dtype, "bits": bits, "whole": True}
    figures = {}
    for name, work in _work(small).items():
        plain = bits == 16 and name == "18 questions, 3 beams, 5 tokens"
        figures[name] = compare(geometry, with_plain=plain, **work, **shared)
    return Found(figures=figures)


def _work(small: bool) -> dict[str, dict[str, Any]]:
    long = 8 if small else 64
    return {
        "18 questions, 3 beams, 5 tokens": {"questions": 18, "beams": 3, "tokens": 5, "batches": (1, 18)},
        f"18 questions, greedy, {long} tokens": {"questions": 18, "beams": 1, "tokens": long, "batches": (18,)},
    }


def step2(device: torch.device, small: bool) -> Found:
    """Memory and time of three updates of step 2 (Dual QLoRA on 4-bit weights), with weights of no meaning."""
    from tests.benchmark import memory

    config = _small_config() if small else CoLLaVOConfig()
    rank, tokens, labels = (4, 96, 16) if small else (64, 1536, 300)
    counted = memory.count(config, rank, tokens, labels)[-1].bytes
    seconds, peak = [], 0
    for taken, most in memory.updates(config, rank, tokens, labels, device, 3):
        seconds.append(taken)
        peak = max(peak, most)
    figures = {"seconds": seconds, "peak_bytes": peak, "counted_bytes": counted}
    fits = device.type == "cpu" or peak <= counted
    return Found(ok=fits, figures=figures, reason="" if fits else f"takes {peak} bytes, {counted} were counted")


def _small_config() -> CoLLaVOConfig:
    """A model whose large linears have whole 4-bit blocks."""
    text: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text |= {"num_key_value_heads": 2, "vocab_size": 512, "embedding_rows": 513, "plora_rank": 64, "plora_alpha": 64.0}
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CoLLaVOConfig(
        text_config=text,
        vision_config=vision | {"image_size": 112},
        crayon_width=64,
        image_token_id=512,
        image_size=112,
    )


STAGES: dict[str, Stage] = {
    "plora": plora,
    "collavo": collavo,
    "xdecoder": xdecoder,
    "nf4": nf4,
    "attention": attention,
    "engine": engine,
    "benchmarks": benchmarks,
    "training": training,
    "marked": marked,
    "speed_bf16": lambda device, small: speed(device, small, 16),
    "speed_nf4": lambda device, small: speed(device, small, 4),
    "step2": step2,
}


def exact_float32() -> None:
    """Switch off TF32, which has 10 bits of mantissa."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="One stage of the check on a GPU.")
    parser.add_argument("name", choices=STAGES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    exact_float32()
    begun = time.monotonic()
    found = STAGES[args.name](torch.device(args.device), args.small)
    found.figures["stage_seconds"] = round(time.monotonic() - begun, 2)
    args.out.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
