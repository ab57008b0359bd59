"""Files and folders that a stage learns from, by the keys that name them; needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datasets.roots import data_roots, find
from datasets.types import DataError

from ..config import TrainConfig


def located(config: TrainConfig, path: str) -> Path:
    """A path of the configuration: as it is, or below a dataset folder.

    Raises:
        DataError: it is nowhere; with the places that were looked at.
    """
    given = Path(path)
    return given if given.is_absolute() or given.exists() else find(data_roots(config.DATASETS.ROOT, os.environ), path)


def missing(config: TrainConfig) -> list[str]:
    """What the stage needs and is not there, in words, each with its key."""
    found: list[str] = []
    for key, path in _needed(config):
        try:
            place = located(config, path)
        except DataError as error:
            found.append(f"{key}: {error}")
        else:
            if not path or not place.exists():
                found.append(f"{key}: {place} is not there" if path else f"{key}: {_reason(config)}")
    return found


def _reason(config: TrainConfig) -> str:
    """Why a key must be set."""
    return f"is empty, and TRAIN.STAGE {config.TRAIN.STAGE} learns from it"


def _needed(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Keys and paths of the stage's data."""
    data, stage = config.DATA, config.TRAIN.STAGE
    if stage != "cit" or config.TRAIN.ADAPTERS != "vl_only":
        for name in ("ANNOTATIONS", "MAPS", "IMAGES"):
            yield f"DATA.PANOPTIC.{name}", getattr(data.PANOPTIC, name)
    if stage == "cit":
        if not data.CONVERSATIONS:
            yield "DATA.CONVERSATIONS", ""
        for number, item in enumerate(data.CONVERSATIONS, start=1):
            yield f"DATA.CONVERSATIONS, entry {number}, FILE", item.FILE
            if item.IMAGES:
                yield f"DATA.CONVERSATIONS, entry {number}, IMAGES", item.IMAGES
        if data.VALIDATION and not data.held_out_share:
            yield "DATA.VALIDATION", data.VALIDATION
