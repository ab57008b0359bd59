"""The rule of COCO's panoptic evaluation written out again, pixel by pixel, as an oracle for tests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Sums = dict[int, list[float]]
"""Class -> sum of overlaps, true positives, false positives, false negatives."""


def one_image(true: Any, true_segments: Sequence[Mapping[str, Any]], found: Any, classes: Mapping[int, int]) -> Sums:
    """Count matches; ids of the found map that ``classes`` does not list are no segments."""
    pairs = Counter(zip(np.asarray(true).reshape(-1).tolist(), np.asarray(found).reshape(-1).tolist(), strict=True))
    area_true, area_found = Counter[int](), Counter[int]()
    for (t, f), number in pairs.items():
        area_true[t] += number
        area_found[f] += number
    shown = {number: category for number, category in classes.items() if area_found[number]}
    sums: Sums = {c: [0.0, 0, 0, 0] for c in {*shown.values(), *(s["category_id"] for s in true_segments)}}
    matched_true, matched_found = set(), set()
    for segment in true_segments:
        for number, category in shown.items():
            common = pairs[segment["id"], number]
            if not common or segment["iscrowd"] or category != segment["category_id"]:
                continue
            union = area_found[number] + area_true[segment["id"]] - common - pairs[0, number]
            if common / union > 0.5:
                sums[category][0] += common / union
                sums[category][1] += 1
                matched_true.add(segment["id"])
                matched_found.add(number)
    crowd_of: dict[int, int] = {}
    for segment in true_segments:
        if segment["iscrowd"]:
            crowd_of[segment["category_id"]] = segment["id"]
        elif segment["id"] not in matched_true:
            sums[segment["category_id"]][3] += 1
    for number, category in shown.items():
        if number not in matched_found:
            ignored = pairs[0, number] + (pairs[crowd_of[category], number] if category in crowd_of else 0)
            sums[category][2] += ignored / area_found[number] <= 0.5
    return sums


def averages(images: Sequence[Sums], among: set[int] | None = None) -> tuple[float, float, float, int]:
    """PQ, SQ, RQ over the classes that occur, and how many they are."""
    rows = []
    for category in {c for sums in images for c in sums if among is None or c in among}:
        iou, tp, fp, fn = (sum(sums.get(category, [0, 0, 0, 0])[k] for sums in images) for k in range(4))
        if tp + fp + fn:
            rows.append((iou / (tp + 0.5 * fp + 0.5 * fn), iou / tp if tp else 0.0, tp / (tp + 0.5 * fp + 0.5 * fn)))
    pq, sq, rq = (sum(row[k] for row in rows) / max(1, len(rows)) for k in range(3))
    return pq, sq, rq, len(rows)
