"""Speed, work and memory of the generation engine against plain `generate`, side by side in one process.

    python -m tests.benchmark.engine [--geometry small] [--questions 18] [--beams 3] [--tokens 5] [--json FILE]
        [--images 1] [--batches 1 4 18 64] [--no-plain] [--bits 4] [--dtype bfloat16] [--device cuda]

Baseline: ``model.generate(..., num_beams=K)`` over whole prompts, each row carrying its own image, as the released
pipelines do it; the segmenter is left out of both. The engine is asked the same questions at batch 1, 4, 18 and 64, in
turn with the baseline; replies are compared. Seconds are those that the processor worked (on the CPU) and those that
passed; the smallest of ``--repeats`` counts. Operations are counted by `torch.utils.flop_counter`, which sees what ran.

The floor is the work that no engine avoids (prefix and image once, every prompt's end once, every generated token of
every beam once, counted by hand from the geometry), at the rate of this device's own matrix product of the model's
width. Weights are random: the work does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from collavo.config import CoLLaVOConfig
from collavo.engine import Engine, Generation, Query
from collavo.load_collavo import NOT_QUANTISED
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT
from collavo.tokenizer import tiny_tokenizer
from modeling.image import DecodedImage
from modeling.live_bytes import LiveBytes
from modeling.quantize import modules_to_keep
from modeling.segmenters.none import NoSegmenter
from modeling.shared_prefix import SharedPrefixCache

BATCHES = (1, 4, 18, 64)
STAGES = ("segment", "vision", "prefix", "suffix", "copies", "decode")
"""Of the engine; ``decode`` is what is left of a block's work, the search included."""
END_IDS = (-1,)
"""With ``--whole`` no token ends a reply, so that all have the same length, whatever random weights say."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of a model.

    Attributes:
        width: of the decoder.
        layers: of the decoder.
        heads: query heads.
        kv_heads: key-value heads.
        inner: width of the decoder's MLP.
        rank: of the low-rank paths.
        vision_width: of the vision tower.
        vision_layers: of the vision tower.
        image_size: pixels a side.
        vocabulary: rows of the output layer; None for the tiny tokenizer's.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    rank: int
    vision_width: int
    vision_layers: int
    image_size: int
    vocabulary: int | None = None


GEOMETRIES = {
    "tiny": Geometry(128, 4, 8, 2, 384, 8, 64, 4, 112),
    "small": Geometry(512, 8, 8, 2, 1536, 32, 256, 6, 490),
    "7b": Geometry(4096, 32, 32, 8, 14336, 256, 1024, 24, 490, 92544),
}


def quantise(model: CoLLaVOForConditionalGeneration, dtype: torch.dtype, device: torch.device) -> None:
    """Give a model the 4-bit linears that a loaded checkpoint has."""
    import bitsandbytes as bnb

    keep = set(modules_to_keep(model, NOT_QUANTISED))
    for name, linear in list(model.named_modules()):
        if not isinstance(linear, torch.nn.Linear) or name in keep:
            continue
        sizes = (linear.in_features, linear.out_features, linear.bias is not None, dtype)
        packed = bnb.nn.Linear4bit(*sizes, quant_type="nf4", compress_statistics=True)
        packed.weight = bnb.nn.Params4bit(linear.weight.data.cpu(), requires_grad=False, quant_type="nf4")
        packed.bias = linear.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, packed.to(device))


def build(
    geometry: Geometry, device: torch.device, dtype: torch.dtype = torch.float32, bits: int = 16, *, graphs: bool = True
) -> Engine:
    """A model with random weights, and an engine around it."""
    tokenizer = tiny_tokenizer()
    vocabulary = geometry.vocabulary or len(tokenizer) - 1
    config = CoLLaVOConfig(
        text_config={
            "vocab_size": vocabulary,
            "embedding_rows": vocabulary + 1,
            "hidden_size": geometry.width,
            "intermediate_size": geometry.inner,
            "num_hidden_layers": geometry.layers,
            "num_attention_heads": geometry.heads,
            "num_key_value_heads": geometry.kv_heads,
            "plora_rank": geometry.rank,
            "plora_alpha": float(geometry.rank),
        },
        vision_config={
            "hidden_size": geometry.vision_width,
            "intermediate_size": 4 * geometry.vision_width,
            "num_hidden_layers": geometry.vision_layers,
            "num_attention_heads": max(1, geometry.vision_width // 64),
            "image_size": geometry.image_size,
        },
        crayon_width=geometry.vision_width,
        image_token_id=len(tokenizer) - 1,
        image_size=geometry.image_size,
    )
    torch.manual_seed(0)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = CoLLaVOForConditionalGeneration(config).eval()
        finally:
            torch.set_default_dtype(before)
    if bits == 4:
        quantise(model, dtype, device)
    processor = CoLLaVOProcessor(tokenizer, image_size=geometry.image_size, patch_size=14)
    return Engine(model, processor, NoSegmenter(), CHAT, graphs=graphs)


def plain(engine: Engine, queries: Sequence[Query], generation: Generation) -> list[str]:
    """The baseline: every row pays for its own image, every beam for its own prompt."""
    processor, model = engine.processor, engine.model
    prompts = [CHAT.prompt("", query.question) for query in queries]
    input_ids, attention_mask = processor.pad_left(processor.encode(prompts))
    pixels = processor.pixel_values(np.stack([query.image.pixels for query in queries if query.image is not None]))
    empty = torch.zeros(len(queries), processor.grid**2, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        out = model.generate(
            input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            pixel_values=pixels.to(model.device, model.dtype),
            semantic=empty,
            numbering=empty,
            do_sample=False,
            num_beams=generation.num_beams,
            max_new_tokens=generation.max_new_tokens,
            eos_token_id=engine.end_ids,
            pad_token_id=model.config.text.pad_token_id,
        )
    return [engine.reply("", ids).text for ids in out[:, input_ids.shape[1] :].tolist()]


def in_batches(engine: Engine, queries: Sequence[Query], generation: Generation, size: int) -> list[str]:
    """The engine, asked so many questions at a time, with nothing kept from before."""
    engine.forget()
    parts = [queries[start : start + size] for start in range(0, len(queries), size)]
    return [reply.text for part in parts for reply in engine.answer(part, generation)]


@dataclass
class Figures:
    """What one way of answering cost, per question.

    Attributes:
        cpu_seconds: that this process's processor worked.
        seconds: that passed.
        gigaflop: operations counted.
        equal: replies that equal the baseline's.
        peak_mib: most memory on the device, on CUDA; of all tensors next to the weights, on a CPU.
    """

    cpu_seconds: float = float("inf")
    seconds: float = float("inf")
    gigaflop: float = 0.0
    equal: int = 0
    peak_mib: float = 0.0


def measure(run: Callable[[], list[str]], figures: Figures, count: int, device: torch.device) -> list[str]:
    """Run once; keep the smaller times."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    cpu, wall = time.process_time(), time.perf_counter()
    replies = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
        figures.peak_mib = torch.cuda.max_memory_allocated() / 2**20
    figures.cpu_seconds = min(figures.cpu_seconds, (time.process_time() - cpu) / count)
    figures.seconds = min(figures.seconds, (time.perf_counter() - wall) / count)
    return replies


def _attention_flop(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of the CPU's fused attention, which PyTorch's counter does not know; masked ones count as well."""
    *batch, queries, width = query
    return int(2 * torch.Size(batch).numel() * queries * key[-2] * (width + value[-1]))


UNKNOWN_TO_PYTORCH = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operators read and write; views and what makes tensors without filling them move none.

    Attributes:
        moved: bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or func.__name__.startswith("empty")):
            self.moved += sum(t.numel() * t.element_size() for t in tree_leaves((args, out)) if isinstance(t, Tensor))
        return out


@dataclass
class Stage:
    """What a stage took for itself, of all questions together.

    Attributes:
        cpu_seconds: that this process's processor worked.
        gigaflop: operations counted.
        gigabytes: that operators read and wrote, counted; caches of the processor may have had them.
    """

    cpu_seconds: float = 0.0
    gigaflop: float = 0.0
    gigabytes: float = 0.0


def count_work(run: Callable[[], list[str]], figures: Figures, count: int) -> None:
    """Count a question's operations, and the most memory that its run's tensors take at a time (on the CPU)."""
    with LiveBytes() as live, FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_PYTORCH) as counter:
        run()
    figures.gigaflop = counter.get_total_flops() / 1e9 / count
    figures.peak_mib = live.peak / 2**20


@contextmanager
def stages(engine: Engine, meters: Mapping[str, Callable[[], float]]) -> Iterator[dict[str, Stage]]:
    """What each stage takes for itself while the engine answers.

    Args:
        engine: asked meanwhile.
        meters: name of a figure of `Stage` -> what reads how much there has been so far.
    """
    spent: dict[str, Stage] = {name: Stage() for name in STAGES}
    places: list[tuple[Any, str, str]] = [
        (engine._images, "maps", "segment"),
        (engine.model, "encode_images", "vision"),
        (engine, "_run_prefix", "prefix"),
        (engine, "_read_prompts", "suffix"),
        (SharedPrefixCache, "reorder", "copies"),
        (engine, "_answer_block", "decode"),
    ]

    def taken() -> dict[str, float]:
        return {name: sum(getattr(stage, name) for stage in spent.values()) for name in meters}

    def metered(inner: Callable[..., Any], stage: Stage) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begun, before = {name: read() for name, read in meters.items()}, taken()
            out = inner(*args, **kwargs)
            for name, read in meters.items():  # what stages within it have taken is theirs
                within = taken()[name] - before[name]
                setattr(stage, name, getattr(stage, name) + read() - begun[name] - within)
            return out

        return run

    with ExitStack() as patched:
        for owner, name, stage in places:
            patched.enter_context(mock.patch.object(owner, name, metered(getattr(owner, name), spent[stage])))
        yield spent


def measure_stages(engine: Engine, queries: Sequence[Query], generation: Generation) -> dict[str, Stage]:
    """The engine's stages: their time in one run, what they compute and move in another."""
    engine.forget()
    with stages(engine, {"cpu_seconds": time.process_time}) as spent:
        engine.answer(queries, generation)
    if engine._graphs is not None:  # a replayed graph shows no operators
        return spent
    engine.forget()
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_PYTORCH) as counter, Traffic() as traffic:
        meters = {"gigaflop": lambda: counter.get_total_flops() / 1e9, "gigabytes": lambda: traffic.moved / 1e9}
        with stages(engine, meters) as counted:
            engine.answer(queries, generation)
    return {name: Stage(spent[name].cpu_seconds, counted[name].gigaflop, counted[name].gigabytes) for name in STAGES}


def floor_gigaflop(
    geometry: Geometry, prefix: int, suffixes: Sequence[int], generation: Generation, vocab: int, images: int = 1
) -> float:
    """Work that no engine avoids, counted by hand: multiplications and additions of products and attention, in 10^9."""
    width, head = geometry.width, geometry.width // geometry.heads
    kv = 2 * geometry.kv_heads * head
    per_token = geometry.layers * 2 * (width * (width + kv) + width * width + 3 * width * geometry.inner)
    image = (geometry.image_size // 14) ** 2
    ends = (
        (width, width + kv),
        (width, width),
        (width, geometry.inner),
        (width, geometry.inner),
        (geometry.inner, width),
    )
    low_rank = geometry.layers * 2 * geometry.rank * sum(map(sum, ends))
    vision = geometry.vision_layers * image * 2 * 12 * geometry.vision_width**2
    vision += geometry.vision_layers * 4 * image**2 * geometry.vision_width
    projector = image * 2 * (geometry.vision_width * width + width * width)
    attention = geometry.layers * 4 * width  # per pair of query and key
    total = images * (prefix * per_token + image * low_rank + vision + projector + attention * prefix**2 / 2)
    for length in suffixes:
        total += length * (per_token + attention * (prefix + length / 2)) + 2 * width * vocab
        steps = (generation.max_new_tokens - 1) * generation.num_beams
        total += steps * (per_token + attention * (prefix + length + generation.max_new_tokens / 2) + 2 * width * vocab)
    return total / 1e9


def ceiling(width: int, device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of this device's own matrix product of the model's width, in units of 10^9."""
    a, b = torch.randn(1024, width, device=device).to(dtype), torch.randn(width, width, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter() if device.type == "cuda" else time.process_time()
        for _ in range(10):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() if device.type == "cuda" else time.process_time()) - begun)
    return 10 * 2 * 1024 * width * width / best / 1e9


def compare(
    geometry: Geometry,
    *,
    questions: int,
    beams: int,
    tokens: int,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
    bits: int = 16,
    images: int = 1,
    batches: Sequence[int] = BATCHES,
    with_plain: bool = True,
    whole: bool = False,
    graphs: bool = True,
) -> dict[str, Any]:
    """All figures of one geometry; see the top of the file."""
    engine = build(geometry, device, dtype, bits, graphs=graphs)
    if whole:
        engine.end_ids = list(END_IDS)
    rng, side = np.random.default_rng(0), geometry.image_size
    pool = [DecodedImage(rng.integers(0, 256, (side, side, 3)).astype(np.uint8), str(n)) for n in range(images)]
    queries = [Query(pool[n * images // questions], f"Is there a {n} in the image?") for n in range(questions)]
    generation = Generation(num_beams=beams, max_new_tokens=tokens)
    runs: dict[str, Callable[[], list[str]]] = {}
    if with_plain:
        runs["plain"] = lambda: plain(engine, queries, generation)
    for size in batches:
        runs[f"engine {size}"] = lambda size=size: in_batches(engine, queries, generation, size)  # type: ignore[misc]
    figures = {name: Figures() for name in runs}
    replies: dict[str, list[str]] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            replies[name] = measure(run, figures[name], questions, device)
    for name, run in runs.items():
        if device.type == "cpu":  # a replayed graph shows no operators
            count_work(run, figures[name], questions)
        oracle = replies["plain"] if with_plain else replies[next(iter(runs))]
        figures[name].equal = sum(a == b for a, b in zip(replies[name], oracle, strict=True))
    spent = measure_stages(engine, queries, generation)
    prompt = engine._prompt(0, queries[0])
    vocabulary = engine.model.config.text.vocab_size
    suffixes = [len(engine._prompt(0, query).suffix) for query in queries]
    prefix = next(iter(engine._prefixes.values()))
    floor = floor_gigaflop(geometry, prefix.length, suffixes, generation, vocabulary, images) / questions
    rate = ceiling(geometry.width, device, dtype)
    slots = prompt.slots + tokens
    return {
        "torch": torch.__version__,
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "questions": questions,
        "beams": beams,
        "tokens": tokens,
        "images": images,
        "bits": bits,
        "dtype": str(dtype).removeprefix("torch."),
        "graphs": engine._graphs is not None,
        "prefix_tokens": prefix.length,
        "figures": {name: asdict(value) for name, value in figures.items()},
        "stages": {
            name: {figure: value / questions for figure, value in asdict(stage).items()}
            for name, stage in spent.items()
        },
        "floor_gigaflop": floor,
        "ceiling_gigaflop_per_second": rate,
        "floor_seconds": floor / rate,
        "prefix_mib": prefix.num_bytes / 2**20,
        "mib_per_row": prefix.num_bytes / prefix.length * slots / 2**20,
    }


def table(found: dict[str, Any]) -> str:
    """The figures as text."""
    figures = found["figures"]
    base = figures.get("plain")
    about = "an image" if found["images"] == 1 else f"{found['images']} images"
    lines = [
        f"{found['questions']} questions on {about}, {found['beams']} beams, {found['tokens']} tokens, prefix of "
        f"{found['prefix_tokens']} tokens; {found['device']}, {found['threads']} threads, torch {found['torch']}",
        f"{'per question':<12}{'CPU s':>10}{'seconds':>10}{'plain /':>10}{'GFLOP':>10}{'equal':>12}{'peak MiB':>10}",
    ]
    for name, row in figures.items():
        ratio = base["cpu_seconds"] / row["cpu_seconds"] if base else float("nan")
        equal = f"{row['equal']} of {found['questions']}"
        lines.append(
            f"{name:<12}{row['cpu_seconds']:>10.4f}{row['seconds']:>10.4f}{ratio:>10.1f}{row['gigaflop']:>10.3f}"
            f"{equal:>12}{row['peak_mib']:>10.0f}"
        )
    lines += [f"{'stage':<12}{'CPU s':>10}{'GFLOP':>10}{'GB moved':>10}"]
    lines += [
        f"{name:<12}{row['cpu_seconds']:>10.4f}{row['gigaflop']:>10.3f}{row['gigabytes']:>10.3f}"
        for name, row in found["stages"].items()
    ]
    clock = "cpu_seconds" if found["device"] == "cpu" else "seconds"  # that of the ceiling
    best = min(row[clock] for name, row in figures.items() if name != "plain")
    lines += [
        f"floor: {found['floor_gigaflop']:.3f} GFLOP at {found['ceiling_gigaflop_per_second']:.1f} GFLOP/s = "
        f"{found['floor_seconds']:.4f} s; the engine at its best takes {best / found['floor_seconds']:.2f} times that",
        f"memory: prefix {found['prefix_mib']:.2f} MiB once, {found['mib_per_row']:.2f} MiB for each row of a block",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Time the engine against plain generate.")
    parser.add_argument("--geometry", choices=GEOMETRIES, default="small", help="of the model (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=18, help="on one image (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=3, help="beams (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=5, help="longest reply (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for both (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="compute type")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1, help="that the questions are about (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="questions asked at a time")
    parser.add_argument("--no-plain", action="store_true", help="leave the baseline out; replies are compared anyway")
    parser.add_argument("--whole", action="store_true", help="let no token end a reply: all have --tokens tokens")
    parser.add_argument("--no-graphs", action="store_true", help="take steps one operator at a time on CUDA, too")
    parser.add_argument("--bits", type=int, choices=(4, 16), default=16, help="4 for NF4 (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = compare(
        GEOMETRIES[args.geometry],
        questions=args.questions,
        beams=args.beams,
        tokens=args.tokens,
        repeats=args.repeats,
        device=torch.device(args.device),
        dtype=getattr(torch, args.dtype),
        bits=args.bits,
        images=args.images,
        batches=args.batches,
        with_plain=not args.no_plain,
        whole=args.whole,
        graphs=not args.no_graphs,
    )
    sys.stdout.write(table(found))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
