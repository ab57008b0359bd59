"""MME: the first four characters, pairs by image, sums of subtasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.mme import MmeScorer, first_four
from datasets.registration.mme import COGNITION, PERCEPTION
from datasets.types import Metric, Record, Scored, unanswered


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        ("YES, it is", "yes"),
        (" yes", "yes"),
        ("\nyes", "yes"),
        ("  yes", ""),
        ("No\nI cannot see it", "no"),
        ("know", "no"),
        ("not at all", "no"),
        ("Yes or no?", "yes"),
        ("Answer: yes", ""),
        ("ＹＥＳ", ""),
        ("", ""),
    ],
)
def test_first_four_characters(text: str, said: str) -> None:
    assert first_four(text) == said


def task(name: str, *pairs: tuple[str, str]) -> list[Scored]:
    """Images whose questions are answered yes and no in truth, with the given texts."""
    scored = []
    for number, texts in enumerate(pairs):
        for line, (truth, text) in enumerate(zip(("yes", "no"), texts, strict=True)):
            pair = f"{name}/{number}.jpg"
            record = Record(id=f"{pair}/{line}", image=None, fields={}, target=truth, group=name, meta={"pair": pair})
            scored.append(Scored(record=record, text=text, score=MmeScorer().score(record, text)))
    return scored


def by_name(scored: list[Scored]) -> dict[str, Metric]:
    return {f"{m.group}/{m.name}": m for m in MmeScorer().summarize(scored)}


def test_score_is_accuracy_plus_pairs() -> None:
    metrics = by_name(task("count", ("yes", "no"), ("yes", "yes"), ("maybe", "no")))
    assert metrics["count/acc"].value == pytest.approx(4 / 6)
    assert metrics["count/acc_plus"].value == pytest.approx(1 / 3)
    assert metrics["count/score"].value == pytest.approx(100 * (4 / 6 + 1 / 3))
    counts = {name: metrics[f"count/{name}"].value for name in ("TP", "FN", "TN", "FP", "other_num")}
    assert counts == {"TP": 2, "FN": 0, "TN": 2, "FP": 1, "other_num": 1}
    assert metrics["count/precision"].value == pytest.approx(2 / 3)


@given(st.permutations(range(6)))
def test_order_does_not_matter(order: list[int]) -> None:
    scored = task("count", ("yes", "no"), ("yes", "yes"), ("no", "no"))
    assert by_name([scored[n] for n in order])["count/score"].value == by_name(scored)["count/score"].value


def test_sums_need_every_subtask() -> None:
    every = [item for name in (*PERCEPTION, *COGNITION) for item in task(name, ("yes", "no"))]
    metrics = by_name(every)
    assert (metrics["perception/score"].value, metrics["cognition/score"].value) == (2000.0, 800.0)
    metrics = by_name([s for s in every if s.record.group != "OCR"])
    assert (metrics["perception/score"].value, metrics["cognition/score"].value) == (None, 800.0)


def test_half_a_pair_is_no_pair() -> None:
    scored = task("count", ("yes", "no"), ("yes", "no"))
    scored[-1] = unanswered(scored[-1].record)
    metrics = by_name(scored)
    assert (metrics["count/acc"].num, metrics["count/acc_plus"].num) == (3, 1)
    assert metrics["/errors"].value == 1
