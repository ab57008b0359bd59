"""From an image's class and mask logits to its panoptic map, by the rules of X-Decoder.

Source: Zou et al. 2022 (arXiv 2212.11270), whose public code follows Cheng et al. 2022 (arXiv 2112.01527) here; where
both differ (area test, merged stuff), X-Decoder's way is taken. All in float32: a resize or sigmoid in half precision
moves pixels across 0.5.

Shapes: Q queries, K classes and the background last, h x w the mask logits, H x W the image, R x S the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import PanopticMap, Segment

MASK_PROBABILITY = 0.5
CHUNK_ELEMENTS = 2**24  # of resized masks held at once: 64 MiB


@dataclass(frozen=True, kw_only=True)
class MaskSizes:
    """Heights and widths that the masks of an image pass through.

    Attributes:
        padded: of the network's input.
        image: of what lies in its upper left corner.
        result: of the wanted map.
    """

    padded: tuple[int, int]
    image: tuple[int, int]
    result: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SegmentRules:
    """What decides on segments.

    Attributes:
        is_thing: per class whether it is countable; the stuff of one class is one segment.
        threshold: probability that a query's class must exceed.
        overlap: least share of its mask's area that a query must win; equality stays.
    """

    is_thing: tuple[bool, ...]
    threshold: float = 0.8
    overlap: float = 0.8


def resize_masks(masks: Tensor, sizes: MaskSizes) -> Tensor:
    """Mask logits (Q, h, w) at the result's size (Q, R, S): twice bicubic with antialiasing, never rounded."""
    at_input = _resize(masks.float(), sizes.padded)
    return _resize(at_input[:, : sizes.image[0], : sizes.image[1]], sizes.result)


def _resize(masks: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(masks[None], size=size, mode="bicubic", align_corners=False, antialias=True)[0]


def panoptic_map(logits: Tensor, masks: Tensor, rules: SegmentRules, sizes: MaskSizes | None = None) -> PanopticMap:
    """Turn one image's predictions into a panoptic map.

    Args:
        logits: class logits (Q, K + 1).
        masks: mask logits (Q, h, w).
        rules: thresholds, and which classes are things (K of them).
        sizes: of the resize; None where the masks have the result's size.

    Returns:
        the map; a segment's score is the class probability of its first query.

    Raises:
        ValueError: the number of classes is not that of the rules.
    """
    if logits.shape[1] != len(rules.is_thing) + 1:
        raise ValueError(f"{logits.shape[1]} class logits for {len(rules.is_thing)} classes and the background")
    scores, labels = logits.float().softmax(dim=-1).max(dim=-1)
    kept = ((labels < len(rules.is_thing)) & (scores > rules.threshold)).nonzero()[:, 0]
    if len(kept) == 0:
        return PanopticMap(np.zeros(sizes.result if sizes else tuple(masks.shape[1:]), np.int32), ())
    winner, inside = _compete(scores[kept], masks[kept], sizes)
    return _collect(winner, inside, labels[kept].tolist(), scores[kept].tolist(), rules)


def _compete(scores: Tensor, masks: Tensor, sizes: MaskSizes | None) -> tuple[Tensor, Tensor]:
    """Give each pixel to the query with the largest score times probability.

    In chunks of queries, so that many queries at a large size fit into memory.

    Args:
        scores: (Q,) of the kept queries.
        masks: their mask logits (Q, h, w).
        sizes: of the resize, or None.

    Returns:
        the winning query, int64 (R, S), and where each query's probability is at least one half, bool (Q, R, S).
    """
    height, width = sizes.result if sizes else masks.shape[1:]
    best = torch.full((height, width), -torch.inf, device=masks.device)
    winner = torch.zeros((height, width), dtype=torch.int64, device=masks.device)
    inside = torch.empty((len(masks), height, width), dtype=torch.bool, device=masks.device)
    # between the resizes a mask has the padded input's size, often far more than the result's
    largest = max(height * width, math.prod(sizes.padded) if sizes else 0)
    step = max(1, CHUNK_ELEMENTS // max(1, largest))
    for start in range(0, len(masks), step):
        part = masks[start : start + step]
        probabilities = (resize_masks(part, sizes) if sizes else part.float()).sigmoid()
        inside[start : start + step] = probabilities >= MASK_PROBABILITY
        value, index = (scores[start : start + step, None, None] * probabilities).max(dim=0)
        better = value > best  # an equal value stays with the earlier query
        best, winner = torch.where(better, value, best), torch.where(better, index + start, winner)
    return winner, inside


def _collect(
    winner: Tensor, inside: Tensor, labels: Sequence[int], scores: Sequence[float], rules: SegmentRules
) -> PanopticMap:
    """Make segments of the queries in their order; numbers have no gaps.

    Args:
        winner: winning query per pixel (R, S).
        inside: each query's own mask, bool (Q, R, S).
        labels: class of each query.
        scores: its probability.
        rules: thing or stuff, overlap threshold.
    """
    id_map = torch.zeros_like(winner, dtype=torch.int32)
    segments: list[Segment] = []
    number_of_stuff: dict[int, int] = {}
    mask_areas = inside.flatten(1).sum(dim=1).tolist()
    won_areas = winner.flatten().bincount(minlength=len(labels)).tolist()
    for query, (label, score) in enumerate(zip(labels, scores, strict=True)):
        won, area = won_areas[query], mask_areas[query]
        if won == 0 or area == 0:
            continue
        final = (winner == query) & inside[query]
        if not bool(final.any()) or won / area < rules.overlap:
            continue
        number = number_of_stuff.get(label, len(segments) + 1)
        id_map[final] = number
        if number > len(segments):
            segments.append(Segment(id=number, category_id=label, score=score))
            if not rules.is_thing[label]:
                number_of_stuff[label] = number
    return PanopticMap(id_map.cpu().numpy(), tuple(segments))
