"""Choice letters: what models really say, rule by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation.parsing.letters import (
    RULES,
    first_letter,
    lenient,
    mmbench,
    mmstar,
    scienceqa,
    scienceqa_released,
    seed,
)

PETS = {"A": "a dog", "B": "cat", "C": "two black cats", "D": "None"}
CHINESE = {"A": "一只狗", "B": "两只黑猫", "C": "猫"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b \n", "B"),
        ("(B)", "B"),
        ("[b]", "B"),
        ("B.", "B"),
        ("B. cat", "B"),
        ("B) cat", "B"),
        ("B: cat", "B"),
        ("B - cat", "B"),
        ("B\ncat", "B"),
        ("**B**", "B"),
        ("$\\boxed{D}$", "D"),
        ("The answer is **C**.", "C"),
        ("The answer is C", "C"),
        ("Answer: (c)", "C"),
        ("The correct option is B because of the whiskers.", "B"),
        ("I would choose C, given the two animals.", "C"),
        ("Option A is correct", "A"),
        ("The answer is A because it barks", "A"),
        ("First I thought the answer is A. On reflection the answer is B.", "B"),
        ("cat", "B"),
        ("A dog.", "A"),
        ("A cat", "B"),
        ("The image shows two black cats", "C"),
        ("none.", "D"),
        ("Ｂ", "B"),
        ("（B）", "B"),
        ("B。", "B"),
        ("B、两只", "B"),
        ("答案是B", "B"),
        ("正确答案：C。", "C"),
        ("选项A", "A"),
        ("选 D", "D"),
        ("It is not A, it is B", "B"),
        ("neither A nor B but C", "C"),
    ],
)
def test_lenient_understands(text: str, letter: str) -> None:
    assert lenient(text, PETS) == letter


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "A or B",
        "Both are fine",
        "not B",
        "E",
        "I cannot tell.",
        "A. a dog B. cat C. two black cats D. None",
        "D.C. is the capital",
        "e.g. this one",
        "ABC",
        "🤷",
    ],
)
def test_lenient_does_not_guess(text: str) -> None:
    assert lenient(text, PETS) == ""


@pytest.mark.parametrize(("text", "letter"), [("我认为是两只黑猫。", "B"), ("一只狗", "A"), ("图中有狗", "")])
def test_lenient_reads_chinese_options(text: str, letter: str) -> None:
    assert lenient(text, CHINESE) == letter


@given(st.text(), st.sampled_from(sorted(RULES)))
def test_rules_return_a_letter_or_nothing(text: str, rule: str) -> None:
    """Any text at all: no exception, and only scienceqa may name a letter beyond the options, which is then wrong."""
    letter = RULES[rule](text, PETS)
    assert letter == "" or (len(letter) == 1 and letter.isascii() and letter.isupper())
    assert letter in {"", "Z", *PETS} or rule.startswith("scienceqa")


@given(
    st.sampled_from(sorted(PETS)),
    st.sampled_from(
        ["{}", "({})", "{}.", "{}. because", "The answer is {}.", "**{}**", "答案是{}", "Answer: {}", "option {}"]
    ),
)
def test_lenient_finds_a_plain_letter_in_any_frame(letter: str, frame: str) -> None:
    assert lenient(frame.format(letter), PETS) == letter
    assert lenient(f"  {frame.format(letter)}\n", PETS) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("E", "E"),
        ("B. cat", "B"),
        ("Since it purrs. The answer is B.", "B"),
        ("The answer is Z.", "Z"),
        ("The answer is B", ""),
        ("The answer is B. The answer is B.", ""),
        ("B.", ""),
        ("(B)", ""),
        ("b", ""),
        (" B", ""),
        ("F. x", ""),
        ("", ""),
    ],
)
def test_scienceqa_keeps_the_flaws_of_the_script(text: str, letter: str) -> None:
    assert scienceqa(text, PETS) == letter


def test_released_scienceqa_strips_first() -> None:
    assert scienceqa_released(" B\n", PETS) == "B"
    assert scienceqa_released("B.", PETS) == ""


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"),
        ("B or B", "B"),
        ("A or B", ""),
        ("b", ""),
        ("B comes first, and four more words follow", ""),
        ("The Answer is **b** because of all that can be seen in it", "B"),
        ("I'm sorry, but without the image provided I cannot say", "Z"),
        ("Z", "Z"),
        ("E", ""),
        ("It is a CAT, I think", "B"),
        ("It is a cat, I think, though this sentence runs on for rather longer than the options do", ""),
        ("An image of two black cats", ""),  # "cat" stands in "two black cats": two options match
    ],
)
def test_mmbench_equals_exact_matching(text: str, letter: str) -> None:
    assert mmbench(text, PETS) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" b\n", "B"),
        ("Because it is so", "B"),  # the first character counts, whatever it begins
        ("(C) a dog", "C"),
        ("Option d.", "D"),
        ("The answer\nis a", "A"),
        ("It is B", ""),
        ("(", ""),
        ("option  B", ""),
        ("", ""),
    ],
)
def test_mmstar_looks_at_the_opening_only(text: str, letter: str) -> None:
    assert mmstar(text, PETS) == letter


def test_seed_wants_the_letter_alone() -> None:
    assert [seed(text, PETS) for text in ("B", " B", "B.", "b", "E", "")] == ["B", "", "", "", "", ""]
    assert [first_letter(text, PETS) for text in (" b.", "Dog", "", "E")] == ["B", "D", "", ""]


@pytest.mark.parametrize("spaces", ["", " ", "\n\n"])
def test_mmbench_counts_spaces_at_the_ends_into_the_length(spaces: str) -> None:
    """The official script reads an option's text only in an answer of at most twice the length of all options."""
    limit = 2 * sum(map(len, PETS.values()))
    longest = PETS["A"].ljust(limit - 1, "x") + "x"
    assert mmbench(longest + spaces, PETS) == ("A" if not spaces else "")
