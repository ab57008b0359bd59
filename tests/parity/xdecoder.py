"""Parity of X-Decoder with the reference on golden data.

    python -m tests.parity.xdecoder [DIR]

runs everything on a directory of the layout that the fixtures' README describes, prints the largest difference of each
quantity, and exits 1 past a tolerance. Sizes, classes and settings come from the directory; nothing here knows them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from modeling.image import DecodedImage
from modeling.segmenters.xdecoder.checkpoint import CONFIG, LoadedModel, load_model
from modeling.segmenters.xdecoder.classes import ClassList
from modeling.segmenters.xdecoder.preprocess import ResizeRule
from modeling.segmenters.xdecoder.prompts import class_embeddings
from modeling.segmenters.xdecoder.released_sizes import released_sizes
from modeling.segmenters.xdecoder.segmenter import XDecoderSegmenter
from modeling.segmenters.xdecoder.vocabulary import Vocabulary
from tests.fixtures import fixtures_root
from tests.parity import xdecoder_network as network
from tests.parity.differences import Difference, write_table
from tests.parity.xdecoder_rules import compare_map, compare_rules

FULL_SIZE_TABLES = ("keys_focalt.json", "keys_focall.json", "clip_ids_coco.npz")
"""What holds for full-size models whatever a set's own sizes are, so that a set may come without it."""


def compare(directory: Path) -> Iterator[Difference]:
    """Compare everything the directory holds: the network, what surrounds it, and the whole segmenter."""
    yield from network.compare_position(directory)
    yield from network.compare_blocks(directory)
    yield from network.compare_backbone(directory)
    yield from network.compare_forward(directory)
    yield from network.compare_maps(directory)
    yield from network.compare_keys(directory)
    yield from compare_rules(directory)
    yield from compare_checkpoint(directory)
    yield from compare_segmenter(directory)


def compare_checkpoint(directory: Path) -> Iterator[Difference]:
    """Sizes read from the released tensors' shapes; heads and token ids, which shapes do not show, are left out."""
    wanted = network.read_config(directory / "tiny" / "config.json").to_dict()
    file = directory / "tiny" / "model.safetensors"
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(file).items()}
    # one head, since 8, as public models have, may not divide these widths
    found = released_sizes(shapes, file, num_heads=1).to_dict()
    hidden = ("num_heads", "bos_id", "eos_id", "pad_id", "layer_scale")
    unequal = sum(
        found[part][key] != value
        for part in ("backbone", "pixel_decoder", "decoder", "text")
        for key, value in wanted[part].items()
        if key not in hidden
    )
    yield Difference("checkpoint.sizes (unequal)", unequal, 0)


def compare_segmenter(directory: Path) -> Iterator[Difference]:
    """Maps of single images by the segmenter itself: released weights from a ``.pt`` file, texts, network, rules."""
    settings = json.loads((directory / "tiny" / "config.json").read_text(encoding="utf-8"))
    golden, maps = load_file(directory / "tiny" / "forward.safetensors"), np.load(directory / "tiny" / "panoptic.npz")
    loaded = load_released(directory)
    vocabulary = golden_vocabulary(directory, loaded, settings)
    for case in json.loads((directory / "tiny" / "panoptic.json").read_text(encoding="utf-8")):
        if case["run"] == "batch":  # padded to the largest image, which the segmenter never does
            continue
        pixels = network.run_images(case["run"], golden)[0].permute(1, 2, 0).numpy()
        segmenter = XDecoderSegmenter(
            loaded.model,
            vocabulary,
            resize=ResizeRule(short_side=min(pixels.shape[:2]), long_side=None),  # leaves this image as it is
            threshold=case["object_mask_threshold"],
            overlap=case["overlap_threshold"],
            identity=loaded.digest,
        )
        found = segmenter.segment([DecodedImage(pixels, case["run"])], (case["height"], case["width"]))[0]
        for item in compare_map(f"segmenter.{case['key']}", found, maps[case["key"]], case):
            # a score may differ as the logits it is made of may; maps and segments are exact
            yield dataclasses.replace(item, tolerance=network.PREDICTIONS) if item.tolerance else item


def load_released(directory: Path) -> LoadedModel:
    """The tiny model by way of a ``.pt`` file as public checkpoints are, with our configuration next to it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(load_file(directory / "tiny" / "model.safetensors"), folder / "model.pt")
        config = network.read_config(directory / "tiny" / "config.json")
        (folder / CONFIG).write_text(json.dumps(config.to_dict()), encoding="utf-8")
        return load_model(folder / "model.pt")


@torch.no_grad()
def golden_vocabulary(directory: Path, loaded: LoadedModel, settings: dict[str, Any]) -> Vocabulary:
    """The fixture's classes, numbered as its maps are, embedded by the text encoder."""
    ids = load_file(directory / "text.safetensors")["class_ids"].long()
    num_classes, num_things = settings["num_classes"], settings["num_things"]
    classes = ClassList(
        names=tuple(settings["classes"][:-1]),
        is_thing=tuple(index < num_things for index in range(num_classes)),
        numbers=tuple(range(num_classes)),
    )
    return Vocabulary(classes=classes, vectors=class_embeddings(loaded.model.text_encoder, ids), identity="golden")


def main() -> int:
    """Command line; see the top of the file."""
    default = fixtures_root() / "xdecoder"
    parser = argparse.ArgumentParser(description="Compare X-Decoder with golden data of the reference.")
    parser.add_argument(
        "directory", nargs="?", type=Path, default=default, help="the golden data (default: %(default)s)"
    )
    directory = parser.parse_args().directory
    if not (directory / "tiny" / "config.json").is_file():
        sys.stderr.write(f"{directory}: no golden data of X-Decoder there (tiny/config.json is missing)\n")
        return 2
    for name in FULL_SIZE_TABLES:
        if not (directory / name).is_file():
            sys.stdout.write(f"{name} is not there: not compared\n")
    return 1 if write_table(compare(directory)) else 0


if __name__ == "__main__":
    sys.exit(main())
