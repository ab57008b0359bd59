"""Panoptic maps of training images, corrupted where training asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from modeling.segmenters.base import PanopticMap


def corrupt_map(panoptic: PanopticMap, share: float, classes: Sequence[int], rng: np.random.Generator) -> PanopticMap:
    """A map with errors like a segmenter's: some objects are missing, some are taken for something else.

    Args:
        panoptic: the ground-truth map.
        share: probability that an object is dropped, and the same again that it is renamed.
        classes: what a renamed object may become.
        rng: source of chance.
    """
    if not share or not panoptic.segments:
        return panoptic
    drawn = rng.random(len(panoptic.segments))
    others = rng.choice(np.asarray(classes), len(panoptic.segments))
    segments = []
    for segment, luck, other in zip(panoptic.segments, drawn, others, strict=True):
        if luck >= share:
            category_id = int(other) if luck < 2 * share else segment.category_id
            segments.append(replace(segment, category_id=category_id))
    kept = np.isin(panoptic.id_map, [segment.id for segment in segments])
    return PanopticMap(np.where(kept, panoptic.id_map, 0).astype(np.int32), tuple(segments))
