"""No segmenter: every image gets an empty map, so that the model reads no crayon prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..image import DecodedImage
from .base import PanopticMap
from .coco import COCO_BY_INDEX


class NoSegmenter:
    """Finds nothing in any image."""

    fingerprint = "none"
    categories = COCO_BY_INDEX
    reads_maps = False

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`."""
        return [PanopticMap(np.zeros(size, np.int32), ()) for _ in images]
