"""Numbers out of what models say, and edit distances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.parsing.levenshtein import distance, nearest
from datasets.evaluation.parsing.numbers import lenient


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("7.", 7),
        ("-2", -2),
        ("−2", -2),
        ("１２", 12),
        ("1,000", 1000),
        ("1,000,000.5 m", 1000000.5),
        ("3.5 cm", 3.5),
        (".5", 0.5),
        ("$1.50", 1.5),
        ("5°", 5),
        ("1e3", 1000),
        ("3/4", 0.75),
        ("½", 0.5),
        ("12/0", 0),
        ("ten", 10),
        ("There are three bars with values smaller than 6.", 3),
        ("The limit as x approaches -1 is 2.", 2),
        ("x = 4, so the answer is 5.", 5),
        ("The answer is **12** because 3 and 4 make 12 or 7", 12),
        ("I count 3 of 4. Answer: 7", 7),
        ("答案是 8", 8),
        ("答案：9个", 9),
        ("The age gap between the two people is 20 years.", 20),
        ("", None),
        ("someone", None),
        ("v2", None),
        ("I cannot tell.", None),
    ],
)
def test_the_number_a_reader_would_take(text: str, number: float | None) -> None:
    assert lenient(text) == number


@given(st.integers(min_value=-(10**14), max_value=10**14))
def test_whole_numbers_come_back(number: int) -> None:
    assert lenient(f"{number}") == number
    assert lenient(f"Of 3 or 5, the answer is {number:,}.") == number


@given(st.text())
def test_any_text_gives_a_number_or_nothing(text: str) -> None:
    assert lenient(text) is None or isinstance(lenient(text), float)


@pytest.mark.parametrize(
    ("left", "right", "steps"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_distance(left: str, right: str, steps: int) -> None:
    assert distance(left, right) == distance(right, left) == steps


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_distance_is_a_metric(one: str, two: str, three: str) -> None:
    assert (distance(one, two) == 0) == (one == two)
    assert abs(len(one) - len(two)) <= distance(one, two) <= max(len(one), len(two))
    assert distance(one, three) <= distance(one, two) + distance(two, three)


def test_the_first_of_equally_near_choices() -> None:
    assert nearest("", ["bb", "a", "c"]) == "a"
    assert nearest("decreases", ["increase", "decrease"]) == "decrease"
