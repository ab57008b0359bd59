"""From the configuration's files to samples: what was read and what was skipped is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from collavo.instructions import KINDS, Kind
from configs.common.words import and_more
from configs.load import ConfigError
from datasets.instruct.mixture import SourcePart, is_held_out, random_subset
from datasets.instruct.panoptic import PanopticImage, classes_of
from datasets.instruct.types import GatheredSamples, MissingImageRecord, Sample, share_images
from datasets.types import BadRecord, DataError
from modeling.segmenters import build_segmenter
from modeling.segmenters.options import SegmenterConfig
from pipeline.models.map_cache import cached_segmenter
from pipeline.runtime.console import say, warn
from pipeline.runtime.launch import is_main

from ..config import ConversationSource, TrainConfig
from .paths import located
from .reading import gather_source, held_out_file, read_images, source_names
from .samples import Conversations, CrayonInstructions, Preparation, SampleSource

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Part = tuple[SourcePart, list[Sample]]
"""A part of a source, and its samples."""
_PANOPTIC_KEY = 2**20
"""Sets the draw of images apart from those of conversations."""
SHOWN = 3
"""How many skipped records are named."""


@dataclass(frozen=True, kw_only=True)
class StageData:
    """What a stage learns from.

    Attributes:
        training: adapter -> its samples.
        held_out: the same for the held-out loss; {} where none is computed.
    """

    training: Mapping[str, SampleSource]
    held_out: Mapping[str, SampleSource] = field(default_factory=dict)


Split = tuple[SampleSource, SampleSource | None]
"""Samples to train on, and held-out ones, if there are any."""


def join_sources(sources: Mapping[str, Split]) -> StageData:
    """The sources of all adapters."""
    held_out = {adapter: split[1] for adapter, split in sources.items() if split[1] is not None}
    return StageData(training={adapter: split[0] for adapter, split in sources.items()}, held_out=held_out)


def conversations(config: TrainConfig, preparation: Preparation, device: torch.device) -> Split:
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
    trained, held = read_parts(config)
    segmenter = cached_segmenter(config.SEGMENTER, device)

    def source(parts: Sequence[Part]) -> Conversations:
        samples = [sample for _, part in parts for sample in part]
        return Conversations(samples, segmenter, preparation, [part for part, _ in parts])

    return source(trained), source(held) if held else None


def read_parts(config: TrainConfig) -> tuple[list[Part], list[Part]]:
    """Read the files of ``DATA.CONVERSATIONS``, and say what they hold.

    Args:
        config: resolved.
    Returns: what is trained on, and what is held out.

    Raises:
        ConfigError: none are named.
        DataError: a file is unreadable, or nothing in it can be used.
    """
    if not config.DATA.CONVERSATIONS:
        raise ConfigError(
            "DATA.CONVERSATIONS: stage cit learns from conversations; name at least one FILE and its IMAGES"
        )
    names = source_names(config.DATA.CONVERSATIONS)
    trained: list[Part] = []
    held: list[Part] = []
    for number, (item, name) in enumerate(zip(config.DATA.CONVERSATIONS, names, strict=True)):
        read = read_source(config, item).samples
        samples = [read[i] for i in random_subset(len(read), item.MAX_SAMPLES, config.TRAIN.SEED, number)]
        kept, out = split_held_out(samples, lambda one: one.image.name if one.image else one.id, config)
        trained += _part(config, kept, name, item.WEIGHT)
        held += _part(config, out, name, 1.0)
    if not trained:
        raise DataError("DATA.VALIDATION: all conversations would be held out; lower the share")
    if (file := held_out_file(config)) is not None:
        held += _part(config, list(read_source(config, file).samples), source_names([file])[0], 1.0)
    return trained, held


def read_source(config: TrainConfig, item: ConversationSource) -> GatheredSamples:
    """Read a file of conversations; says what is in it.

    Raises:
        DataError: it is unreadable, or nothing in it can be used.
    """
    announce_source(item.FILE)
    gathered = gather_source(config, item)
    report_source(item.FILE, gathered.summary(), gathered.bad)
    if not gathered.samples:
        raise DataError(f"{item.FILE}: holds no conversation that can be used")
    return gathered


def split_held_out(items: Sequence[T], name: Callable[[T], str], config: TrainConfig) -> tuple[list[T], list[T]]:
    """What is trained on, and what ``DATA.VALIDATION`` holds out of it."""
    share, seed = config.DATA.held_out_share, config.TRAIN.SEED
    held = [is_held_out(name(item), share, seed) for item in items]
    return (
        [item for item, out in zip(items, held, strict=True) if not out],
        [item for item, out in zip(items, held, strict=True) if out],
    )


def _part(config: TrainConfig, samples: Sequence[Sample], name: str, weight: float) -> list[Part]:
    """A source's samples as they are trained on; none where there are none."""
    listed = [replace(s, with_objects=s.with_objects and config.CRAYON.object_list) for s in samples]
    shared = share_images(listed, config.TRAIN.QUESTIONS)
    return [(SourcePart(name=name, size=len(shared), weight=weight), shared)] if shared else []


def crayon_instructions(config: TrainConfig, preparation: Preparation, kinds: Sequence[Kind]) -> Split:
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
    file = located(config, source.ANNOTATIONS)
    announce_source(source.ANNOTATIONS)
    annotated, bad = read_images(config)
    missing = sum(isinstance(item, MissingImageRecord) for item in bad)
    report_source(source.ANNOTATIONS, f"{len(annotated)} images; {missing} skipped, they are missing", bad)
    if not annotated:
        raise DataError(f"{file}: none of its images is in {located(config, source.IMAGES)}")
    annotated = [
        annotated[i] for i in random_subset(len(annotated), source.MAX_SAMPLES, config.TRAIN.SEED, _PANOPTIC_KEY)
    ]
    kept, held = split_held_out(annotated, lambda one: one.image.name, config)
    if not kept:
        raise DataError("DATA.VALIDATION: all images would be held out; lower the share")
    precomputed = SegmenterConfig(NAME="precomputed", PATH=str(file), IMAGES=str(located(config, source.MAPS)))
    chosen = [kind for kind in KINDS if kind in config.DATA.KINDS] or kinds
    maps = build_segmenter(precomputed)

    def made(listed: Sequence[PanopticImage]) -> CrayonInstructions:
        return CrayonInstructions(listed, maps, chosen, preparation, classes_of(file))

    return made(kept), made(held) if held else None


def announce_source(name: str) -> None:
    """Say that a source is read, which may take minutes, on the main process."""
    if is_main(os.environ):
        say(f"reading {name} ...")


def report_source(name: str, summary: str, bad: Sequence[BadRecord]) -> None:
    """Say what a source gave, on the main process."""
    if is_main(os.environ):
        say(f"{name}: {summary}")
        for item in bad[:SHOWN]:
            warn(f"{item.where}: {item.reason}")
        if rest := and_more(len(bad), SHOWN):
            warn(f"{rest} like these")
