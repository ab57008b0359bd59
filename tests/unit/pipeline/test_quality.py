"""Matches of two maps equal COCO's rule written out again, with void, crowds, and unlisted ids among them."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.detection import PanopticQuality

from datasets.evaluation.panoptic_quality import SegmentMatches
from pipeline.results.panoptic_matching import TrueSegment, compare
from tests.limits import examples

from .official_quality import one_image

CLASSES = (1, 2, 187)


def blocks(rng: np.random.Generator, ids: int, share: float) -> Any:
    """A map of some rectangles, later ones over earlier ones; ids from 0."""
    found = np.zeros((12, 17), np.int32)
    for number in range(1, ids + 1):
        if rng.random() < share:
            top, left = rng.integers(0, 10), rng.integers(0, 14)
            found[top : top + rng.integers(1, 13), left : left + rng.integers(1, 18)] = number
    return found


def scene(seed: int) -> tuple[Any, list[dict[str, Any]], Any, dict[int, int]]:
    """A ground truth with crowds, voids, unlisted ids, segments without pixels; and a prediction that resembles it."""
    rng = np.random.default_rng(seed)
    true = blocks(rng, 8, 0.9)
    listed = [n for n in range(1, 9) if rng.random() < 0.9]
    rng.shuffle(listed)
    segments = [{"id": n, "category_id": int(rng.choice(CLASSES)), "iscrowd": int(rng.random() < 0.3)} for n in listed]
    of_true = {s["id"]: s["category_id"] for s in segments}
    found = np.roll(true, int(rng.integers(-2, 3)), axis=int(rng.integers(2)))
    found[found == rng.integers(1, 9)] = rng.integers(0, 9)
    noise = blocks(rng, 12, 0.2)
    found = np.where(noise > 8, noise, found).astype(np.int32)
    classes = {
        n: of_true.get(n, 1) if rng.random() < 0.8 else int(rng.choice(CLASSES))
        for n in range(1, 13)
        if rng.random() < 0.95 and (found == n).any()
    }
    return true, segments, found, classes


def rows(tallies: dict[int, SegmentMatches]) -> dict[int, list[float]]:
    return {category: [t.iou, t.tp, t.fp, t.fn] for category, t in tallies.items() if t.occurs}


def compared(true: Any, segments: list[dict[str, Any]], found: Any, classes: dict[int, int]) -> dict[int, list[float]]:
    listed = [TrueSegment(id=s["id"], category_id=s["category_id"], crowd=bool(s["iscrowd"])) for s in segments]
    return rows(compare(found, classes, true, listed))


@given(seed=st.integers(0, 10**9))
def test_equals_the_official_rule(seed: int) -> None:
    values = scene(seed)
    official = {c: row for c, row in one_image(*values).items() if sum(row[1:])}
    ours = compared(*values)
    assert ours.keys() == official.keys()
    for category, row in official.items():
        assert ours[category] == pytest.approx(row, abs=1e-12), category


def test_scenes_of_these_tests_hold_what_makes_the_rule_difficult() -> None:
    scenes = [scene(seed) for seed in range(300)]
    sums = [row for values in scenes for row in one_image(*values).values()]
    assert all(sum(row[k] for row in sums) > 100 for k in (1, 2, 3))
    plain = [
        one_image(true, [{**s, "iscrowd": 0} for s in segments], found, classes)
        for true, segments, found, classes in scenes
    ]
    assert sum(one_image(*values) != other for values, other in zip(scenes, plain, strict=True)) > 50
    filled = [(np.where(true == 0, 99, true), *more) for true, *more in scenes]
    assert sum(one_image(*a) != one_image(*b) for a, b in zip(scenes, filled, strict=True)) > 50


def test_equals_torchmetrics_where_its_rule_is_the_same() -> None:
    """Things only, no crowds, and a found map without void."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        true, found = blocks(rng, 6, 1.0), blocks(rng, 6, 1.0) + 1
        of_true = [0, *rng.choice(CLASSES, 6).tolist()]
        of_found = [0, *rng.choice(CLASSES, 7).tolist()]
        metric = PanopticQuality(things={*CLASSES}, stuffs=set(), return_sq_and_rq=True)
        metric.update(
            torch.tensor(np.stack([np.array(of_found)[found], found], -1))[None],
            torch.tensor(np.stack([np.array(of_true)[true], true], -1))[None],
        )
        segments = [{"id": n, "category_id": of_true[n], "iscrowd": 0} for n in range(1, 7) if (true == n).any()]
        ours = compared(true, segments, found, {n: of_found[n] for n in range(1, 8)})
        whole = np.array([ours.get(category, [0.0] * 4) for category in sorted(CLASSES)])
        states = (metric.iou_sum, metric.true_positives, metric.false_positives, metric.false_negatives)
        assert np.allclose(whole.T, np.array([state.numpy() for state in states]))


@pytest.mark.parametrize(
    ("true", "segments", "found", "classes", "wanted"),
    [
        ([[0, 0, 0]], [], [[0, 0, 0]], {}, {}),
        ([[0, 0, 0]], [], [[1, 1, 1]], {1: 1}, {}),  # all on void: no false positive
        ([[5, 5, 5]], [(5, 1, 0)], [[0, 0, 0]], {}, {1: [0, 0, 0, 1]}),  # torchmetrics would leave this one out
        ([[5, 5, 5]], [(5, 1, 1)], [[0, 0, 0]], {}, {}),  # nobody has to find a crowd
        ([[5, 5, 5]], [(5, 1, 1)], [[1, 1, 2]], {1: 1, 2: 2}, {2: [0, 0, 1, 0]}),
        ([[5, 5, 6]], [(5, 1, 0), (6, 1, 0)], [[1, 1, 2]], {1: 187, 2: 1}, {1: [1, 1, 0, 1], 187: [0, 0, 1, 0]}),
        ([[5, 5, 5, 5]], [(5, 187, 0)], [[1, 1, 1, 2]], {1: 187, 2: 187}, {187: [0.75, 1, 1, 0]}),  # no joined stuff
        ([[5, 5, 5, 5]], [(5, 1, 0)], [[1, 1, 2, 2]], {1: 1, 2: 1}, {1: [0, 0, 2, 1]}),  # one half is no match
        ([[5]], [(5, 1, 0), (7, 1, 0)], [[1]], {1: 1}, {1: [1, 1, 0, 1]}),  # listed without a pixel: missed
    ],
)
def test_cases_by_hand(true: Any, segments: Any, found: Any, classes: Any, wanted: Any) -> None:
    listed = [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in segments]
    assert compared(np.array(true, np.int32), listed, np.array(found, np.int32), classes) == wanted


def test_ids_up_to_the_largest_of_a_png() -> None:
    top = 256**3 - 1
    ids = np.array([[top, top, 1]], np.int32)
    segments = [{"id": top, "category_id": 1, "iscrowd": 0}, {"id": 1, "category_id": 2, "iscrowd": 0}]
    assert compared(ids, segments, ids, {top: 1, 1: 2}) == {1: [1, 1, 0, 0], 2: [1, 1, 0, 0]}


@given(seed=st.integers(0, 10**9))
@settings(max_examples=examples(50))
def test_the_order_of_segments_is_without_effect(seed: int) -> None:
    """To the last bit, as long as no class has two crowds, of which the last one counts."""
    true, segments, found, classes = scene(seed)
    crowded = Counter(s["category_id"] for s in segments if s["iscrowd"])
    segments = [s for s in segments if not s["iscrowd"] or crowded[s["category_id"]] == 1]
    turned = dict(reversed(classes.items()))
    assert compared(true, segments, found, classes) == compared(true, segments[::-1], found, turned)


def test_maps_without_a_pixel() -> None:
    empty = np.zeros((0, 5), np.int32)
    assert compared(empty, [{"id": 1, "category_id": 1, "iscrowd": 0}], empty, {1: 1}) == {1: [0, 0, 0, 1]}


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(np.zeros((2, 3), np.int32), {}, np.zeros((3, 2), np.int32), [])
