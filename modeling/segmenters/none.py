"""No segmenter: every image gets an empty map, so that the model reads no crayon prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import DecodedImage, PanopticMap
from .options import SegmenterConfig


class NoSegmenter:
    """Finds nothing in any image."""

    fingerprint = "none"

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`."""
        return [PanopticMap(np.zeros(size, np.int32), ()) for _ in images]


def build(config: SegmenterConfig, device: Any = "cpu") -> NoSegmenter:
    """Build it; it has no settings."""
    return NoSegmenter()
