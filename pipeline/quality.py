"""How well a found panoptic map fits the true one, by COCO's rule, through torchmetrics.

The rule: a found and a true segment of one class match where they overlap by more than half (intersection over union).
Void (id 0 of the true map) does not count into the union. A true segment without a match is missed, unless it is a
crowd. A found one without a match is wrong, unless more than half of it lies on void or on a crowd of its class.

torchmetrics' `PanopticQuality` has the same rule where there is no crowd, with three exceptions: it joins all stuff of
a class into one segment, it leaves out true segments that lie on void of the found map, and it knows no crowds. So
every class is given to it as things; what is no segment of the found map becomes a segment of a class of its own;
crowds of the true map become another such class; and found segments that a crowd excuses are taken out beforehand.

Source: Kirillov et al. 2019 (arXiv 1801.00868); the rule for crowds is that of COCO's panoptic task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.detection import PanopticQuality

from datasets.evaluation.panoptic_quality import Tally

VOID = 0
"""Id of what the true map says nothing about; found maps have it where no segment is."""
MATCH = 0.5
"""Overlap that a match must exceed, and share of a segment that must be excused."""
_CROWD, _NOTHING, _UNKNOWN = 1, 2, 3
"""Classes added above the highest of COCO's: crowds, no segment of the found map, and void."""

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class TrueSegment:
    """A segment of the true map.

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
    found: Int32Array,
    classes: dict[int, int],
    true: Int32Array,
    segments: Sequence[TrueSegment],
    device: Any = "cpu",
) -> dict[int, Tally]:
    """Count matches in one picture.

    Args:
        found: ids (height, width); those that ``classes`` does not list are no segments.
        classes: found id -> COCO's class id.
        true: ids of the same shape; 0 is void. Ids that ``segments`` does not list can be matched by nothing.
        segments: of the true map, in the annotation's order.
        device: where torchmetrics works.
    Returns: matches of each class that either map has.

    Raises:
        ValueError: the maps differ in shape.
    """
    if found.shape != true.shape:
        raise ValueError(f"maps of {found.shape} and {true.shape} pixels cannot be compared")
    counts = _count(found, true)
    excused = _excused_by_crowds(counts, classes, segments)
    wanted = {segment.category_id for segment in segments if not segment.crowd}
    known = sorted({*wanted, *classes.values()})
    top = max(known, default=0)
    of_true = {s.id: top + _CROWD if s.crowd else s.category_id for s in segments} | {VOID: top + _UNKNOWN}
    of_found = {number: category for number, category in classes.items() if number not in excused}
    metric = PanopticQuality(things={*known, top + _CROWD, top + _NOTHING}, stuffs=set()).to(device)
    metric.update(
        _coloured(found, of_found, top + _NOTHING).to(device), _coloured(true, of_true, top + _CROWD).to(device)
    )
    absent = Counter(s.category_id for s in segments if not s.crowd and not counts.true[s.id])
    row = {category: index for index, category in enumerate(sorted(metric.things))}
    return {
        category: Tally(
            iou=float(metric.iou_sum[row[category]]),
            tp=int(metric.true_positives[row[category]]),
            fp=int(metric.false_positives[row[category]]),
            fn=int(metric.false_negatives[row[category]]) + absent[category],
        )
        for category in known
    }


def _count(found: Int32Array, true: Int32Array) -> _Counts:
    """Count pixels of all pairs of ids."""
    pairs, numbers = np.unique(true.astype(np.int64) << 32 | found, return_counts=True)
    both = Counter({(int(p >> 32), int(p & 0xFFFFFFFF)): int(n) for p, n in zip(pairs, numbers, strict=True)})
    of_true: Counter[int] = Counter()
    of_found: Counter[int] = Counter()
    for (one, other), number in both.items():
        of_true[one] += number
        of_found[other] += number
    return _Counts(of_true, of_found, both)


def _excused_by_crowds(counts: _Counts, classes: dict[int, int], segments: Sequence[TrueSegment]) -> set[int]:
    """Found segments without a match, more than half of them on void or on the crowd of their class.

    Where a class has several crowds the last one counts, as in COCO's rule.
    """
    crowds = {segment.category_id: segment.id for segment in segments if segment.crowd}
    excused = set()
    for number, category in classes.items():
        if category not in crowds or not counts.found[number]:
            continue
        on_void = counts.both[VOID, number]
        if (on_void + counts.both[crowds[category], number]) / counts.found[number] <= MATCH:
            continue
        rivals = [s.id for s in segments if s.category_id == category and not s.crowd]
        known = counts.found[number] - on_void
        overlaps = ((counts.both[i, number], known + counts.true[i] - counts.both[i, number]) for i in rivals)
        if not any(common > MATCH * union for common, union in overlaps):
            excused.add(number)
    return excused


def _coloured(ids: Int32Array, classes: dict[int, int], other: int) -> torch.Tensor:
    """Class and id of every pixel, int32 (1, height, width, 2); others are one segment of ``other``."""
    present, places = np.unique(ids, return_inverse=True)
    table = np.array([(classes.get(n, other), n if n in classes else 0) for n in present.tolist()], np.int32)
    return torch.from_numpy(table[places.reshape(-1)].reshape(1, *ids.shape, 2))
