"""Summaries of choice sets: unanswered questions, circular passes, tables, and the robust reading next to the rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datasets.evaluation import choice, circular, exact_match, gqa, scienceqa
from datasets.evaluation.base import Scorer
from datasets.evaluation.judges.base import UnjudgedScore
from datasets.types import DataError, ImageFile, Metric, Record, Scored, unanswered
from pipeline.results.predictions_file import by_record, unknown_ids

PETS = {"A": "a dog", "B": "cat"}


def question(key: str, target: str | None = "B", image: str | None = None, **meta: Any) -> Record:
    source = ImageFile(Path(image), image) if image else None
    return Record(id=key, image=source, fields={}, target=target, meta={"options": PETS, **meta})


def run(scorer: Scorer, pairs: Sequence[tuple[Record, str | None]]) -> tuple[list[Scored], dict[str, Metric]]:
    scored = [
        unanswered(record) if text is None else Scored(record=record, text=text, score=scorer.score(record, text))
        for record, text in pairs
    ]
    return scored, {f"{m.group}/{m.name}".removeprefix("/"): m for m in scorer.summarize(scored)}


def test_rule_and_robust_reading_stand_side_by_side() -> None:
    pairs = [(question("1"), "B"), (question("2"), "(B)"), (question("3"), "maybe")]
    scored, metrics = run(choice.ChoiceScorer(rule="seed"), pairs)
    assert [s.score.no_answer for s in scored] == [False, True, True]
    assert metrics["accuracy"].value == pytest.approx(1 / 3)
    assert metrics["lenient_accuracy"].value == pytest.approx(2 / 3)
    assert metrics["no_answer"].value == 2


@pytest.mark.parametrize(("missing", "value", "num"), [("wrong", 0.5, 2), ("skip", 1.0, 1)])
def test_missing_answers(missing: str, value: float, num: int) -> None:
    options = choice.ChoiceScorer(rule="seed", by=("dimension",), missing=missing)
    pairs = [(question("1", dimension="x"), "B"), (question("2", dimension="x"), None)]
    _, metrics = run(options, pairs)
    for name in ("accuracy", "dimension/x/accuracy", "lenient_accuracy"):
        assert (metrics[name].value, metrics[name].num) == (value, num)
    assert metrics["errors"].value == 1
    assert "unscored" not in metrics


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean scienceqa"):
        choice.ChoiceScorer(rule="sciencqa")
    with pytest.raises(DataError, match="missing must be"):
        choice.ChoiceScorer(missing="maybe")
    with pytest.raises(DataError, match="record 1 has no options"):
        choice.ChoiceScorer().score(Record(id="1", image=None, fields={}, target="A"), "A")


def test_withheld_answers_are_not_wrong() -> None:
    scored, metrics = run(choice.ChoiceScorer(rule="seed"), [(question("1", target=None), "B")])
    assert scored[0].score.value is None
    assert (metrics["accuracy"].value, metrics["accuracy"].num) == (None, 0)


def test_scienceqa_counts_unanswered_in_the_total_only() -> None:
    pairs = [(question("1", image="1.png"), "B"), (question("2", image="2.png"), None), (question("3"), None)]
    _, metrics = run(scienceqa.ScienceQaScorer(), pairs)
    assert (metrics["accuracy"].value, metrics["accuracy"].num) == (pytest.approx(1 / 3), 3)
    assert (metrics["IMG/accuracy"].value, metrics["IMG/accuracy"].num) == (1.0, 1)


def test_scienceqa_table_follows_the_paper() -> None:
    pairs = [
        (question("1", image="1.png", subject=["NAT"], context=["TXT", "IMG"], grade=["G1-6"]), "B"),
        (question("2", subject=["SOC"], context=["NO"], grade=["G7-12"]), "A"),
    ]
    _, metrics = run(scienceqa.ScienceQaScorer(), pairs)
    rows = {name: m.value for name, m in metrics.items() if name.count("/") == 2}
    assert rows == {
        "subject/NAT/accuracy": 1.0,
        "subject/SOC/accuracy": 0.0,
        "context/TXT/accuracy": 1.0,
        "context/IMG/accuracy": 1.0,
        "context/NO/accuracy": 0.0,
        "grade/G1-6/accuracy": 1.0,
        "grade/G7-12/accuracy": 0.0,
    }


def passes(number: int, *texts: str | None, **meta: Any) -> list[tuple[Record, str | None]]:
    return [
        (question(str(number + step * 1_000_000), **{"question": number, "pass": step, **meta}), text)
        for step, text in enumerate(texts)
    ]


def test_circular_needs_every_pass() -> None:
    ability = {"l2-category": "logic_reasoning"}
    pairs = passes(1, "B", "B", **ability) + passes(2, "B", "A") + passes(3, "A", "B", "B")
    scored, metrics = run(circular.CircularScorer(), pairs)
    assert circular.hits(scored) == {"1": 1.0, "2": 0.0, "3": 0.0}
    assert (metrics["circular_accuracy"].value, metrics["circular_accuracy"].num) == (pytest.approx(1 / 3), 3)
    assert metrics["first_pass_accuracy"].value == pytest.approx(2 / 3)
    assert metrics["row_accuracy"].value == pytest.approx(5 / 7)
    assert metrics["l2-category/LR/circular_accuracy"].value == 1.0


def test_circular_does_not_hold_a_missing_pass_against_a_question() -> None:
    pairs = passes(1, "B", None) + passes(2, None, "B")
    scored, metrics = run(circular.CircularScorer(), pairs)
    assert circular.hits(scored) == {"1": 1.0}
    assert metrics["errors"].value == 2


def test_gqa_converts_and_nothing_more() -> None:
    record = Record(id="1", image=None, fields={}, target="yes", meta={})
    texts = {"Yes.": 1.0, "YES..": 1.0, "yes ": 0.0, "yes, it is": 0.0, "": 0.0}
    assert {text: gqa.GqaScorer().score(record, text).value for text in texts} == texts
    assert gqa.GqaScorer(conversion="none").score(record, "Yes.").value == 0.0


def test_gqa_average_of_nothing_is_zero() -> None:
    meta = {"structural": "query", "semantic": "attr", "words": 3, "steps": 2, "global_group": None}
    record = Record(id="1", image=None, fields={}, target="red", meta=meta)
    _, metrics = run(gqa.GqaScorer(), [(record, "red")])
    assert (metrics["open/accuracy"].value, metrics["binary/accuracy"].value) == (1.0, 0.0)
    assert metrics["distribution"].value is None


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        ("lower", " Red. ", 1.0),
        ("none", "Red", 0.0),
        ("none", "red", 1.0),
        ("vqa", "the red", 1.0),
        ("lower", "rot", 1.0),
    ],
)
def test_short_answers(form: Any, text: str, value: float) -> None:
    record = Record(id="1", image=None, fields={}, target=["red", "Rot"])
    assert exact_match.ExactMatchScorer(normalise=form).score(record, text).value == value


def test_answers_are_joined_by_id_and_a_repeated_release_id_serves_both() -> None:
    records = [question("7"), question("9", release_id="9"), question("9#2", release_id="9")]
    assert [text for _, text in by_record(records, {"9": "b", "7": "a"})] == ["a", "b", "b"]
    assert [text for _, text in by_record(records, {"9": "b", "9#2": "c"})] == [None, "b", "c"]
    assert unknown_ids(records, {"7": "a", "9": "b", "x": "c"}) == ["x"]


def test_a_refusal_is_no_answer() -> None:
    score = choice.score_with("mmbench", question("1"), "I can't process this file.")
    assert (score.extracted, score.value, score.no_answer) == ("Z", 0.0, True)
    assert not choice.score_with("mmbench", question("1"), "A").no_answer


@pytest.mark.parametrize(("text", "unjudged"), [("some animal", True), ("A", False), ("", False), ("  ", False)])
def test_a_judge_that_says_nothing_leaves_open_what_only_it_could_read(text: str, unjudged: bool) -> None:
    record = question("1")
    scorer = choice.ChoiceScorer(rule="mmbench")
    ruled, found = scorer.score(record, text), scorer.judged(record, text, {})
    assert isinstance(found, UnjudgedScore) == unjudged
    assert found == ruled or (unjudged and found.value is None)
    assert scorer.judged(record, text, {"verdict": "B"}).value == 1.0
