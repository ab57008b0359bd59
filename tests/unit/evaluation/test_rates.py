"""Means, counts and standard errors, against the textbook formula and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.statistics import rates
from datasets.types import ImageFile, Record, Score, Scored


def verdict(
    key: str, value: float | None, image: str | None = None, target: str | None = "x", **meta: object
) -> Scored:
    source = ImageFile(Path(image), image) if image else None
    record = Record(id=key, image=source, fields={}, target=target, meta=meta)
    return Scored(record=record, text="", score=Score(value=value, extracted="", no_answer=value == 0.0))


@given(st.lists(st.booleans(), min_size=1))
def test_error_of_independent_answers_is_binomial(values: list[bool]) -> None:
    metric = rates.mean("accuracy", [float(v) for v in values])
    p, n = sum(values) / len(values), len(values)
    assert metric.value == pytest.approx(p)
    assert metric.stderr == pytest.approx(math.sqrt(p * (1 - p) / n))
    assert metric.num == n


def test_error_is_clustered_by_image() -> None:
    """Two images, all right or all wrong: two independent observations, not eight."""
    scored = [verdict(f"{image}{n}", float(image == "a"), image) for image in "ab" for n in range(4)]
    assert rates.accuracy(scored).stderr == pytest.approx(math.sqrt(2 * (4 * 0.5) ** 2) / 8)


def test_nothing_has_no_mean() -> None:
    metric = rates.mean("accuracy", [])
    assert (metric.value, metric.stderr, metric.num) == (None, None, 0)


def test_unanswered_is_left_out_or_wrong_and_withheld_is_always_left_out() -> None:
    scored = [verdict("1", 1.0), verdict("2", None), verdict("3", None, target=None)]
    assert (rates.accuracy(scored).value, rates.accuracy(scored).num) == (1.0, 1)
    strict = rates.accuracy(scored, missing=0.0)
    assert (strict.value, strict.num) == (0.5, 2)
    assert [(m.name, m.value, m.num) for m in rates.unscored(scored)] == [("unscored", 1, 3), ("withheld", 1, 3)]
    assert rates.unscored(scored[:1]) == []


def test_tables_put_numbers_in_order() -> None:
    scored = [verdict(str(n), 1.0, steps=n) for n in (10, 2, 1)]
    assert [m.group for m in rates.table(scored, ["steps"])] == ["steps/1", "steps/2", "steps/10"]


def test_a_mean_of_groups_has_the_error_of_its_parts() -> None:
    groups = [[(1.0, "a"), (0.0, "b")], [(1.0, "a"), (1.0, "c"), (0.0, "d"), (1.0, "e")]]
    ours = rates.mean_of_groups("accuracy", groups)
    assert ours.value == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert (ours.num, ours.group) == (6, "mean")
    one = rates.mean_of_groups("accuracy", groups[1:])
    plain = rates.mean("accuracy", [v for v, _ in groups[1]])
    assert (one.value, one.stderr) == (plain.value, pytest.approx(plain.stderr))
    rng = np.random.default_rng(0)  # against the spread of repeated draws of the images
    draws = [np.mean([rng.random(40) < 0.7]) / 2 + np.mean([rng.random(160) < 0.4]) / 2 for _ in range(3000)]
    sample = [[(float(rng.random() < p), (p, i)) for i in range(n)] for p, n in ((0.7, 40), (0.4, 160))]
    assert rates.mean_of_groups("accuracy", sample).stderr == pytest.approx(np.std(draws), rel=0.15)
    assert rates.mean_of_groups("accuracy", [[], [(1.0, "a")]]).value is None
