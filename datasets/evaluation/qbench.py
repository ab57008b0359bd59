"""Q-Bench (LLVisionQA): does the text hold the letter of the right candidate?

Rules (``rule`` in the declaration):

- ``qbench``: what the benchmark's team scores its own models with (Q-Instruct): right if the letter of the right
  candidate stands anywhere in the stripped text, capital; "ABC" is right whatever is right, and so is any answer that
  begins "Answer" where A is.
- ``qbench_first``: a sibling script of theirs: the first character of the text.
- ``qbench_released``: the first CoLLaVO release: the place of the text in "ABCD", and the last candidate if it is not
  there.

The robust reading of `letters.lenient` is reported next to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..types import Metric, Record, Score, Scored
from . import choice
from .judges.base import Request
from .parsing import targets
from .statistics import rates

OFFLINE = "letters by the rule of the declaration"
"""What decides without a judge."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to read and report.

    Attributes:
        rule: see the top of the file.
        by: names in a record's ``meta`` to report separately by.
    """

    rule: Literal["qbench", "qbench_first", "qbench_released"] = "qbench"
    by: tuple[str, ...] = ("type", "concern")


def prepare(record: Record, options: Options) -> Record:
    """The record with the letter of the right candidate as its target; see `targets.letter`."""
    return targets.letter(record)


def own_reply(record: Record, options: Options) -> str:
    """The letter of the right candidate."""
    return str(record.target)


def credits_empty(record: Record, options: Options) -> bool:
    """Whether the rule takes an empty reply for a candidate, as the release did."""
    return options.rule == "qbench_released"


def own_verdict(record: Record, part: str, options: Options) -> str:
    """What a judge says of a reply that means the right candidate."""
    return str(record.target)


def score(record: Record, text: str, options: Options) -> Score:
    """Read the text by the rule and compare it with the right letter."""
    choices = choice.options_of(record)
    said = _letters(text, list(choices), options.rule)
    value = None if record.target is None else float(_right(said, choices, record.target, options.rule))
    silent = not said or (options.rule == "qbench_released" and text.strip() not in choices)
    note = f"rule '{options.rule}' finds no letter" if silent and text.strip() else ""
    return Score(value=value, extracted=said, no_answer=silent, explanation=note)


def _letters(text: str, known: Sequence[str], rule: str) -> str:
    """All letters of candidates that the rule sees in a text, in their order; "" for none."""
    text = text.strip()
    if rule == "qbench":
        return "".join(letter for letter in known if letter in text)
    if rule == "qbench_first":
        return text[:1] if text[:1] in known else ""
    place = "ABCD".find(text)
    return "ABCD"[place] if place >= 0 else known[-1]


def _right(said: str, choices: Mapping[str, str], target: str, rule: str) -> bool:
    """Whether the right letter was said; the release compared the candidates' texts."""
    return choices.get(said) == choices[target] if rule == "qbench_released" else target in said


def judged(record: Record, text: str, verdicts: Mapping[str, str], options: Options) -> Score:
    """Take the letter that a judge understood where the rule sees none."""
    return choice.score_matched(record, text, verdicts, score(record, text, options))


def requests(answers: Iterable[tuple[Record, str]], options: Options) -> Iterator[Request]:
    """Every text in which the rule sees no letter."""
    return choice.match_requests(answers, lambda record, text: score(record, text, options))


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Accuracy over all, by kind of question, and under the robust reading."""
    return [
        rates.accuracy(scored),
        *rates.table(scored, options.by),
        choice.lenient_accuracy(scored, missing=None),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]
