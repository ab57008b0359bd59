"""ChartQA's relaxed accuracy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.relaxed import Options, score, summarize
from datasets.types import DataError, Record, Scored

OPTIONS = Options()


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
        ("blue", ["red", "Blue"], 1),
    ],
)
def test_the_official_rule(text: str, target: object, value: float) -> None:
    assert score(record(target), text, OPTIONS).value == value


@given(st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3), st.floats(-0.2, 0.2))
def test_numbers_may_be_off_by_the_tolerance(target: float, off: float) -> None:
    if abs(abs(off) - 0.05) > 1e-6:
        said = score(record(repr(target)), repr(target * (1 + off)), OPTIONS).value
        assert said == float(abs(off) < 0.05)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_judged(text: str, target: str) -> None:
    assert score(record(target), text, OPTIONS).value in (0.0, 1.0)


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
        scored.append(Scored(record=item, text=text, score=score(item, text, OPTIONS)))
    rows = {f"{m.group}/{m.name}".removeprefix("/"): m.value for m in summarize(scored, OPTIONS)}
    assert rows["human/accuracy"] == 1 / 2
    assert rows["augmented/accuracy"] == pytest.approx(1 / 3)
    assert rows["mean/accuracy"] == pytest.approx(5 / 12)
    assert rows["accuracy"] == pytest.approx(2 / 5)
    assert rows["lenient_accuracy"] == pytest.approx(4 / 5)


def test_tolerance_is_checked() -> None:
    with pytest.raises(DataError, match="tolerance must be"):
        Options(tolerance=2.0)
