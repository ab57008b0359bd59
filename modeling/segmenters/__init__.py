"""Panoptic segmenters. ``SEGMENTER.NAME`` names one of `registry.SEGMENTERS`."""

from __future__ import annotations

from typing import Any

from configs.common.words import no_such

from .base import Segmenter
from .errors import SegmenterError
from .options import SegmenterConfig
from .registry import SEGMENTERS


def backends() -> list[str]:
    """Names of the segmenters; none is imported."""
    return list(SEGMENTERS)


def build_segmenter(config: SegmenterConfig, device: Any = "cpu") -> Segmenter:
    """Build the segmenter that a configuration names.

    Args:
        config: see `SegmenterConfig`.
        device: where it runs.

    Raises:
        SegmenterError: unknown backend, or one that cannot be built with these settings.
    """
    config = _checked(config)
    return SEGMENTERS[config.NAME].build(config, device)


def check_segmenter(config: SegmenterConfig) -> None:
    """Check what can be known of a segmenter before anything is loaded; its files, too. Loads no torch.

    Args:
        config: see `SegmenterConfig`.

    Raises:
        SegmenterError: unknown backend, or one whose files are not there.
    """
    config = _checked(config)
    SEGMENTERS[config.NAME].check_files(config)


def _checked(config: SegmenterConfig) -> SegmenterConfig:
    """The settings, resolved.

    Raises:
        SegmenterError: unknown backend, a path that is needed, or a batch without images.
    """
    config = config.resolved()
    if config.NAME not in SEGMENTERS:
        raise SegmenterError(f"SEGMENTER.NAME: {no_such(config.NAME, SEGMENTERS)}")
    if not config.PATH and SEGMENTERS[config.NAME].needs_path:
        raise SegmenterError(f"SEGMENTER.PATH: SEGMENTER.NAME {config.NAME} needs one; it is empty")
    if config.BATCH_SIZE < 1:
        raise SegmenterError(f"SEGMENTER.BATCH_SIZE: must be at least 1, got {config.BATCH_SIZE}")
    return config
