"""TextVQA's normalisation and agreement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.vqa_accuracy import (
    VqaAccuracyScorer,
    agreement,
    normalise,
    without_punctuation,
)
from datasets.types import DataError, Record, Scored


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The Two", "2"),
        ("none", "0"),
        ("dont walk", "don't walk"),
        ("Hershey's", "hershey 's"),
        ("1,000", "1000"),
        ("12:15", "12:15"),
        ("$1.99", "$1.99"),
        ("3. ", "3"),
        ("U.S.A.", "usa"),
        ("7-up", "7 up"),
        ("7 - up", "7 up"),
        ("well-known -", "wellknown"),  # one loose dash and all dashes go
        ("a\nb\tc", "b c"),
        ("youd've", "you'd've"),
        ("somebody'd", "somebodyd"),
        ("x" + "." * 40, "x" + "." * 8),
        ("", ""),
    ],
)
def test_normalised_form(text: str, form: str) -> None:
    assert normalise(text) == form


@pytest.mark.parametrize(("matches", "credit"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_credit_by_number_of_matching_humans(matches: int, credit: float) -> None:
    humans = ["yes"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert agreement("yes", humans) == pytest.approx(credit)


@given(st.text())
def test_normalise_never_fails_and_leaves_no_outer_space(text: str) -> None:
    assert normalise(text) == " ".join(normalise(text).split())


def test_withheld_answers_have_no_score_and_a_bad_target_is_named() -> None:
    record = Record(id="7", image=None, fields={}, target=None)
    assert VqaAccuracyScorer().score(record, "A Two").value is None
    assert VqaAccuracyScorer().score(record, "A Two").extracted == "2"
    with pytest.raises(DataError, match="record 7.*list of human answers"):
        VqaAccuracyScorer().score(Record(id="7", image=None, fields={}, target="two"), "two")


def test_summary_counts_empty_texts_apart() -> None:
    records = [Record(id=str(n), image=None, fields={}, target=["a b"] * 10) for n in range(2)]
    scored = [
        Scored(record=r, text=t, score=VqaAccuracyScorer().score(r, t))
        for r, t in zip(records, ("b", "the"), strict=True)
    ]
    metrics = {m.name: m for m in VqaAccuracyScorer().summarize(scored)}
    assert (metrics["accuracy"].value, metrics["no_answer"].value) == (0.5, 1)


def test_a_thousands_comma_makes_every_mark_vanish() -> None:
    """The official script's quirk; the comma itself is gone before where answers are compared."""
    assert without_punctuation("12-mile") == "12 mile"
    assert without_punctuation("1,000-mile") == "1000mile"
