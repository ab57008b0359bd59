"""No segmenter: every picture gets an empty map, so that the model reads no crayon prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import PanopticMap, Picture
from .options import SegmenterConfig


class NoSegmenter:
    """Finds nothing in any picture."""

    fingerprint = "none"

    def segment(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`."""
        return [PanopticMap(np.zeros(size, np.int32), ()) for _ in pictures]


def build(config: SegmenterConfig, device: Any = "cpu") -> NoSegmenter:
    """Build it; it has no settings."""
    return NoSegmenter()
