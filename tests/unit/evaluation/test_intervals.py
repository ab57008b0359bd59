"""Intervals: within the scale, around the figure, as wide as they must be; against Wilson's own and by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from datasets.evaluation import Evaluation, graded, mme, per_class
from datasets.evaluation.statistics import intervals, rates
from datasets.evaluation.statistics.intervals import Estimate
from datasets.types import ImageFile, Metric, Record, Score, Scored
from pipeline.results.join import paired

credits = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
samples = st.lists(st.tuples(credits, st.integers(0, 5)), min_size=1, max_size=40)


def scored(number: int, image: int, value: float, **meta: object) -> Scored:
    name = f"{image}.png"
    record = Record(id=str(number), image=ImageFile(Path(name), name), fields={}, target="yes", meta=meta)
    return Scored(record=record, text="", score=Score(value=value, extracted="yes"))


@given(st.integers(1, 400), st.floats(0, 1))
def test_for_independent_answers_it_is_wilsons(num: int, share: float) -> None:
    right = round(num * share)
    ours = intervals.mean([1.0] * right + [0.0] * (num - right))
    wilson = binomtest(right, num).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


@given(samples)
def test_a_mean_stays_within_its_scale_and_contains_the_figure(rows: list[tuple[float, int]]) -> None:
    values, clusters = [v for v, _ in rows], [c for _, c in rows]
    for estimate in (intervals.mean(values), intervals.mean(values, clusters)):
        assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
        assert estimate.high > estimate.low  # no number of samples is certainty
    gaps = [a - b for a, b in zip(values, values[::-1], strict=True)]
    difference = intervals.signed_mean(gaps, clusters)
    assert -1.0 - 1e-12 <= difference.low <= difference.value <= difference.high <= 1.0 + 1e-12
    assert difference.value == pytest.approx(np.mean(gaps), abs=1e-9)


@given(st.lists(samples, min_size=1, max_size=4))
def test_a_mean_of_groups_stays_within_its_scale(groups: list[list[tuple[float, int]]]) -> None:
    metric = rates.mean_of_groups("accuracy", groups)
    assert metric.low is not None and metric.high is not None and metric.value is not None
    assert -1e-12 <= metric.low <= metric.value <= metric.high <= 1.0 + 1e-12


def test_one_image_tells_nothing_of_others_however_often_it_is_asked_about() -> None:
    estimate = intervals.mean([1.0, 0.0, 1.0, 1.0], ["a"] * 4)
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    all_right = intervals.mean([1.0] * 40, ["a", "b"] * 20)
    assert all_right.low == pytest.approx(intervals.mean([1.0, 1.0]).low)


def test_clusters_that_happen_to_agree_are_no_certainty() -> None:
    """Two images with one right answer of two each: no variance between them, yet half of the answers are wrong."""
    estimate = intervals.mean([1.0, 0.0, 0.0, 1.0], ["a", "a", "b", "b"])
    assert estimate.stderr == 0.0
    assert estimate.high - estimate.low > 0.5


def test_answers_that_go_together_widen_the_interval() -> None:
    values = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0] * 10
    together = intervals.mean(values, [n // 2 for n in range(60)])
    apart = intervals.mean(values)
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_a_small_split_counts_where_a_large_one_leaves_no_doubt() -> None:
    groups = [[(float(n > 0), f"a{n}") for n in range(1000)], [(1.0, "b0"), (1.0, "b1")]]
    metric = rates.mean_of_groups("accuracy", groups)
    assert metric.low is not None and metric.low < 0.7  # two right answers may be luck


def test_nothing_in_common_and_everything_in_common() -> None:
    part = intervals.mean([1.0, 0.0, 1.0, 1.0, 0.0] * 4, list(range(20)))
    other = replace(part, influence={("other", key): moved for key, moved in part.influence.items()})
    same, apart = (intervals.weighted_sum([(0.5, part), (0.5, second)]) for second in (part, other))
    assert (same.low, same.high) == pytest.approx((part.low, part.high))
    assert same.value - same.low == pytest.approx(np.sqrt(2) * (apart.value - apart.low))
    gone = intervals.weighted_sum([(1.0, part), (-1.0, part)])
    assert gone.value == 0.0
    assert gone.stderr == pytest.approx(0.0)


Draw = Callable[[np.random.Generator], Estimate]


def clustered(share: float, images: int, questions: int, alike: float) -> Draw:
    """Answers about images of different difficulty: a beta-binomial draw with a correlation within images."""

    def draw(rng: np.random.Generator) -> Estimate:
        ease = rng.beta(share * (1 / alike - 1), (1 - share) * (1 / alike - 1), images)
        right = rng.random((images, questions)) < ease[:, None]
        return intervals.mean(right.ravel().astype(float).tolist(), np.repeat(np.arange(images), questions).tolist())

    return draw


def difference(better: float, worse: float, num: int) -> Draw:
    def draw(rng: np.random.Generator) -> Estimate:
        u = rng.random(num)
        return intervals.signed_mean(np.where(u < better, 1.0, np.where(u < better + worse, -1.0, 0.0)).tolist())

    return draw


def grades(share: float, num: int) -> Draw:
    return lambda rng: intervals.mean(np.where(rng.random(num) < share, 1.0, rng.choice([0.0, 0.5], num)).tolist())


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (clustered(0.5, 60, 6, 0.3), 0.5),
        (clustered(0.9, 60, 6, 0.3), 0.9),
        (clustered(0.9, 8, 4, 0.3), 0.9),
        (clustered(0.97, 60, 6, 0.3), 0.97),
        (difference(0.05, 0.03, 200), 0.02),
        (difference(0.3, 0.2, 50), 0.1),
        (grades(0.8, 12), 0.85),
    ],
)
def test_an_interval_covers_the_truth_about_as_often_as_it_says(draw: Draw, truth: float) -> None:
    """Of 600 seeded draws; the plain interval of 1.96 errors covers 72 % of the third case."""
    rng = np.random.default_rng(0)
    estimates = [draw(rng) for _ in range(600)]
    assert 0.90 <= np.mean([e.low <= truth <= e.high for e in estimates]) <= 0.995


def ends(metric: Metric) -> tuple[float, float]:
    assert metric.low is not None and metric.high is not None and metric.value is not None
    assert metric.low <= metric.value <= metric.high
    return metric.low, metric.high


@given(st.lists(st.integers(0, 10), min_size=1, max_size=12))
def test_grades_stay_between_0_and_100(given_grades: list[int]) -> None:
    """As few as three grades of 1, 1 and 0.25 reached beyond 100."""
    answers = []
    for number, tenths in enumerate(given_grades):
        item = Record(id=str(number), image=None, fields={}, target="x", meta={"capability": ["ocr"]})
        verdict = graded.judged(item, "x", {"run1": str(tenths / 10)}, graded.Options())
        answers.append(Scored(record=item, text="x", score=verdict))
    for metric in graded.summarize(answers, graded.Options()):
        if metric.name in ("total", "score") and not metric.group.startswith("run/"):
            low, high = ends(metric)
            assert low >= 0.0 and high <= 100.0 + 1e-9


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_a_subtask_of_mme_stays_between_0_and_200(pairs: list[tuple[bool, bool]]) -> None:
    answers = [
        replace(item, record=replace(item.record, group="color"))
        for image, pair in enumerate(pairs)
        for item in (scored(2 * image + n, image, float(right), pair=image) for n, right in enumerate(pair))
    ]
    rows = {m.name: m for m in mme.summarize(answers, mme.Options()) if m.group == "color"}
    low, high = ends(rows["score"])
    assert low >= -1e-9 and high <= 200.0 + 1e-9
    per_image = [(a + b) / 2 + (a and b) for a, b in pairs]
    wanted = 100 * np.sqrt(np.sum((np.array(per_image, float) - np.mean(per_image)) ** 2)) / len(pairs)
    assert rows["score"].stderr == pytest.approx(wanted, abs=1e-9)


def test_questions_about_one_image_belong_together_whatever_class_they_are_of() -> None:
    answers = [scored(n, n // 2, float(n % 4 < 2), **{"class": "ab"[n % 2]}) for n in range(40)]
    rows = per_class.summarize(answers, per_class.Options(rule="yes_no"))
    average = next(m for m in rows if m.name == "average")
    assert average.stderr == pytest.approx(rates.accuracy(answers).stderr)
    ends(average)


@given(st.lists(st.tuples(credits, credits), min_size=1, max_size=20))
def test_a_paired_difference_stays_between_minus_1_and_1(rows: list[tuple[float, float]]) -> None:
    first = Evaluation(scored=[scored(n, n, a) for n, (a, _) in enumerate(rows)], metrics=[])
    second = Evaluation(scored=[scored(n, n, b) for n, (_, b) in enumerate(rows)], metrics=[])
    found = paired(first, second)
    low, value, high = found["low"], found["difference"], found["high"]
    assert low is not None and value is not None and high is not None
    assert -1.0 - 1e-12 <= low <= value <= high <= 1.0 + 1e-12
    swapped = paired(second, first)
    assert (swapped["low"], swapped["high"]) == pytest.approx((-high, -low))


def test_credits_outside_the_scale_are_refused() -> None:
    for values in ([], [1.5], [-0.1]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            intervals.mean(values)
