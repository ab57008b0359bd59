"""Is an answer right, wrong or undecided, and do two answers agree: the two judges of HallusionBench, in our words.

The official parser takes everything that holds neither "correct" nor "incorrect" for undecided; here such a reply is no
verdict, is asked again, and in the end leaves the question unscored.
"""

from __future__ import annotations

import re

from .base import Request

INCORRECT, CORRECT, UNCLEAR = "0", "1", "2"
"""Verdicts on an answer, as the official result files write them."""
DIFFERENT, SAME = "0", "1"
"""Verdicts on two answers, likewise."""

_WORD = re.compile(r"[a-z]+")
_DENIED = re.compile(r"\bnot\s+(?:\w+\s+)?correct\b")
_CORRECTNESS = """\
You are a teacher who checks a student's answer against the solution. Read the question, the solution and the answer \
with care. Reply "correct" if the answer agrees with the solution, "incorrect" if it contradicts it, and "unclear" if \
it leaves open what it means or says that it does not know. Reply with that one word.

Question: {question}
Solution: {reference}
Answer: {answer}
Verdict:"""
_AGREEMENT = """\
Two students each answered a question that you do not know; the two questions are about the same subject. Could both \
answers be true together? Reply "same" if nothing in one contradicts the other, otherwise "different". Reply with that \
one word.

First answer: {first}
Second answer: {second}
Verdict:"""


def correctness(record: str, question: str, reference: str, answer: str) -> Request:
    """Ask whether an answer is right; the verdict is `CORRECT`, `INCORRECT` or `UNCLEAR`."""
    return Request(
        record=record,
        part="correctness",
        prompt=_CORRECTNESS.format(question=question.strip(), reference=reference.strip(), answer=answer.strip()),
        parse=parse_correctness,
        reminder="Reply with one word: correct, incorrect or unclear.",
        max_tokens=16,
    )


def agreement(record: str, answer: str, original: str) -> Request:
    """Ask whether an answer agrees with the one about the original figure; `SAME` or `DIFFERENT`."""
    return Request(
        record=record,
        part="same",
        prompt=_AGREEMENT.format(first=answer.strip(), second=original.strip()),
        parse=parse_agreement,
        reminder="Reply with one word: same or different.",
        max_tokens=16,
    )


def parse_correctness(reply: str) -> str | None:
    """The verdict in a reply: the official precedence of "incorrect" over "correct", then "unclear"."""
    words = set(_WORD.findall(reply.lower()))
    for word, verdict in (("incorrect", INCORRECT), ("correct", CORRECT), ("unclear", UNCLEAR)):
        if word in words:
            return INCORRECT if _DENIED.search(reply.lower()) else verdict
    return None


def parse_agreement(reply: str) -> str | None:
    """The verdict in a reply that says one of the two words and not the other."""
    words = set(_WORD.findall(reply.lower()))
    said = [verdict for word, verdict in (("same", SAME), ("different", DIFFERENT)) if word in words]
    return said[0] if len(said) == 1 else None
