"""MathVista, MM-Vet, Q-Bench, HallusionBench: single answers, with and without verdicts; odd ends of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation import choice, circular, graded, hallusion, mathvista, qbench
from datasets.evaluation.base import JudgedScorer
from datasets.types import DataError, ImageFile, Metric, Record, Score, Scored, unanswered


def question(key: str, **meta: Any) -> Record:
    options = {"A": "a dog", "B": "cat"}
    return Record(id=key, image=None, fields={"question": "What?"}, target="B", meta={"options": options, **meta})


def problem(kind: str, answer: str | None, choices: Sequence[str] = (), precision: int | None = None) -> Record:
    return Record(
        id="1",
        image=None,
        fields={"question": "How many?", "query": "..."},
        target=answer,
        meta={
            "question_type": "multi_choice" if choices else "free_form",
            "answer_type": kind,
            "choices": list(choices),
            "precision": precision,
            "skills": ["arithmetic", "geometry", "arithmetic"],
        },
    )


@pytest.mark.parametrize(
    ("kind", "precision", "said", "answer"),
    [
        ("integer", None, "1.5", "1"),
        ("integer", None, "0.99", "0"),
        ("integer", None, "0." + 30 * "9", "1"),
        ("integer", None, "-0.005", "0"),
        ("integer", None, "1e3", "1000"),
        ("integer", None, "nan", None),
        ("integer", None, "inf", None),
        ("integer", None, "1,000", None),
        ("integer", None, "5 cm", None),
        ("integer", None, "", None),
        ("float", 1, "1.20", "1.2"),
        ("float", 2, "1.234", "1.23"),
        ("float", None, "1.6", "2"),
        ("float", 1, "inf", "inf"),
        ("list", None, "[1, 2]", "[1, 2]"),
    ],
)
def test_forms_of_answers(kind: str, precision: int | None, said: str, answer: str | None) -> None:
    assert mathvista.normalise(problem(kind, "1", precision=precision), said) == answer


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("B", "two"),
        (" b ", "one"),  # a small letter is no letter; the first of the nearest choices it is
        ("(b) anything", "two"),
        ("I think (C) and (A)", "three"),
        ("(Z)", "one"),
        ("tow", "two"),
        ("three apples", "three"),
        ("", "one"),
    ],
)
def test_choices_by_letter_or_by_likeness(said: str, chosen: str) -> None:
    assert mathvista.normalise(problem("text", "two", ("one", "two", "three")), said) == chosen


def test_mathvista_asks_a_judge_only_where_the_rules_end() -> None:
    options = mathvista.MathVistaScorer()
    texts = {"": "", " 12 ": "12", "12.0": None, "about 12": None}
    number = problem("integer", "12")
    assert {text: mathvista.extract(number, text, quick=False) for text in texts} == texts
    asked = list(options.requests([(number, text) for text in texts]))
    assert ["Answer: 12.0" in r.prompt or "Answer: about 12" in r.prompt for r in asked] == [True, True]
    assert mathvista.extract(number, 'The answer is "12".', quick=True) == "12"


def test_mathvista_scores_with_and_without_verdict() -> None:
    options, record, text = mathvista.MathVistaScorer(), problem("integer", "12"), "It is about 12."
    alone = options.score(record, text)
    assert (alone.value, alone.no_answer) == (0.0, True)
    assert "no judge was asked" in alone.explanation
    assert options.judged(record, text, {"verdict": "12"}).value == 1.0
    assert options.judged(record, text, {}).value is None
    assert options.judged(record, "12", {}).value == 1.0
    silent = options.judged(record, text, {"verdict": ""})
    assert (silent.value, silent.no_answer) == (0.0, True)


def test_mathvista_counts_a_lucky_empty_answer_apart() -> None:
    record = problem("text", "one", ("one", "two", "three"))
    metrics = figures(mathvista.MathVistaScorer(), [(record, "")])
    assert (metrics["accuracy"].value, metrics["accuracy_ignoring_empty"].value) == (1.0, 0.0)
    assert metrics["no_answer"].value == 1
    assert metrics["skills/arithmetic/accuracy"].num == 1


@pytest.mark.parametrize(
    ("record", "text", "answer"),
    [
        (problem("integer", "12"), "So there are 12 of them.", "12"),
        (problem("float", "1.2", precision=1), "The length is 1.23 cm", "1.2"),
        (problem("list", "[1, 2]"), "They are [1, 2].", "[1, 2]"),
        (problem("text", "two", ("one", "two")), "The answer is (B).", "two"),
        (problem("text", "two", ("one", "two")), "no idea", None),
        (problem("integer", "12"), "no idea", None),
    ],
)
def test_mathvista_as_a_reader_understands(record: Record, text: str, answer: str | None) -> None:
    assert mathvista.lenient(record, text) == answer


@given(st.text(), st.sampled_from(["integer", "float", "list", "text"]), st.none() | st.integers(0, 3))
def test_mathvista_takes_any_text(text: str, kind: str, precision: int | None) -> None:
    record = problem(kind, "1", ("a", "b") if kind == "text" else (), precision)
    assert mathvista.MathVistaScorer().score(record, text).value in (0.0, 1.0)
    assert mathvista.MathVistaScorer().judged(record, "?", {"verdict": text}).value in (0.0, 1.0)
    mathvista.lenient(record, text)


def figures(
    scorer: JudgedScorer,
    answers: Sequence[tuple[Record, str | None]],
    verdicts: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Metric]:
    """Score and sum up, with verdicts where they are given."""

    def one(record: Record, text: str) -> Score:
        score: Score = (
            scorer.score(record, text) if verdicts is None else scorer.judged(record, text, verdicts.get(record.id, {}))
        )
        return score

    scored = [
        unanswered(record) if text is None else Scored(record=record, text=text, score=one(record, text))
        for record, text in answers
    ]
    return {f"{m.group}/{m.name}".removeprefix("/"): m for m in scorer.summarize(scored)}


def vet(name: str, *capabilities: str, answer: str | None = "yes") -> Record:
    return Record(
        id=name, image=None, fields={"question": "What?"}, target=answer, meta={"capability": list(capabilities)}
    )


def test_mmvet_averages_over_gradings() -> None:
    answers = [(vet("a", "ocr", "math"), "x"), (vet("b", "math", "ocr"), "y"), (vet("c", "ocr"), "z"), (vet("d"), "w")]
    verdicts = {
        "a": {"run1": "1.0", "run2": "0.5"},
        "b": {"run1": "0", "run2": "0.1"},
        "c": {"run1": "0.4", "run2": "0.4"},
    }
    metrics = figures(graded.GradedScorer(runs=2), answers, verdicts)
    assert metrics["total"].value == pytest.approx(40.0)
    assert metrics["total"].num == 3
    assert metrics["run/1/total"].value == pytest.approx(140 / 3)
    assert metrics["run/2/total"].value == pytest.approx(100 / 3)
    assert metrics["std"].value == pytest.approx(20 / 3)
    assert metrics["capability/ocr/score"].value == pytest.approx(40.0)
    assert metrics["integration/ocr_math/score"].num == 2
    assert metrics["unscored"].value == 1


def test_mmvet_asks_once_per_grading_and_not_without_a_reference() -> None:
    answers = [(vet("a"), "x"), (vet("b", answer=None), "y")]
    asked = list(graded.GradedScorer(runs=3).requests(answers))
    assert [(r.record, r.part) for r in asked] == [("a", "run1"), ("a", "run2"), ("a", "run3")]
    lacking = graded.GradedScorer().judged(vet("b", answer=None), "y", {})
    assert (lacking.value, lacking.explanation) == (None, "no reference answer")
    assert graded.GradedScorer(runs=2).judged(vet("a"), "x", {"run1": "1"}).explanation == "1 of 2 grades"


@pytest.mark.parametrize("grade", ["1.1", "-0.1", "nan", "good"])
def test_mmvet_rejects_recorded_grades_that_are_none(grade: str) -> None:
    with pytest.raises(DataError, match="record a: a grade is a number from 0 to 1"):
        graded.GradedScorer().judged(vet("a"), "x", {"run1": grade})
    with pytest.raises(DataError, match="runs must be at least 1"):
        graded.GradedScorer(runs=0)


@pytest.mark.parametrize(
    ("rule", "text", "value", "silent"),
    [
        ("qbench", "B", 1.0, False),
        ("qbench", "ABC", 1.0, False),
        ("qbench", "By no means", 1.0, False),
        ("qbench", "b", 0.0, True),
        ("qbench_first", " B.", 1.0, False),
        ("qbench_first", "(B)", 0.0, True),
        ("qbench_released", "B", 1.0, False),
        ("qbench_released", "BC", 1.0, True),
        ("qbench_released", "", 0.0, True),
        ("qbench_released", "what?", 1.0, True),
    ],
)
def test_qbench_rules(rule: Any, text: str, value: float, silent: bool) -> None:
    score = qbench.QBenchScorer(rule=rule).score(question("1"), text)
    assert (score.value, score.no_answer) == (value, silent)


@pytest.mark.parametrize("scorer", [choice.ChoiceScorer(rule="seed"), qbench.QBenchScorer()])
def test_a_judge_matches_what_the_rule_cannot_read(scorer: JudgedScorer) -> None:
    answers = [(question("1"), "B"), (question("2"), "it purrs"), (question("3"), ""), (question("4"), "who knows")]
    answers += [(question("5"), "unknown to the judge")]
    assert [r.record for r in scorer.requests(answers)] == ["2", "4", "5"]
    metrics = figures(scorer, answers, {"2": {"verdict": "B"}, "4": {"verdict": "Z"}})
    assert (metrics["accuracy"].value, metrics["accuracy"].num) == (0.5, 4)
    assert metrics["unscored"].value == 1


def test_a_question_that_a_judge_cannot_settle_is_left_out_of_circular_accuracy() -> None:
    passes = [(question("1", question=1, **{"pass": 0}), "B"), (question("1000001", question=1, **{"pass": 1}), "meow")]
    metrics = figures(circular.CircularScorer(), passes, {"1000001": {"verdict": "B"}})
    assert (metrics["circular_accuracy"].value, metrics["circular_accuracy"].num) == (1.0, 1)
    metrics = figures(circular.CircularScorer(), passes, {})
    assert (metrics["circular_accuracy"].value, metrics["circular_accuracy"].num) == (None, 0)
    assert [r.record for r in circular.CircularScorer().requests(passes)] == ["1000001"]


def figure(
    category: str, number: str, asked: str = "0", target: str = "yes", visual: str = "1", set_id: str = "0"
) -> Record:
    key = {"category": category, "subcategory": "ocr", "set_id": set_id, "figure_id": number, "question_id": asked}
    name = "_".join(key.values())
    return Record(
        id=name,
        image=None if visual == "0" else ImageFile(Path("nowhere.png"), f"{category}{set_id}_{number}"),
        fields={"question": "Is it?"},
        target=target,
        group=category,
        meta={**key, "visual_input": visual, "reference": "It is."},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes.", "yes"),
        ("yes,it is", "yes"),
        ("No, there is not.", "no"),
        ("Yes or no?", ""),
        ("yes/no", ""),
        ("eyes", ""),
        ("nothing", ""),
        ("是的", ""),
        ("", ""),
    ],
)
def test_hallusion_reads_words(text: str, said: str) -> None:
    assert hallusion.read_words(text) == said


def test_hallusion_released_reads_letters() -> None:
    assert [hallusion.read_released(text) for text in ("eyes", "Yes or no?", "", "no")] == ["yes", "yes", "no", "no"]


def test_not_knowing_is_right_where_there_is_nothing_to_know_it_from() -> None:
    options = hallusion.HallusionScorer()
    blind, seen = figure("VS", "0", visual="0"), figure("VS", "1")
    assert [options.score(r, "I do not know").value for r in (blind, seen)] == [1.0, 0.0]
    assert [options.judged(r, "?", {"correctness": "2"}).value for r in (blind, seen)] == [1.0, 0.0]


def test_hallusion_figures_by_hand() -> None:
    answers = [
        (figure("VD", "0", "0", "yes"), "Yes"),
        (figure("VD", "0", "1", "no"), "No"),
        (figure("VD", "1", "0", "no", visual="2"), "Yes"),
        (figure("VD", "1", "1", "yes", visual="2"), "Yes"),
        (figure("VS", "0", "0", "yes", visual="0"), "Maybe"),
    ]
    metrics = figures(hallusion.HallusionScorer(), answers)
    names = ("aAcc", "qAcc", "fAcc", "easy_aAcc", "hard_aAcc")
    assert [metrics[name].num for name in names] == [5, 3, 2, 3, 2]
    assert [metrics[name].value for name in names] == pytest.approx([0.8, 2 / 3, 0.5, 1.0, 0.5])
    assert metrics["fig_inconsistent"].value == 0.5
    assert metrics["fig_score"].value == 0.75
    assert metrics["VS/fAcc"].value is None  # its only figure is no figure
    assert metrics["VS/fp_ratio"].value is None  # the official script divides by zero: nothing is wrong
    assert "LH" not in metrics


def test_hallusion_keeps_the_two_categories_of_a_subcategory_apart() -> None:
    """A set number of ``ocr`` stands for one set in VD and for another in VS."""
    answers = [
        (figure("VD", "0", "0", "yes"), "Yes"),
        (figure("VD", "1", "0", "no", visual="2"), "No"),
        (figure("VS", "1", "0", "yes"), "No"),
        (figure("VS", "0", "0", "yes", visual="0"), "Yes"),  # without an image: not asked by VLMEvalKit
    ]
    metrics = figures(hallusion.HallusionScorer(rule="hallusion_vlmevalkit"), answers)
    assert [(metrics[name].value, metrics[name].num) for name in ("aAcc", "fAcc", "qAcc")] == [
        (pytest.approx(2 / 3), 3),
        (pytest.approx(2 / 3), 3),
        (0.5, 2),
    ]
    assert metrics["average"].value == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert [metrics[f"{group}/qAcc"].value for group in ("VD_ocr", "VS_ocr", "VD", "VS")] == [1.0, 0.0, 1.0, 0.0]
    assert "ocr/aAcc" not in metrics
    official = figures(hallusion.HallusionScorer(), answers)
    wanted = sum(official[name].value or 0.0 for name in ("aAcc", "fAcc", "qAcc")) / 3
    assert official["average"].value == pytest.approx(wanted)
    assert "average" not in figures(hallusion.HallusionScorer(rule="hallusion_released"), answers)


def test_hallusion_leaves_groups_with_an_unscored_answer_out() -> None:
    answers = [(figure("VD", "0", "0"), "x"), (figure("VD", "0", "1"), "x"), (figure("VD", "0", "0", set_id="1"), "x")]
    verdicts = {answers[0][0].id: {"correctness": "1"}, answers[2][0].id: {"correctness": "1"}}
    metrics = figures(hallusion.HallusionScorer(), answers, verdicts)
    assert (metrics["aAcc"].num, metrics["qAcc"].num, metrics["fAcc"].num) == (2, 2, 1)
    assert metrics["unscored"].value == 1


def test_hallusion_asks_about_agreement_only_when_told() -> None:
    answers = [(figure("VD", "0"), "Yes"), (figure("VD", "1", visual="2"), "No"), (figure("VD", "1", "7"), "No")]
    asked = list(hallusion.HallusionScorer().requests(answers))
    assert [r.part for r in asked] == ["correctness"] * 3
    more = list(hallusion.HallusionScorer(attribution=True).requests(answers))[3:]
    assert [(r.record, r.part) for r in more] == [(answers[1][0].id, "same")]  # question 7 has no figure 0
    assert "First answer: No\nSecond answer: Yes" in more[0].prompt
    assert not list(hallusion.HallusionScorer(rule="hallusion_released").requests(answers))


@pytest.mark.parametrize("verdicts", [{"correctness": "3"}, {"correctness": "1", "same": "yes"}])
def test_hallusion_rejects_odd_verdicts(verdicts: dict[str, str]) -> None:
    with pytest.raises(DataError, match="'correctness' is 0, 1 or 2, 'same' is 0 or 1"):
        hallusion.HallusionScorer().judged(figure("VD", "0"), "Yes", verdicts)


def test_a_judge_needs_a_question_to_be_told() -> None:
    bare = Record(id="7", image=None, fields={}, target="B", meta={"options": {"A": "a dog", "B": "cat"}})
    with pytest.raises(DataError, match="record 7 has no field 'question'"):
        list(choice.ChoiceScorer().requests([(bare, "it purrs")]))
