"""Which option an answer means, where no rule finds its letter: SEED-Bench, AI2D, Q-Bench, MMBench; in our words."""

from __future__ import annotations

from collections.abc import Mapping

from ..parsing import letters
from .base import Request

NEITHER = "Z"
"""Verdict on an answer that means none of the options."""

_EXAMPLES = (
    ("What is the main object?", {"A": "teddy bear", "B": "rabbit"}, "a cute stuffed bear", "A"),
    ("What is the main object?", {"A": "teddy bear", "B": "rabbit"}, "a spider", NEITHER),
    ("How many wheels are there?", {"A": "two", "B": "three", "C": "four"}, "I count 3 of them", "B"),
)
_PROMPT = """\
A model answered a multiple-choice question in its own words. Say which option its answer means; whether that option \
is right does not matter. Reply with the option's letter alone. Reply {neither} if the answer means none of them, more \
than one, or nothing at all.

{examples}
{task}
Letter:"""


def request(record: str, question: str, options: Mapping[str, str], answer: str) -> Request:
    """Ask which option an answer means.

    Args:
        record: id of the record.
        question: as the model was asked, without the options.
        options: letter -> text.
        answer: the model's text.
    """
    examples = "\n".join(f"{_task(q, o, a)}\nLetter: {letter}\n" for q, o, a, letter in _EXAMPLES)
    return Request(
        record=record,
        part="verdict",
        prompt=_PROMPT.format(
            neither=NEITHER, examples=examples, task=_task(question.strip(), options, answer.strip())
        ),
        parse=lambda reply: parse(reply, options),
        reminder=f"Reply with one letter: {', '.join(options)} or {NEITHER}.",
        max_tokens=16,
    )


def parse(reply: str, options: Mapping[str, str]) -> str | None:
    """The letter of an option (or `NEITHER`) that a reply names; None if it names none or several."""
    return letters.lenient(reply, {**options, NEITHER: "none of them"}) or None


def _task(question: str, options: Mapping[str, str], answer: str) -> str:
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return f"Question: {question}\n{listed}\nAnswer: {answer}"
