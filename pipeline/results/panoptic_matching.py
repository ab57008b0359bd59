"""How well a found panoptic map fits the true one, by COCO's rule: numpy counts the pixels of all pairs of ids.

The rule: a found and a true segment of one class match where they overlap by more than half (intersection over union).
Void (id 0 of the ground-truth map) does not count into the union. A true segment without a match is missed, unless it
is a crowd. A found one without a match is wrong, unless more than half of it lies on void or on a crowd of its class;
where a class has several crowds, the last one counts.

Source: Kirillov et al. 2019 (arXiv 1801.00868); void and crowds as in ``panopticapi/evaluation.py`` of COCO's task.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datasets.evaluation.panoptic_quality import SegmentMatches

VOID = 0
"""Id of what the ground-truth map says nothing about; found maps have it where no segment is."""
MATCH = 0.5
"""Overlap that a match must exceed, and share of a segment that must be excused."""

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class TrueSegment:
    """A segment of the ground-truth map.

    Attributes:
        id: in the map.
        category_id: COCO's id of its class.
        crowd: whether it stands for many things that nobody told apart.
    """

    id: int
    category_id: int
    crowd: bool = False


@dataclass(frozen=True)
class _Counts:
    """Pixels of a pair of maps: of each true id, of each found id, and of both together."""

    true: Counter[int]
    found: Counter[int]
    both: Counter[tuple[int, int]]


def compare(
    found: Int32Array, classes: Mapping[int, int], true: Int32Array, segments: Sequence[TrueSegment]
) -> dict[int, SegmentMatches]:
    """Count matches in one image.

    Args:
        found: ids (height, width), not negative; those that ``classes`` does not list are no segments.
        classes: found id -> COCO's class id.
        true: ids of the same shape; 0 is void. Ids that ``segments`` does not list can be matched by nothing.
        segments: of the ground-truth map, in the annotation's order.
    Returns: matches of each class that either map has.

    Raises:
        ValueError: the maps differ in shape.
    """
    if found.shape != true.shape:
        raise ValueError(f"maps of {found.shape} and {true.shape} pixels cannot be compared")
    counts = _count(found, true)
    shown = {number: category for number, category in classes.items() if counts.found[number]}
    wanted = [segment for segment in segments if not segment.crowd]
    matches = _matches(counts, shown, wanted)
    matched = {number for pair in matches for number in pair[1:]}
    crowds = {segment.category_id: segment.id for segment in segments if segment.crowd}
    wrong = Counter(
        category
        for number, category in shown.items()
        if ("found", number) not in matched and not _excused(number, crowds.get(category), counts)
    )
    missed = Counter(s.category_id for s in wanted if ("true", s.id) not in matched)
    overlaps: dict[int, list[float]] = {c: [] for c in sorted({*classes.values(), *(s.category_id for s in wanted)})}
    for iou, (_, number), _ in matches:
        overlaps[shown[number]].append(iou)
    return {
        category: SegmentMatches(iou=math.fsum(ious), tp=len(ious), fp=wrong[category], fn=missed[category])
        for category, ious in overlaps.items()
    }


def _count(found: Int32Array, true: Int32Array) -> _Counts:
    """Count pixels of all pairs of ids; a run of equal pairs is counted at once, as maps are flat nearly everywhere."""
    keys = (true.astype(np.int64) << 32 | found).reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if keys.size else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, keys.size))
    pairs, places = np.unique(keys[starts], return_inverse=True)
    numbers = np.bincount(places.reshape(-1), weights=lengths, minlength=len(pairs))
    both = Counter({(int(p >> 32), int(p & 0xFFFFFFFF)): int(n) for p, n in zip(pairs, numbers, strict=True)})
    of_true: Counter[int] = Counter()
    of_found: Counter[int] = Counter()
    for (one, other), number in both.items():
        of_true[one] += number
        of_found[other] += number
    return _Counts(of_true, of_found, both)


_Match = tuple[float, tuple[str, int], tuple[str, int]]
"""An overlap, the found segment and the true one, each with the map it is of."""


def _matches(counts: _Counts, shown: Mapping[int, int], wanted: Sequence[TrueSegment]) -> list[_Match]:
    """Pairs of segments of one class that overlap by more than half; no segment can be in two of them."""
    of_true = {segment.id: segment.category_id for segment in wanted}
    matches: list[_Match] = []
    for (true, found), common in counts.both.items():
        if true in of_true and found in shown and of_true[true] == shown[found]:
            union = counts.true[true] + counts.found[found] - common - counts.both[VOID, found]
            if common > MATCH * union:
                matches.append((common / union, ("found", found), ("true", true)))
    return matches


def _excused(number: int, crowd: int | None, counts: _Counts) -> bool:
    """Whether more than half of a found segment lies on void or on the crowd of its class."""
    on_crowd = 0 if crowd is None else counts.both[crowd, number]
    return counts.both[VOID, number] + on_crowd > MATCH * counts.found[number]
