"""Boxes: read from text, compared by their overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.grounding import Box, Options, overlap, read_box, score, summarize
from datasets.types import DataError, Record, Scored


def record(target: Any, width: Any = 200, height: Any = 100, group: str = "", name: str = "1") -> Record:
    meta = {"width": width, "height": height}
    return Record(id=name, image=None, fields={}, target=target, group=group, meta=meta)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.06, 0.38, 0.27, 0.91]", (0.06, 0.38, 0.27, 0.91)),
        ("Sure, it is (#1 horse) [0.06, 0.38, 0.27, 0.91], (#2 horse) [0, 0, 1, 1].", (0.06, 0.38, 0.27, 0.91)),
        ("<box>(10,20),(30,40)</box>", (10, 20, 30, 40)),
        ("(0.1 0.2 0.3 0.4)", (0.1, 0.2, 0.3, 0.4)),
        ("[.1,.2,.3,.4]", (0.1, 0.2, 0.3, 0.4)),
        ("[0.5, 0.9, 0.1, 0.2]", (0.1, 0.2, 0.5, 0.9)),
        ("[-0.1, 0.2, 0.3, 0.4]", (-0.1, 0.2, 0.3, 0.4)),
        ("1. [0.1, 0.1, 0.5, 0.5]", (0.1, 0.1, 0.5, 0.5)),
        ("2 boxes, the 1 meant is (0.1, 0.1, 0.5, 0.5)", (0.1, 0.1, 0.5, 0.5)),
        ("7 8 9 10 is wrong, {0.1 0.1 0.5 0.5} is right", (0.1, 0.1, 0.5, 0.5)),
        ("5, 6, 7, 8 or <0.1; 0.1; 0.5; 0.5>", (0.1, 0.1, 0.5, 0.5)),
        ("3 【0.1，0.1，0.5，0.5】", (0.1, 0.1, 0.5, 0.5)),
        ("1. (10,20),(30,40)", (10, 20, 30, 40)),
        ("2) [[10, 20], [30, 40]]", (10, 20, 30, 40)),
        ('{"bbox_2d": [10, 20, 30, 40], "label": "1 2 3 4"}', (10, 20, 30, 40)),
        ("[0.1, 0.2, 0.3], no: [0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("(1) 0.1 0.2 0.3 0.4", (0.1, 0.2, 0.3, 0.4)),
        ("1. 0.1, 0.2, 0.3, 0.4\n2. 0, 0, 1, 1", (0.1, 0.2, 0.3, 0.4)),
        ("[0.1, 0.2, 0.3, 0.4, 0.99]", (0.1, 0.2, 0.3, 0.4)),
        ("[0.1,\n 0.2,\n 0.3,\n 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("[0.1, 0.2, 0.3]", None),
        ("there are 4 dogs and 3 cats and 2 birds and 1 fish", None),
        ("", None),
    ],
)
def test_boxes_in_texts(text: str, box: Box | None) -> None:
    assert read_box(text) == box


sides = st.integers(0, 30)
boxes = st.tuples(sides, sides, sides, sides).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(boxes, boxes)
def test_overlap_counts_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    first, second = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    first[a[1] : a[3], a[0] : a[2]] = True
    second[b[1] : b[3], b[0] : b[2]] = True
    union = (first | second).sum()
    ours = overlap(tuple(map(float, a)), tuple(map(float, b)))  # type: ignore[arg-type]
    assert ours == pytest.approx((first & second).sum() / union if union else 0.0)


def test_half_is_right_and_less_is_not() -> None:
    target = [0, 0, 100, 100]
    assert score(record(target), "[0.0, 0.0, 0.5, 1.0]", Options()).value == 1.0
    half = score(record(target), "[0.0, 0.0, 0.5, 0.5]", Options())
    assert (half.value, half.iou) == (1.0, 0.5)
    assert score(record(target), "[0.0, 0.0, 0.5, 0.499]", Options()).value == 0.0
    assert score(record(target), "[0.0, 0.0, 0.5, 1.0]", Options(threshold=1.0)).value == 1.0
    assert score(record(target), "[0, 0, 100, 100]", Options(scale=0)).iou == 1.0
    assert score(record(target), "[0, 0, 500, 1000]", Options(scale=1000)).iou == 1.0
    assert score(record([50, 0, 50, 100]), "[0.25, 0, 0.5, 1]", Options(box="xywh")).iou == 1.0
    assert score(record(target), "[-3, -3, 0.5, 9]", Options()).iou == 1.0  # cut at the image's edges


@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 4000))
def test_half_of_any_box_is_right(left: int, top: int, size: int) -> None:
    """Rounding in floating point takes no half away."""
    x, y = left * size / 100, top * size / 100
    said = f"[{left / 100}, {top / 100}, 1, 1]"
    half = score(record([x, y, x + (size - x) / 2, size], size, size), said, Options())
    assert half.iou == pytest.approx(0.5)
    assert half.value == 1.0


def test_a_threshold_that_everything_reaches_is_refused() -> None:
    for threshold in (0.0, 1.5):
        with pytest.raises(DataError, match="from above 0 to 1"):
            Options(threshold=threshold)


def test_no_box_is_counted_apart() -> None:
    silent = score(record([0, 0, 1, 1]), "on the left", Options())
    assert (silent.value, silent.no_answer) == (0.0, True)


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    assert score(record([0, 0, 50, 50]), text, Options()).value in (0.0, 1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record([1, 2, 3]), "no box of four numbers"),
        (record("left"), "no box of four numbers"),
        (record([0, 0, 1, 1], None), "data.keep"),
    ],
)
def test_records_that_cannot_be_judged_are_explained(bad: Record, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(bad, "[0, 0, 1, 1]", Options())


def test_figures_by_split() -> None:
    texts = [("val", "[0, 0, 1, 1]"), ("val", "nowhere"), ("testA", "[0, 0, 1, 0.75]")]
    scored = []
    for number, (group, text) in enumerate(texts):
        item = record([0, 0, 200, 100], group=group, name=str(number))
        scored.append(Scored(record=item, text=text, score=score(item, text, Options())))
    rows = {f"{m.group}/{m.name}".removeprefix("/"): m.value for m in summarize(scored, Options())}
    assert rows["accuracy"] == pytest.approx(2 / 3)
    assert rows["mean_iou"] == pytest.approx(1.75 / 3)
    assert (rows["val/accuracy"], rows["testA/accuracy"], rows["testA/mean_iou"]) == (0.5, 1.0, 0.75)
    assert rows["no_answer"] == 1


def test_a_box_may_have_exponents() -> None:
    assert read_box("[1e-1, 2.5E-1, 0.3, 4e-01]") == (0.1, 0.25, 0.3, 0.4)
