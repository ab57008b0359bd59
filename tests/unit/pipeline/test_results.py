"""Join, comparison with published figures, and the shown tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from datasets.declaration import Expected
from datasets.types import ImageFile, Metric, Record
from pipeline.models.collavo import in_words
from pipeline.results.join import _decisions, _open_decisions, compare, flat, nested
from pipeline.results.report import csv_table, plain_table
from pipeline.run.journal import JournalEntry, answers_by_record
from pipeline.run.questions import QuestionKey, distinct_questions
from pipeline.runtime.errors import RunError

IMAGE = ImageFile(Path("/1.png"), "1.png")
RECORDS = [Record(id=str(n), image=IMAGE, fields={"question": f"q{n % 2}"}, target=None) for n in range(14)]
QUESTIONS = distinct_questions((record, record.fields["question"]) for record in RECORDS)


def entry(question: str, text: str) -> JournalEntry:
    return JournalEntry(run="a", id="0", image="1.png", question=question, text=text)


def test_answers_reach_every_record_of_their_question() -> None:
    answers: dict[QuestionKey, JournalEntry] = {
        ("1.png", "q0"): entry("q0", "even"),
        ("1.png", "q1"): entry("q1", "odd"),
    }
    joined = answers_by_record(RECORDS, QUESTIONS, answers)
    assert {name: found.text for name, found in joined.items()} == {
        str(n): "odd" if n % 2 else "even" for n in range(14)
    }


def test_missing_answers_are_named_and_nothing_is_scored() -> None:
    with pytest.raises(RunError, match=r"7 of 14 records have no answer, nothing is scored: 1, 3, 5, 7, 9, 11, 13"):
        answers_by_record(RECORDS, QUESTIONS, {("1.png", "q0"): entry("q0", "even")})


def test_a_repeated_id_is_an_error() -> None:
    records = [*RECORDS[:2], RECORDS[0]]
    questions = distinct_questions((record, record.fields["question"]) for record in records)
    answers: dict[QuestionKey, JournalEntry] = {
        ("1.png", "q0"): entry("q0", "even"),
        ("1.png", "q1"): entry("q1", "odd"),
    }
    with pytest.raises(RunError, match="3 records carry 2 distinct ids"):
        answers_by_record(records, questions, answers)


def test_replies_that_rounding_could_turn_are_counted_and_said_where_sums_have_no_fixed_order() -> None:
    replies = [
        JournalEntry(run="a", id=str(n), image=None, question=str(n), text="yes", close=n < 3) for n in range(12)
    ]
    failed = JournalEntry(run="a", id="x", image=None, question="x", error="unreadable", close=True)
    wanted = {"close": 3, "of": 12, "share": 0.25, "fixed_order": True, "shape_changes": {}}
    assert _decisions([*replies, failed], ["cpu", "cpu"]) == wanted
    assert list(_open_decisions({"decisions": wanted})) == []
    assert list(_open_decisions({})) == []
    on_gpu = _decisions(replies, ["cpu", "cuda:0 (NVIDIA H200)"])
    assert on_gpu == {**wanted, "fixed_order": False}
    (said,) = _open_decisions({"decisions": on_gpu})
    assert said.startswith("3 of 12 replies (25.00 %) hang on a decision that rounding could turn")
    changed = replace(replies[5], note="blocks of 8 rows instead of 16")
    squeezed = _decisions([changed, *replies[6:]], ["cpu"])
    assert squeezed["shape_changes"] == {"blocks of 8 rows instead of 16": 1} and not squeezed["fixed_order"]
    (said,) = _open_decisions({"decisions": squeezed})
    assert said == "memory ran out: 1 replies are of blocks of 8 rows instead of 16, which can change last digits"
    assert _decisions([failed], ["cpu"])["share"] is None


METRICS = [
    Metric(name="accuracy", value=0.85, num=10, group="random", stderr=0.1, low=0.654, high=0.97),
    Metric(name="accuracy", value=0.875, num=20, group="mean"),
    Metric(name="f1", value=None, num=20, group="mean"),
    Metric(name="TP", value=7, num=10, group="random", kind="count"),
    Metric(name="score", value=1689.71, num=20, kind="score"),
]


@pytest.mark.parametrize(
    ("metric", "value", "got", "within"),
    [
        ("mean/accuracy", 87.2, 87.5, True),
        ("random/accuracy", 87.2, 85.0, False),
        ("score", 1689.7, 1689.71, True),
        ("mean/f1", 80.0, None, None),
        ("mean/absent", 80.0, None, None),
    ],
)
def test_published_figures_are_compared_on_their_scale(
    metric: str, value: float, got: float | None, within: bool | None
) -> None:
    row = compare(Expected(metric=metric, value=value, tolerance=0.5, source="table"), METRICS)
    assert row["got"] == (None if got is None else pytest.approx(got)) and row["within"] is within
    assert row["difference"] == (None if got is None else pytest.approx(got - value))


def test_values_by_group_and_for_a_tracker() -> None:
    assert nested(METRICS)["mean"] == {"accuracy": 0.875, "f1": None}
    assert flat(nested(METRICS), "pope") == {
        "pope/random/accuracy": 0.85,
        "pope/mean/accuracy": 0.875,
        "pope/random/TP": 7,
        "pope/all/score": 1689.71,
    }


def test_tables_show_percent_counts_and_undefined() -> None:
    metrics = [vars(metric) for metric in METRICS]
    about = {"asked": {"rules": "official"}, "judged": {"decided_by": ""}}
    shown = plain_table({"title": "Toy", "metrics": metrics, "expected": [], **about})
    cells = [line.split() for line in shown.splitlines()[3:]]
    assert cells[1] == ["random", "accuracy", "85.00", "65.40", "to", "97.00", "10"]
    assert (
        cells[3] == ["mean", "f1", "undefined", "20"]
        and cells[4][2] == "7"
        and cells[5][:3] == ["all", "score", "1689.71"]
    )
    assert csv_table(metrics).splitlines()[3] == "mean,f1,,20,,,,rate,"


def test_sizes_in_words() -> None:
    assert (in_words(6_540_000_000), in_words(312_345)) == ("6.54 GB", "0.3 MB")
