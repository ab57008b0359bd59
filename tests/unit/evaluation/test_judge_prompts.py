"""What judges are asked, and what is understood of their replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.judges import correctness, extraction, grading, matching
from datasets.evaluation.judges.base import Request

PETS = {"A": "dog", "B": "cat", "C": "no animal"}


def requests() -> list[Request]:
    """One of each kind, on texts that would break a careless template."""
    odd = "Is {this} 50% \\ of <it>?"
    return [
        grading.request("q", 2, odd, "one<AND>two", "three {four}"),
        extraction.request("q", odd, ["one", "two"], "text", "three {four}"),
        correctness.correctness("q", odd, "reference", "three {four}"),
        correctness.agreement("q", "three {four}", "five"),
        matching.request("q", odd, PETS, "three {four}"),
    ]


@pytest.mark.parametrize("request_", requests(), ids=lambda r: r.parse.__qualname__)
def test_prompts_hold_the_texts_as_they_are(request_: Request) -> None:
    assert "three {four}" in request_.prompt
    assert ("Is {this} 50% \\ of <it>?" in request_.prompt) != (request_.part == "same")
    assert request_.record == "q"
    assert request_.reminder


def test_parts_and_details() -> None:
    graded, extracted, _, _, matched = requests()
    assert [r.part for r in requests()] == ["run2", "verdict", "correctness", "same", "verdict"]
    assert "Reference: one <AND> two\n" in graded.prompt
    assert "(A) one\n(B) two\nForm: the option" in extracted.prompt
    assert "A. dog\nB. cat\nC. no animal\nAnswer: three" in matched.prompt


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.5", "0.5"),
        (" 1.0\n", "1.0"),
        ("1", "1.0"),
        ("0", "0.0"),
        (".3", "0.3"),
        ("Grade: 0.7", "0.7"),
        ("0.4 because half of it is there", "0.4"),
        ("The grade is 0.4.", "0.4"),
        ("0.5 or 0.6", "0.5"),
        ("Grade: 0.5 or 0.6", None),
        ("", None),
        ("good", None),
        ("7", None),
        ("1.5", None),
        ("-0.5", None),
        ("nan", None),
        ("10", None),
        ("50%", None),
    ],
)
def test_grades(reply: str, grade: str | None) -> None:
    assert grading.parse(reply) == grade


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("correct", correctness.CORRECT),
        ("Correct.", correctness.CORRECT),
        ('"incorrect"', correctness.INCORRECT),
        ("The answer is incorrect, the solution is correct.", correctness.INCORRECT),
        ("not correct", correctness.INCORRECT),
        ("UNCLEAR", correctness.UNCLEAR),
        ("Correctness: unclear", correctness.UNCLEAR),
        ("", None),
        ("yes", None),
    ],
)
def test_correctness(reply: str, verdict: str | None) -> None:
    assert correctness.parse_correctness(reply) == verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("same", correctness.SAME), ("Different.", correctness.DIFFERENT), ("same or different", None), ("", None)],
)
def test_agreement(reply: str, verdict: str | None) -> None:
    assert correctness.parse_agreement(reply) == verdict


@pytest.mark.parametrize(
    ("reply", "extracted"),
    [
        ("12", "12"),
        ("Extracted: 12\n", "12"),
        ('"B"', "B"),
        ("(B) two", "(B) two"),
        ("none", ""),
        ("None.", ""),
        ("[1, 2]", "[1, 2]"),
        ("", None),
        ("first\nsecond", None),
    ],
)
def test_extraction(reply: str, extracted: str | None) -> None:
    assert extraction.parse(reply) == extracted


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B. cat", "B"),
        ("Letter: B", "B"),
        ("Z", "Z"),
        ("A or B", None),
        ("D", None),
        ("", None),
    ],
)
def test_matching(reply: str, letter: str | None) -> None:
    assert matching.parse(reply, PETS) == letter


@given(st.text())
def test_any_reply_can_be_parsed(reply: str) -> None:
    for request in requests():
        verdict = request.parse(reply)
        assert verdict is None or isinstance(verdict, str)
    grade = grading.parse(reply)
    assert grade is None or 0.0 <= float(grade) <= 1.0
