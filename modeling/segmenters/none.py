"""No segmenter: every picture gets an empty map, so that the model reads no crayon prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import PanopticMap, Picture
from .coco import COCO_BY_INDEX


class NoSegmenter:
    """Finds nothing in any picture."""

    fingerprint = "none"
    categories = COCO_BY_INDEX
    reads_maps = False

    def segment(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`."""
        return [PanopticMap(np.zeros(size, np.int32), ()) for _ in pictures]
