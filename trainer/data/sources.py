"""From the configuration's files to samples: what was read and what was skipped is said."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from collavo.instructions import KINDS, Kind
from configs.load import ConfigError
from datasets.instruct.llava import read_conversations
from datasets.instruct.panoptic import PanopticImage, classes_of, read_panoptic
from datasets.instruct.types import MissingImage, Sample, gather, share_images
from datasets.types import BadRecord, DataError
from modeling.segmenters import build_segmenter
from modeling.segmenters.options import SegmenterConfig
from pipeline.runtime.console import say, warn
from pipeline.runtime.launch import is_main

from ..config import TrainConfig
from .loader import Conversations, CrayonInstructions, Preparation
from .maps import MapCache
from .paths import located

if TYPE_CHECKING:
    import torch

SHOWN = 3
"""How many skipped records are named."""


def conversations(config: TrainConfig, preparation: Preparation, device: torch.device) -> Conversations:
    """The visual instructions of ``DATA.CONVERSATIONS``.

    Args:
        config: resolved.
        preparation: see `Preparation`.
        device: where the segmenter runs.

    Raises:
        ConfigError: none are named.
        DataError: a file is unreadable, or nothing in it can be used.
        SegmenterError: the segmenter cannot be built.
    """
    files = config.DATA.CONVERSATIONS
    if not files:
        raise ConfigError(
            "DATA.CONVERSATIONS: stage cit learns from conversations; name at least one FILE and its IMAGES"
        )
    read: list[Iterator[Sample | BadRecord]] = [
        read_conversations(located(config, item.FILE), [located(config, item.IMAGES)], check_images=True)
        for item in files
    ]
    gathered = gather(itertools.chain.from_iterable(read))
    report(", ".join(item.FILE for item in files), gathered.summary(), gathered.bad)
    if not gathered.samples:
        raise DataError(f"{files[0].FILE}: holds no conversation that can be used")
    segmenter = build_segmenter(config.SEGMENTER, device)
    reads_files = config.SEGMENTER.resolved().NAME in ("precomputed", "none")
    folder = None if reads_files else Path(config.DATA.MAPS_CACHE).expanduser()
    samples = [replace(s, with_objects=s.with_objects and config.CRAYON.object_list) for s in gathered.samples]
    samples = share_images(samples, config.TRAIN.QUESTIONS)
    return Conversations(samples, MapCache(segmenter, preparation.map_side, folder), preparation)


def crayon_instructions(config: TrainConfig, preparation: Preparation, kinds: Sequence[Kind]) -> CrayonInstructions:
    """The object-level instructions that are made from ``DATA.PANOPTIC``.

    Args:
        config: resolved.
        preparation: see `Preparation`.
        kinds: what is asked, unless ``DATA.KINDS`` says so.

    Raises:
        ConfigError: no annotations are named.
        DataError: they are unreadable, or have no image that is there.
        SegmenterError: their maps are not there.
    """
    source = config.DATA.PANOPTIC
    for name in ("ANNOTATIONS", "MAPS", "IMAGES"):
        if not getattr(source, name):
            raise ConfigError(f"DATA.PANOPTIC.{name}: is needed to make crayon instructions (COCO panoptic layout)")
    file, images = located(config, source.ANNOTATIONS), located(config, source.IMAGES)
    annotated: list[PanopticImage] = []
    bad: list[BadRecord] = []
    for item in read_panoptic(file, images, check_images=True):
        if isinstance(item, PanopticImage):
            annotated.append(item)
        else:
            bad.append(item)
    missing = sum(isinstance(item, MissingImage) for item in bad)
    report(source.ANNOTATIONS, f"{len(annotated)} images; {missing} skipped, they are missing", bad)
    if not annotated:
        raise DataError(f"{file}: none of its images is in {images}")
    precomputed = SegmenterConfig(NAME="precomputed", PATH=str(file), IMAGES=str(located(config, source.MAPS)))
    maps = MapCache(build_segmenter(precomputed), preparation.map_side, None)
    chosen = [kind for kind in KINDS if kind in config.DATA.KINDS] or kinds
    return CrayonInstructions(annotated, maps, chosen, preparation, classes_of(file))


def report(name: str, summary: str, bad: Sequence[BadRecord]) -> None:
    """Say what a source gave, on the main process."""
    if is_main(os.environ):
        say(f"{name}: {summary}")
        for item in bad[:SHOWN]:
            warn(f"{item.where}: {item.reason}")
        if len(bad) > SHOWN:
            warn(f"and {len(bad) - SHOWN} more like these")
