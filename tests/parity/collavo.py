"""Parity with the reference model on golden data.

    python -m tests.parity.collavo [DIR]

runs everything on a directory of the layout that the fixtures' README describes, prints the largest difference of each
quantity, and exits 1 past a tolerance. Sizes, ids and settings come from the directory; nothing here knows them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from collavo.checkpoint.names import from_released, to_released
from collavo.config import CoLLaVOConfig
from collavo.model import CoLLaVOForConditionalGeneration
from modeling.plora import ImageTokens, PLoRALinear
from modeling.vit import interpolate_positions
from tests.parity.crayon import compare_crayon

FEATURES, PLORA, POSITIONS = 1e-4, 1e-6, 2e-3


@dataclass(frozen=True)
class Difference:
    """One compared quantity: its largest absolute difference (or number of unequal items) and what is allowed."""

    quantity: str
    value: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Within the tolerance; NaN is not."""
        return self.value <= self.tolerance


def compare(directory: Path) -> Iterator[Difference]:
    """Compare everything the directory holds."""
    yield from compare_plora(load_file(directory / "plora.safetensors"), directory)
    positions = load_file(directory / "position_interpolation.safetensors")
    side = round((len(positions["table_out"]) - 1) ** 0.5)
    ours = interpolate_positions(positions["table_in"], side, side)
    yield _difference("position_interpolation", ours, positions["table_out"], POSITIONS)
    model, settings = load_tiny(directory / "tiny")
    golden = load_file(directory / "tiny" / "prefill.safetensors")
    yield from compare_prefill(model, golden, settings)
    yield from compare_generation(model, golden, json.loads((directory / "tiny" / "generate.json").read_text()))
    yield from compare_keys(json.loads((directory / "keys_7b.json").read_text())["shapes"])
    for quantity, unequal in compare_crayon(json.loads((directory / "crayon.json").read_text(encoding="utf-8"))):
        yield Difference(quantity, unequal, 0)


def load_tiny(directory: Path) -> tuple[CoLLaVOForConditionalGeneration, dict[str, Any]]:
    """Build the model from the fixture's own description, and load its weights by their released names."""
    settings = json.loads((directory / "config.json").read_text())
    text, vision = dict(settings["language_model"]), dict(settings["vision_tower"])
    vision.pop("feature", None)
    text |= {"plora_rank": settings["plora"]["rank"], "plora_alpha": float(settings["plora"]["alpha"])}
    text.setdefault("pad_token_id", text["eos_token_id"])
    config = CoLLaVOConfig(
        text_config=text,
        vision_config=vision,
        crayon_width=settings["crayon"]["width"],
        semantic_rows=settings["crayon"]["semantic_rows"],
        numbering_rows=settings["crayon"]["numbering_rows"],
        image_token_id=settings["image_token_id"],
        image_size=settings["grid"] * vision["patch_size"],
    )
    tensors = {from_released(key): tensor for key, tensor in load_file(directory / "model.safetensors").items()}
    tensors.pop(None, None)
    model = CoLLaVOForConditionalGeneration(config)
    model.load_state_dict(tensors)  # type: ignore[arg-type]
    return model.eval(), settings


def compare_plora(data: dict[str, Tensor], directory: Path) -> Iterator[Difference]:
    """One PLoRA layer: with crayon, without, a decoding step, without a mask.

    In float64, so that the golden data's own rounding is all that differs, on any processor.
    """
    settings = json.loads((directory / "tiny" / "config.json").read_text())["plora"]
    rank, width = data["w.Plora_A.weight"].shape
    scale = float(data["scale"]) if "scale" in data else settings["scale"]
    layer = PLoRALinear(width, len(data["w.Plora_main.weight"]), rank=rank, alpha=scale * rank).eval()
    prefix = "language_model.layers.0.attention.wqkv."
    released = to_released(prefix + "base.weight").removesuffix("Plora_main.weight")
    weights = {str(from_released(released + k[2:])).removeprefix(prefix): v for k, v in data.items() if k[:2] == "w."}
    layer.load_state_dict(weights)
    layer.double()
    x, crayon = data["x"].double(), data["crayon"].flatten(0, 1).double()
    positions = data["im_mask"].flatten().nonzero()[:, 0]
    with torch.no_grad():
        ours = {
            "y_crayon": layer(x, ImageTokens(positions, crayon, torch.arange(len(crayon)))),
            "y_no_crayon": layer(x, ImageTokens(positions)),
            "y_decode_step": layer(x[:, :1], None),
            "y_no_mask": layer(x, None),
        }
    for name, value in ours.items():
        yield _difference(f"plora.{name}", value, data[name], PLORA)


def compare_prefill(
    model: CoLLaVOForConditionalGeneration, golden: dict[str, Tensor], settings: dict[str, Any]
) -> Iterator[Difference]:
    """Features, merged embeddings, hidden states and logits of the padded batch, and of every row alone.

    What stands at padding is compared nowhere: it depends on the attention implementation alone and reaches no answer.
    """
    mean, std = (torch.tensor(settings[key]).view(1, -1, 1, 1) for key in ("image_mean", "image_std"))
    yield _difference("pixel_values", (golden["images"] - mean) / std, golden["pixel_values"], FEATURES)
    with torch.no_grad():
        yield _difference(
            "vision_features", model.vision_tower(golden["pixel_values"]), golden["vision_features"], FEATURES
        )
        yield _difference(
            "image_features", model.encode_images(golden["pixel_values"]), golden["image_features"], FEATURES
        )
        crayon, index = model.crayon(golden["semantic"], golden["numbering"])
        yield _difference("crayon_features", crayon[index], golden["crayon_features"], FEATURES)
        for backend in ("eager", "sdpa"):
            model.set_attn_implementation(backend)
            out = model(**_inputs(golden), output_hidden_states=True)
            yield from _compare_outputs(f"{backend}.batch", out, golden, slice(None))
            for row in range(len(golden["input_ids"])):
                kept = golden["attention_mask"][row].bool()
                alone = model(**_inputs(golden, [row], kept), output_hidden_states=True)
                yield from _compare_outputs(f"{backend}.row{row}", alone, golden, slice(row, row + 1))


def _compare_outputs(name: str, out: Any, golden: dict[str, Tensor], rows: slice) -> Iterator[Difference]:
    length = out.logits.shape[1]
    copies = 1 + golden["im_mask"].shape[1] - golden["input_ids"].shape[1]
    mask = golden["attention_mask"][rows]
    real = torch.nn.functional.pad(mask, (0, copies - 1), value=1).bool()  # the padding is on the left
    real = real[:, -length:]
    states = golden["hidden_states"][:, rows, -length:]
    embeds = golden["inputs_embeds"][rows, -length:]
    yield _difference(f"{name}.inputs_embeds", out.hidden_states[0][real], embeds[real], FEATURES)
    for layer, (ours, theirs) in enumerate(zip(out.hidden_states, states, strict=True)):
        yield _difference(f"{name}.hidden_states.{layer}", ours[real], theirs[real], FEATURES)
    yield _difference(f"{name}.logits", out.logits[real], golden["logits"][rows, -length:][real], FEATURES)


def compare_generation(
    model: CoLLaVOForConditionalGeneration, golden: dict[str, Tensor], cases: dict[str, Any]
) -> Iterator[Difference]:
    """New token ids of every recorded search, exactly."""
    for name, case in cases.items():
        if name.startswith("_"):
            continue
        settings = dict(case["settings"])
        end = settings.setdefault("eos_token_id", model.config.text.eos_token_id)
        single = name.partition("single")[2]
        rows = [int(single.split("_")[0])] if single else list(range(len(golden["input_ids"])))
        kept = golden["attention_mask"][rows[0]].bool() if single else None
        inputs = _inputs(golden, rows, kept)
        out = model.generate(**inputs, do_sample=False, pad_token_id=model.config.text.pad_token_id, **settings)
        new = [_cut(row, end) for row in out[:, inputs["input_ids"].shape[1] :].tolist()]
        unequal = sum(a != b for a, b in zip(new, case["token_ids"], strict=True))
        yield Difference(f"generate.{name} (rows unequal)", unequal, 0)


def compare_keys(shapes: dict[str, list[int]]) -> Iterator[Difference]:
    """Names and shapes at full size, both ways; the pairs that nothing uses are the only ones left out."""
    with torch.device("meta"):
        ours = {
            key: list(value.shape)
            for key, value in CoLLaVOForConditionalGeneration(CoLLaVOConfig()).state_dict().items()
        }
    wanted = {from_released(key): shape for key, shape in shapes.items()}
    wanted.pop(None, None)
    unequal = sum(ours.get(str(key)) != shape for key, shape in wanted.items()) + len(ours.keys() - wanted.keys())
    yield Difference("keys_7b (released to ours, unequal)", unequal, 0)
    back = sum(shapes.get(to_released(key)) != shape for key, shape in ours.items())
    yield Difference("keys_7b (ours to released, unequal)", back, 0)


def _inputs(golden: dict[str, Tensor], rows: list[int] | None = None, kept: Tensor | None = None) -> dict[str, Tensor]:
    """Model inputs of some rows, without the columns that ``kept`` leaves out."""
    names = ("input_ids", "attention_mask", "pixel_values", "semantic", "numbering")
    chosen = {name: golden[name] if rows is None else golden[name][rows] for name in names}
    if kept is not None:
        chosen |= {name: chosen[name][:, kept] for name in ("input_ids", "attention_mask")}
    return chosen


def _cut(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


def _difference(quantity: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Difference:
    if ours.shape != theirs.shape:
        return Difference(f"{quantity} (shape {tuple(ours.shape)}, not {tuple(theirs.shape)})", float("inf"), tolerance)
    return Difference(quantity, float((ours.double() - theirs.double()).abs().max()), tolerance)


def main() -> int:
    """Command line; see the top of the file."""
    default = Path(__file__).parents[3] / "shared" / "fixtures" / "collavo"
    parser = argparse.ArgumentParser(description="Compare CoLLaVO with golden data of the reference.")
    parser.add_argument(
        "directory", nargs="?", type=Path, default=default, help="the golden data (default: %(default)s)"
    )
    directory = parser.parse_args().directory
    if not (directory / "tiny" / "config.json").is_file():
        sys.stderr.write(f"{directory}: no golden data of CoLLaVO there (tiny/config.json is missing)\n")
        return 2
    failed = 0
    for difference in compare(directory):
        failed += not difference.ok
        verdict = "ok" if difference.ok else "FAILED"
        sys.stdout.write(
            f"{difference.quantity:<48}{difference.value:>12.3g}  allowed {difference.tolerance:<8g}{verdict}\n"
        )
    sys.stdout.write(f"{'all within the tolerances' if not failed else f'{failed} past the tolerance'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
