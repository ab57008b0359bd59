"""Panoptic segmenters. A backend is a module here with a ``build`` function; ``SEGMENTER.NAME`` names it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from configs.common.words import did_you_mean, shown

from .base import Segmenter
from .errors import SegmenterError
from .files import check_files
from .options import SegmenterConfig

_NO_BACKENDS = ("base", "blocks", "coco", "coco_format", "errors", "files", "options")


def backends() -> list[str]:
    """Names of the backends; found by file name, none is imported."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NO_BACKENDS)


def build_segmenter(config: SegmenterConfig, device: Any = "cpu") -> Segmenter:
    """Build the segmenter that a configuration names.

    Args:
        config: see `SegmenterConfig`.
        device: where it runs.

    Raises:
        SegmenterError: unknown backend, or one that cannot be built with these settings.
    """
    config = _checked(config)
    segmenter: Segmenter = importlib.import_module(f"{__name__}.{config.NAME}").build(config, device)
    return segmenter


def check_segmenter(config: SegmenterConfig) -> None:
    """Check what can be known of a segmenter before anything is loaded; its files, too. Loads no torch.

    Args:
        config: see `SegmenterConfig`.

    Raises:
        SegmenterError: unknown backend, or one whose files are not there.
    """
    check_files(_checked(config))


def _checked(config: SegmenterConfig) -> SegmenterConfig:
    """The settings, resolved.

    Raises:
        SegmenterError: unknown backend, a path that is needed, or a batch without images.
    """
    config = config.resolved()
    if config.NAME not in backends():
        hint = did_you_mean(config.NAME, backends(), n=1)
        raise SegmenterError(f"SEGMENTER.NAME: no '{shown(config.NAME)}'{hint} There are: {', '.join(backends())}")
    if not config.PATH and config.NAME != "none":
        raise SegmenterError(f"SEGMENTER.PATH: SEGMENTER.NAME {config.NAME} needs one; it is empty")
    if config.BATCH_SIZE < 1:
        raise SegmenterError(f"SEGMENTER.BATCH_SIZE: must be at least 1, got {config.BATCH_SIZE}")
    return config
