"""Parity of X-Decoder's network: blocks, backbones, position encodings, every decoder step, and the released names.

Every function takes a directory of the fixtures' layout and gives named differences; sizes, runs and weights come from
the directory. `tests.parity.xdecoder` runs them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from modeling.segmenters.xdecoder.checkpoint_names import our_name, released_name
from modeling.segmenters.xdecoder.config import (
    FOCAL_L,
    FOCAL_T,
    BackboneConfig,
    DecoderConfig,
    PixelDecoderConfig,
    TextConfig,
    XDecoderConfig,
)
from modeling.segmenters.xdecoder.focalnet import FocalBlock, FocalNet, PatchEmbedding
from modeling.segmenters.xdecoder.model import XDecoder
from modeling.segmenters.xdecoder.position import sine_position
from modeling.segmenters.xdecoder.postprocess import MaskSizes, panoptic_map, resize_masks
from modeling.segmenters.xdecoder.preprocess import normalise_and_pad, padded_size
from tests.parity.differences import Difference, difference
from tests.parity.xdecoder_rules import compare_map, rules_of, sizes_of_case

POSITION, BLOCK, FEATURES, STATES, PREDICTIONS = 1e-5, 1e-5, 5e-5, 2e-4, 1e-3
BACKBONES = {"focal_dw": True, "focal": False}  # depth-wise convolutions or not
# what the fixtures' configuration says of every model, and this network takes for granted
TAKEN_FOR_GRANTED: dict[str, dict[str, Any]] = {
    "backbone": {
        "patch_size": 4,
        "use_conv_embed": True,
        "use_postln": True,
        "use_layerscale": True,
        "scaling_modulator": True,
        "patch_norm": True,
    },
    "pixel_decoder": {"kind": "transformer_encoder_fpn", "norm": "GN", "norm_groups": 32, "pre_norm": False},
    "decoder": {"num_feature_levels": 3, "pre_norm": False},
    "text": {"causal": True},
}


def read_config(path: Path) -> XDecoderConfig:
    """Our configuration from the fixture's own description of its model.

    Raises:
        ValueError: a setting that no public model has and this network cannot follow.
    """
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for part, settings in TAKEN_FOR_GRANTED.items():
        for name, value in settings.items():
            if values[part].get(name, value) != value:
                raise ValueError(f"{path}: {part}.{name} is {values[part][name]}; only {value} is built")
    kind = values["backbone"]["kind"]
    if kind not in BACKBONES:
        raise ValueError(f"{path}: backbone.kind is {kind}; {' and '.join(BACKBONES)} are built")
    pixel, decoder, text = values["pixel_decoder"], values["decoder"], values["text"]
    return XDecoderConfig(
        backbone=read_backbone(values["backbone"], depthwise=BACKBONES[kind]),
        pixel_decoder=PixelDecoderConfig(
            conv_dim=pixel["conv_dim"],
            mask_dim=pixel["mask_dim"],
            num_layers=pixel["encoder_layers"],
            num_heads=pixel["encoder_heads"],
            ffn_dim=pixel["encoder_ffn_dim"],
        ),
        decoder=DecoderConfig(
            num_queries=decoder["num_queries"],
            hidden_dim=decoder["hidden_dim"],
            embed_dim=decoder["dim_proj"],
            num_layers=decoder["num_layers"],
            num_heads=decoder["num_heads"],
            ffn_dim=decoder["ffn_dim"],
        ),
        text=TextConfig(**{name: value for name, value in text.items() if name != "causal"}),
        pixel_mean=tuple(values["pixel_mean"]),
        pixel_std=tuple(values["pixel_std"]),
        size_divisibility=values["size_divisibility"],
    )


def read_backbone(values: Mapping[str, Any], *, depthwise: bool) -> BackboneConfig:
    """A backbone's sizes from the fixture's names, which are ours."""
    return BackboneConfig(
        embed_dim=values["embed_dim"],
        depths=tuple(values["depths"]),
        focal_levels=tuple(values["focal_levels"]),
        focal_windows=tuple(values["focal_windows"]),
        depthwise=depthwise,
        mlp_ratio=values.get("mlp_ratio", 4.0),
    )


def load_tiny(directory: Path) -> XDecoder:
    """The fixture's model in evaluation mode, with its weights by their released names."""
    model = XDecoder(read_config(directory / "tiny" / "config.json")).eval()
    load(model, load_file(directory / "tiny" / "model.safetensors"))
    return model


def load(module: nn.Module, released: Mapping[str, Tensor], theirs: str = "", ours: str = "") -> None:
    """Load a part by released names.

    Args:
        module: the part.
        released: its weights.
        theirs: where the part lies in a whole released model; goes before the names.
        ours: where it lies in a whole model of ours; is taken off the names.
    """
    names = {key: our_name(theirs + key) for key in released}
    module.load_state_dict({name.removeprefix(ours): released[key] for key, name in names.items() if name})


@torch.no_grad()
def compare_position(directory: Path) -> Iterator[Difference]:
    """Sine position encodings, of which the names say features, height and width."""
    for name, golden in load_file(directory / "position.safetensors").items():
        features, height, width = map(int, re.findall(r"\d+", name))
        yield difference(f"position.{name}", sine_position(height, width, features), golden, POSITION)


@torch.no_grad()
def compare_blocks(directory: Path) -> Iterator[Difference]:
    """Both kinds of block with their modulation, and both kinds of patch embedding, of both variants."""
    golden = load_file(directory / "blocks.safetensors")
    settings = json.loads((directory / "blocks.json").read_text(encoding="utf-8"))
    for variant, depthwise in (("dw", True), ("plain", False)):
        part = _part(golden, f"block_{variant}.")
        yield from _compare_block(part, variant, depthwise, settings["block"]["mlp_ratio"])
        stem = _part(golden, f"stem_{variant}.")
        width = len(stem["w.norm.weight"])
        ours = PatchEmbedding.stem(width, depthwise)
        yield _compare_embedding(f"stem_{variant}", ours, stem, "backbone.patch_embed.", "backbone.stages.0.embed.")
        down = _part(golden, f"down_{variant}.")
        ours = PatchEmbedding.between(down["x"].shape[1], len(down["w.norm.weight"]))
        place = ("backbone.layers.0.downsample.", "backbone.stages.1.embed.")
        yield _compare_embedding(f"down_{variant}", ours, down, *place)


def _compare_block(part: dict[str, Tensor], variant: str, depthwise: bool, mlp_ratio: float) -> Iterator[Difference]:
    weights = _part(part, "w.")
    channels = len(weights["norm1.weight"])
    kernels = [key for key in weights if "focal_layers" in key]
    window = min(weights[key].shape[-1] for key in kernels)
    # a block reads from the configuration what every block of a backbone shares
    shared = BackboneConfig(
        embed_dim=channels,
        depths=(1,) * 4,
        focal_levels=(len(kernels),) * 4,
        focal_windows=(window,) * 4,
        depthwise=depthwise,
        mlp_ratio=mlp_ratio,
    )
    block = FocalBlock(channels, len(kernels), window, shared)
    load(block, weights, "backbone.layers.0.blocks.0.", "backbone.stages.0.blocks.0.")
    modulated = block.modulation(part["modulation_in"])
    yield difference(f"block_{variant}.modulation", modulated, part["modulation_out"], BLOCK)
    sides = part["modulation_in"].shape[1:3]
    out = block(part["x"].unflatten(1, sides)).flatten(1, 2)
    yield difference(f"block_{variant}.y", out, part["y"], BLOCK)


def _compare_embedding(
    name: str, module: PatchEmbedding, part: dict[str, Tensor], theirs: str, ours: str
) -> Difference:
    load(module, _part(part, "w."), theirs, ours)
    return difference(f"{name}.y", module(part["x"]).permute(0, 3, 1, 2), part["y"], BLOCK)


@torch.no_grad()
def compare_backbone(directory: Path) -> Iterator[Difference]:
    """A whole backbone of the other variant."""
    golden = load_file(directory / "backbone_plain.safetensors")
    settings = json.loads((directory / "blocks.json").read_text(encoding="utf-8"))["backbone_plain"]
    weights = _part(golden, "w.")
    backbone = FocalNet(read_backbone(settings, depthwise=any(".dw1." in key for key in weights)))
    load(backbone, weights, "backbone.", "backbone.")
    for index, ours in enumerate(backbone(golden["x"]), start=2):
        yield difference(f"backbone_plain.res{index}", ours, golden[f"res{index}"], FEATURES)


@torch.no_grad()
def compare_forward(directory: Path) -> Iterator[Difference]:
    """Every recorded quantity of every run of the whole network, from the images on.

    Raises:
        ValueError: a recorded quantity that nothing here computes.
    """
    model = load_tiny(directory)
    golden = load_file(directory / "tiny" / "forward.safetensors")
    runs: dict[str, list[str]] = {}
    for key in golden:
        run, slash, quantity = key.partition("/")
        if slash:
            runs.setdefault(run, []).append(quantity)
    for run, quantities in sorted(runs.items()):
        ours = _quantities(model, run_input(run, golden, model.config), golden["text_embeddings"])
        for quantity in quantities:
            key = f"{run}/{quantity}"
            if quantity == "masks_out":
                ours[quantity] = _masks_out(run, ours, golden)
            if quantity not in ours:
                raise ValueError(f"{directory}: {key} is recorded, but nothing here computes it")
            yield _compare_quantity(key, ours[quantity], golden[key])


@torch.no_grad()
def compare_maps(directory: Path) -> Iterator[Difference]:
    """Every id map and segment list of the whole model, from the images on."""
    model = load_tiny(directory)
    golden = load_file(directory / "tiny" / "forward.safetensors")
    maps = np.load(directory / "tiny" / "panoptic.npz")
    settings = json.loads((directory / "tiny" / "config.json").read_text(encoding="utf-8"))
    for case in json.loads((directory / "tiny" / "panoptic.json").read_text(encoding="utf-8")):
        run, row = case["run"], case["row"]
        output = model(run_input(run, golden, model.config), golden["text_embeddings"])
        image = run_images(run, golden)[row]
        sizes = sizes_of_case(case, golden, run, image, model.config.size_divisibility)
        rules = rules_of(settings["num_classes"], range(settings["num_things"]), case)
        found = panoptic_map(output.logits[row], output.masks[row], rules, sizes)
        for item in compare_map(f"map.{case['key']}", found, maps[case["key"]], case):
            # scores may differ as the logits they are made of may; maps and segments are exact
            yield replace(item, tolerance=PREDICTIONS) if item.tolerance else item


def run_images(run: str, golden: Mapping[str, Tensor]) -> list[Tensor]:
    """The images of a run, uint8 (3, H, W): all of them for ``batch``, else the one that its name counts.

    Raises:
        ValueError: a name that tells no image.
    """
    if run == "batch":
        return [
            golden[key] for key in sorted(golden, key=lambda key: (len(key), key)) if re.fullmatch(r"image\d+", key)
        ]
    number = re.match(r"img(\d+)", run)
    if number is None:
        raise ValueError(f"run {run} is neither the batch nor named after an image")
    return [golden[f"image{number[1]}"]]


def run_input(run: str, golden: Mapping[str, Tensor], config: XDecoderConfig) -> Tensor:
    """The run's images, normalised and padded together."""
    images = run_images(run, golden)
    sides = (max(image.shape[1] for image in images), max(image.shape[2] for image in images))
    pixels = [image.permute(1, 2, 0).numpy() for image in images]
    return normalise_and_pad(pixels, config.pixel_mean, config.pixel_std, padded_size(sides, config.size_divisibility))


def _masks_out(run: str, ours: Mapping[str, Tensor], golden: Mapping[str, Tensor]) -> Tensor:
    """A single image's mask logits at the size of the recorded result."""
    image, padded = run_images(run, golden)[0], ours["input"]
    result = golden[f"{run}/masks_out"]
    sides = [(tensor.shape[-2], tensor.shape[-1]) for tensor in (padded, image, result)]
    return resize_masks(ours["pred_masks"][0], MaskSizes(padded=sides[0], image=sides[1], result=sides[2]))


def _quantities(model: XDecoder, pixels: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """What the network computes on the way, and what its forward gives, by the fixture's names."""
    output = model(pixels, classes)
    maps = model.backbone(pixels)
    features = model.pixel_decoder(maps)
    found = {"input": pixels, "pred_logits": output.logits, "pred_masks": output.masks}
    found |= {f"res{index}": tensor for index, tensor in enumerate(maps, start=2)}
    found |= {f"multi_scale.{index}": tensor for index, tensor in enumerate(features.levels)}
    found |= {"encoder_features": model.pixel_decoder.encode(maps[-1]), "mask_features": features.mask_features}
    for index, step in enumerate(model.decoder(features, classes)):
        name = f"layer{index}."
        found |= {name + "query": step.queries, name + "logits": step.prediction.logits}
        found |= {name + "masks": step.prediction.masks, "pred_captions": step.prediction.embeddings}
        if step.blocked is not None:
            found[name + "attn_mask"] = step.blocked
    return found


def _compare_quantity(name: str, ours: Tensor, theirs: Tensor) -> Difference:
    """Masks of attention bit by bit, everything else by its largest difference."""
    quantity = name.rpartition("/")[2]
    if quantity.endswith("attn_mask"):
        return difference(name, ours.int(), theirs.int(), 0)
    if quantity.endswith(("logits", "masks", "masks_out")):
        return difference(name, ours, theirs, PREDICTIONS)
    states = quantity.endswith((".query", "pred_captions"))
    return difference(name, ours, theirs, STATES if states else FEATURES)


def compare_keys(directory: Path) -> Iterator[Difference]:
    """Names and shapes of the two public sizes, both ways, and what is left out of them; counts what is unequal.

    They are the same for every set of golden data; nothing where the directory has no such table.
    """
    for name, config in (("focalt", FOCAL_T), ("focall", FOCAL_L)):
        if not (directory / f"keys_{name}.json").is_file():
            continue
        listed = json.loads((directory / f"keys_{name}.json").read_text(encoding="utf-8"))
        released = {key: tuple(shape) for key, (shape, _) in listed["keys"].items()}
        with torch.device("meta"):
            model = XDecoder(config)
        ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        expected = {our_name(key): shape for key, shape in released.items() if our_name(key)}
        yield Difference(f"keys_{name}: names and shapes", len(expected.items() ^ ours.items()), 0)
        back = {released_name(key) for key in ours}
        left_out = _not_needed(listed["not_needed_for_panoptic"])
        yield Difference(f"keys_{name}: names back", len(back ^ (set(released) - left_out)), 0)
        unnamed = {key for key in released if our_name(key) is None}
        yield Difference(f"keys_{name}: left out", len(unnamed ^ left_out), 0)


def _not_needed(reasons: Mapping[str, Any]) -> set[str]:
    """Keys that the list names as not needed; the text encoder's, given by their prefix, are needed for new classes."""
    return {key for keys in reasons.values() if isinstance(keys, list) for key in keys}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
