"""ChartQA's relaxed accuracy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.relaxed import RelaxedScorer, lenient_matches, matches
from datasets.types import DataError, Record, Scored

OPTIONS = RelaxedScorer()


def record(target: object, name: str = "1", group: str = "") -> Record:
    return Record(id=name, image=None, fields={"question": "?"}, target=target, group=group)


@pytest.mark.parametrize(
    ("text", "target", "value"),
    [
        ("10", "10.4", 1),
        ("9.49", "10", 0),
        ("10.5", "10", 1),
        (" 12. ", "12", 1),
        ("-105", "-100", 1),
        ("105", "-100", 0),
        ("23%", "0.23", 1),
        ("23", "23%", 0),
        ("0", "0", 1),
        ("0.0", "0", 0),
        ("1,000", "1000", 0),
        ("12 years", "12", 0),
        ("Yes", "yes", 1),
        ("Yes.", "yes", 0),
        ("", "0.1", 0),
        ("nan", "5", 0),
        ("inf", "5", 0),
        ("Infinity", "infinity", 1),
        ("NaN", "nan", 1),
        ("blue", ["red", "Blue"], 1),
    ],
)
def test_the_official_rule(text: str, target: object, value: float) -> None:
    assert OPTIONS.score(record(target), text).value == value


@given(st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3), st.floats(-0.2, 0.2))
def test_numbers_may_be_off_by_the_tolerance(target: float, off: float) -> None:
    if abs(abs(off) - 0.05) > 1e-6:
        said = OPTIONS.score(record(repr(target)), repr(target * (1 + off))).value
        assert said == float(abs(off) < 0.05)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_judged(text: str, target: str) -> None:
    assert OPTIONS.score(record(target), text).value in (0.0, 1.0)


def test_figures_by_split_their_mean_and_the_robust_reading() -> None:
    answers = [
        ("human", "5", "5"),
        ("human", "It is 1,010 dollars.", "1000"),
        ("augmented", "about 23%", "23%"),
        ("augmented", "12", "12"),
        ("augmented", "7", "12"),
    ]
    scored = []
    for number, (group, text, target) in enumerate(answers):
        item = record(target, str(number), group)
        scored.append(Scored(record=item, text=text, score=OPTIONS.score(item, text)))
    rows = {f"{m.group}/{m.name}".removeprefix("/"): m.value for m in OPTIONS.summarize(scored)}
    assert rows["human/accuracy"] == 1 / 2
    assert rows["augmented/accuracy"] == pytest.approx(1 / 3)
    assert rows["mean/accuracy"] == pytest.approx(5 / 12)
    assert rows["accuracy"] == pytest.approx(2 / 5)
    assert rows["lenient_accuracy"] == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("1,000", "1000", True),
        ("1000", "1,000", True),
        ("1 000", "1,000", True),
        ("2 %", "2", True),
        ("2", "2 %", True),
        ("0.02", "2%", True),
        ("2%", "200%", False),
        ("50 percent of them", "50%", True),
        ("$5", "5", True),
        ("5 dollars", "$5", True),
        ("$5", "€5", False),
        ("-$5", "−5", True),
        ("12", "12 years", True),
        ("2 months", "2 years", False),
        ("5,000,000", "5 million", True),
        ("5", "5 million", True),
        ("5 billion", "5 million", False),
        ("18", "18-29", False),
        ("18–29", "18-29", True),
        ("2019", "Q1 2019", False),
        ("0.0", "0", True),
        ("'Blue'.", "blue", True),
        ("", "0", False),
    ],
)
def test_the_robust_reading_takes_both_sides_for_quantities(text: str, target: str, right: bool) -> None:
    assert lenient_matches(text, target, OPTIONS.tolerance) == right
    item = record(target)
    rows = OPTIONS.summarize([Scored(record=item, text=text, score=OPTIONS.score(item, text))])
    assert {m.name: m.value for m in rows}["lenient_accuracy"] == float(right)


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_robust_reading_is_never_the_stricter_one(text: str, target: str) -> None:
    assert lenient_matches(text, target, OPTIONS.tolerance) >= matches(text, target, OPTIONS.tolerance)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["", "$", "€"]), st.sampled_from(["", "%", " percent", " years"]))
def test_thousands_separators_change_nothing(number: int, before: str, after: str) -> None:
    plain, grouped = f"{before}{number}{after}", f"{before}{number:,}{after}"
    assert lenient_matches(grouped, plain, 0.0)
    assert lenient_matches(plain, grouped, 0.0)
    assert lenient_matches(grouped, str(number), 0.0)


def test_tolerance_is_checked() -> None:
    with pytest.raises(DataError, match="tolerance must be"):
        RelaxedScorer(tolerance=2.0)


@pytest.mark.parametrize(("text", "target"), [("2", "two"), ("There are 2.", "Two"), ("two", "2"), ("2.0", "two")])
def test_number_words_on_either_side_are_numbers_to_a_reader(text: str, target: str) -> None:
    assert lenient_matches(text, target, 0.05)
    assert not lenient_matches("3", target, 0.05)
