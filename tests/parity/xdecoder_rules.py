"""Parity of what surrounds X-Decoder's network: texts, image preparation, mask resize, post-processing.

Every function takes a directory of the fixtures' layout and gives named differences; sizes, classes and settings come
from the directory. `tests.parity.xdecoder` runs them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from modeling.segmenters.base import PanopticMap
from modeling.segmenters.coco import COCO_PANOPTIC
from modeling.segmenters.xdecoder.checkpoint_names import our_name
from modeling.segmenters.xdecoder.config import TextConfig
from modeling.segmenters.xdecoder.decoder import class_logits
from modeling.segmenters.xdecoder.postprocess import MaskSizes, SegmentRules, panoptic_map, resize_masks
from modeling.segmenters.xdecoder.preprocess import ResizeRule, normalise_and_pad, padded_size
from modeling.segmenters.xdecoder.prompts import PromptTable, class_embeddings, prompt_names, unit_vectors
from modeling.segmenters.xdecoder.text import TextEncoder
from tests.parity.differences import Difference, difference

TEXT_STATES, EMBEDDINGS, MASK_RESIZE, SIMILARITY, INPUT = 2e-5, 1e-5, 5e-5, 5e-5, 1e-5


@torch.no_grad()
def compare_text(directory: Path) -> Iterator[Difference]:
    """The text encoder's states, projections, class embeddings, and the similarity made of them."""
    golden = load_file(directory / "text.safetensors")
    encoder = load_text_encoder(directory)
    ids = golden["probe.ids"].long()
    for index, state in enumerate(encoder.states(ids)):
        yield difference(f"text.block{index}", state, golden[f"probe.block{index}"], TEXT_STATES)
    hidden = encoder.hidden(ids)
    yield difference("text.hidden", hidden, golden["probe.hidden"], TEXT_STATES)
    yield difference("text.token_emb", hidden @ encoder.projection, golden["probe.token_emb"], EMBEDDINGS)
    yield difference("text.raw", encoder(ids), golden["probe.raw"], EMBEDDINGS)
    yield difference("text.normalized", unit_vectors(encoder(ids)), golden["probe.normalized"], EMBEDDINGS)
    yield from _compare_embeddings(encoder, golden)
    settings = json.loads((directory / "text.json").read_text(encoding="utf-8"))
    classes = settings["classes"]
    yield _unequal("text.names", prompt_names(classes[:-1]), settings["stripped"])
    templates = [template.text for template in PromptTable.load().templates]
    yield _unequal("text.templates", templates, settings["templates"])
    scale = torch.tensor(settings["logit_scale"])
    similarity = class_logits(golden["similarity.in"], golden["class_embeddings"], scale)
    yield difference("similarity", similarity, golden["similarity.out"], SIMILARITY)


def _compare_embeddings(encoder: TextEncoder, golden: dict[str, Tensor]) -> Iterator[Difference]:
    ids = golden["class_ids"].long()
    normed = unit_vectors(encoder(ids[0]))
    yield difference("text.class0.per_template", normed, golden["class0.per_template_normalized"], EMBEDDINGS)
    yield difference("text.class0.mean", normed.mean(dim=0), golden["class0.mean"], EMBEDDINGS)
    ours = class_embeddings(encoder, ids)
    yield difference("text.class0.final", ours[0], golden["class0.final"], EMBEDDINGS)
    yield difference("text.class_embeddings", ours, golden["class_embeddings"], EMBEDDINGS)
    alone = class_embeddings(encoder, golden["no_template_ids"].long()[:, None])
    yield difference("text.no_template_embeddings", alone, golden["no_template_embeddings"], EMBEDDINGS)


def load_text_encoder(directory: Path) -> TextEncoder:
    """The text encoder of a directory's tiny model, by the released key names."""
    settings = json.loads((directory / "tiny" / "config.json").read_text(encoding="utf-8"))["text"]
    named = {our_name(key): tensor for key, tensor in load_file(directory / "tiny" / "model.safetensors").items()}
    prefix = "text_encoder."
    weights = {key.removeprefix(prefix): tensor for key, tensor in named.items() if key and key.startswith(prefix)}
    config = TextConfig(**{key: value for key, value in settings.items() if key != "causal"})
    encoder = TextEncoder(config, weights["projection"].shape[1])
    encoder.load_state_dict(weights)
    return encoder.eval()


def compare_token_ids(directory: Path) -> Iterator[Difference]:
    """Names and token ids of the default classes, exactly; nothing where the directory has no such table."""
    if not (directory / "clip_ids_coco.npz").is_file():
        return
    classes = json.loads((directory / "coco_classes.json").read_text(encoding="utf-8"))
    golden = torch.from_numpy(np.load(directory / "clip_ids_coco.npz")["ids"].astype(np.int64))
    yield _unequal("coco.classes", [category.name for category in COCO_PANOPTIC], classes["classes"][:-1])
    ours = PromptTable.load().ids(prompt_names([c.name for c in COCO_PANOPTIC]), context_length=77)
    yield difference("coco.token_ids", ours, golden, 0)


def compare_preprocess(directory: Path) -> Iterator[Difference]:
    """The table of sizes, resized images by both rules, and the padded input."""
    settings = json.loads((directory / "preprocess.json").read_text())
    sizes = [
        ResizeRule(short_side=row["short"], long_side=row["long_max"]).size(row["height"], row["width"])
        for row in settings["resize_table"]
    ]
    yield _unequal("preprocess.sizes", sizes, [tuple(row["out"]) for row in settings["resize_table"]])
    golden, example = load_file(directory / "preprocess.safetensors"), settings["example"]
    evaluation = ResizeRule(short_side=example["short"], long_side=example["long_max"])
    demo = ResizeRule(short_side=example["demo_short"], long_side=None, demo=True)
    for name in sorted(key.removesuffix(".rgb") for key in golden if key.endswith(".rgb")):
        pixels = golden[f"{name}.rgb"].numpy()
        resized = evaluation.resize(pixels)
        yield difference(f"preprocess.{name}.resized", torch.tensor(resized), golden[f"{name}.resized"], 0)
        bicubic = torch.tensor(demo.resize(pixels))
        yield difference(f"preprocess.{name}.demo_bicubic", bicubic, golden[f"{name}.demo_bicubic"], 0)
        padded = padded_size((resized.shape[0], resized.shape[1]), settings["size_divisibility"])
        batch = normalise_and_pad([resized], settings["pixel_mean"], settings["pixel_std"], padded)
        yield difference(f"preprocess.{name}.input", batch, golden[f"{name}.input"], INPUT)


def compare_mask_resize(directory: Path) -> Iterator[Difference]:
    """Mask logits through the padded input's and the image's size to the result's."""
    golden = load_file(directory / "mask_resize.safetensors")
    for name in sorted(key.removesuffix(".sizes") for key in golden if key.endswith(".sizes")):
        numbers = golden[f"{name}.sizes"].tolist()
        padded, image, result = ((numbers[i], numbers[i + 1]) for i in (0, 2, 4))
        ours = resize_masks(golden[f"{name}.low"], MaskSizes(padded=padded, image=image, result=result))
        yield difference(f"mask_resize.{name}", ours, golden[f"{name}.out"], MASK_RESIZE)


def compare_postprocess(directory: Path) -> Iterator[Difference]:
    """Every case of post-processing alone: id map, segments and scores."""
    golden = load_file(directory / "postprocess.safetensors")
    for case in json.loads((directory / "postprocess.json").read_text(encoding="utf-8")):
        name = case["case"]
        rules = rules_of(case["num_classes"], case["things"] or (), case)
        found = panoptic_map(golden[f"{name}.logits"], golden[f"{name}.masks"], rules)
        yield from compare_map(f"postprocess.{name}", found, golden[f"{name}.id_map"].numpy(), case)


def compare_panoptic(directory: Path) -> Iterator[Difference]:
    """Every map of the tiny model, from its golden logits: resize, thresholds, segments."""
    golden, maps = load_file(directory / "tiny" / "forward.safetensors"), np.load(directory / "tiny" / "panoptic.npz")
    settings = json.loads((directory / "tiny" / "config.json").read_text())
    for case in json.loads((directory / "tiny" / "panoptic.json").read_text()):
        run, row = case["run"], case["row"]
        whole = run if f"{run}/pred_masks" in golden else run.rpartition("_")[0]
        image = golden[f"image{row if whole == 'batch' else whole.removeprefix('img').partition('_')[0]}"]
        sizes = sizes_of_case(case, golden, whole, image, settings["size_divisibility"])
        rules = rules_of(settings["num_classes"], range(settings["num_things"]), case)
        found = panoptic_map(golden[f"{whole}/pred_logits"][row], golden[f"{whole}/pred_masks"][row], rules, sizes)
        yield from compare_map(f"panoptic.{case['key']}", found, maps[case["key"]], case)


def sizes_of_case(case: dict[str, Any], golden: dict[str, Tensor], run: str, image: Tensor, multiple: int) -> MaskSizes:
    """Sizes of a recorded run: padded as its input (or as an image alone is), the image's, and the result's."""
    size = (image.shape[1], image.shape[2])
    recorded = golden.get(f"{run}/input")
    padded = padded_size(size, multiple) if recorded is None else (recorded.shape[2], recorded.shape[3])
    return MaskSizes(padded=padded, image=size, result=(case["height"], case["width"]))


def rules_of(num_classes: int, things: Iterable[int], case: dict[str, Any]) -> SegmentRules:
    """A case's thresholds and things as our rules."""
    countable = set(things)
    return SegmentRules(
        is_thing=tuple(index in countable for index in range(num_classes)),
        threshold=case["object_mask_threshold"],
        overlap=case["overlap_threshold"],
    )


def compare_map(name: str, found: PanopticMap, id_map: Any, case: dict[str, Any]) -> Iterator[Difference]:
    """One map: pixels and segments exactly, scores within the embeddings' tolerance."""
    same_shape = found.id_map.shape == id_map.shape
    unequal = int((found.id_map != id_map).sum()) if same_shape else found.id_map.size
    yield Difference(f"{name} (pixels unequal)", unequal, 0)
    ours = [(segment.id, segment.category_id) for segment in found.segments]
    yield _unequal(f"{name} (segments unequal)", ours, [(s["id"], s["category_id"]) for s in case["segments_info"]])
    scores = [item["score"] for item in case["derived"] if item["outcome"] == "segment"]
    if len(scores) == len(found.segments):
        pairs = zip(found.segments, scores, strict=True)
        yield Difference(f"{name} (scores)", max((abs(s.score - score) for s, score in pairs), default=0.0), 1e-5)


def _unequal(name: str, ours: list[Any], theirs: list[Any]) -> Difference:
    """Number of unequal items of two lists, in any surplus too."""
    unequal = sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    return Difference(name, unequal, 0)


def compare_rules(directory: Path) -> Iterator[Difference]:
    """Everything of this file."""
    yield from compare_text(directory)
    yield from compare_token_ids(directory)
    yield from compare_preprocess(directory)
    yield from compare_mask_resize(directory)
    yield from compare_postprocess(directory)
    yield from compare_panoptic(directory)
