"""Multiple choice: the letter a rule finds in the text equals the letter of the right option.

Serves SEED-Bench and every set of its kind. A record's target is the letter (None where it is withheld) and
``meta["options"]`` maps letters to option texts in order. What a robust reader would have understood is scored next to
the rule of the declaration as ``lenient_accuracy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from configs.common.words import did_you_mean, shown

from ..types import DataError, Metric, Record, Score, Scored
from .base import JudgedScorer
from .judges import matching
from .judges.base import Request, UnjudgedScore, question_of
from .parsing import letters, targets
from .statistics import rates


class LetterScorer(JudgedScorer):
    """What rules have in common that look for the letter of an option, and where a judge names it if they find none."""

    offline: ClassVar[str] = "letters by the rule of the declaration"

    def prepare(self, record: Record) -> Record:
        """The record with the letter of the right option as its target; see `targets.letter`."""
        return targets.letter(record)

    def own_reply(self, record: Record) -> str:
        """The letter of the right option."""
        return str(record.target)

    def own_verdict(self, record: Record, part: str) -> str:
        """What a judge says of a reply that means the right option."""
        return str(record.target)

    def judged(self, record: Record, text: str, verdicts: Mapping[str, str]) -> Score:
        """A judge's letter, where it gave one; else what the rule gave, unless the judge was asked in vain."""
        ruled = self.score(record, text)
        said = verdicts.get("verdict")
        if said is not None:
            value = None if record.target is None else float(said == record.target)
            return Score(
                value=value, extracted=said, no_answer=said == letters.UNSURE, explanation="matched by the judge"
            )
        if ruled.extracted or not text.strip():
            return ruled
        return UnjudgedScore(no_answer=True)

    def requests(self, answers: Iterable[tuple[Record, str]]) -> Iterator[Request]:
        """Which option is meant, for every text that says something and in which the rule finds no letter."""
        for record, text in answers:
            if text.strip() and not self.score(record, text).extracted:
                yield matching.request(record.id, question_of(record), options_of(record), text)


@dataclass(frozen=True, kw_only=True)
class ChoiceScorer(LetterScorer):
    """Multiple choice by the letter of an option.

    Attributes:
        rule: a rule of `letters.RULES`.
        by: names in a record's ``meta`` to report separately by, e.g. ``dimension``.
        missing: an unanswered question counts as wrong, or is left out.
    """

    rule: str = "lenient"
    by: tuple[str, ...] = ()
    missing: str = "wrong"

    def __post_init__(self) -> None:
        """Check the names."""
        check_rule(self.rule)
        if self.missing not in ("wrong", "skip"):
            raise DataError(f"choice: missing must be 'wrong' or 'skip', not {self.missing!r}")

    def grouped_by(self) -> tuple[str, ...]:
        """What ``by`` names."""
        return self.by

    def credits_empty(self, record: Record) -> bool:
        """Whether the rule finds a letter in an empty reply."""
        return bool(letters.RULES[self.rule]("", options_of(record)))

    def score(self, record: Record, text: str) -> Score:
        """Read the letter with the declared rule and compare it."""
        return score_with(self.rule, record, text)

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy over all, by each declared key, and under the robust reading."""
        missing = 0.0 if self.missing == "wrong" else None
        counted = [s for s in scored if not isinstance(s.score, UnjudgedScore)]
        return [
            rates.accuracy(counted, missing=missing),
            *rates.table(counted, self.by, missing=missing),
            lenient_accuracy(counted, missing=missing),
            rates.no_answer(scored),
            *rates.unscored(scored),
        ]


def check_rule(rule: str) -> None:
    """Raise DataError, with the nearest names, for a rule that does not exist."""
    if rule not in letters.RULES:
        hint = did_you_mean(rule, letters.RULES)
        raise DataError(f"unknown choice rule '{rule}'{hint} Known rules: {', '.join(letters.RULES)}")


def score_with(rule: str, record: Record, text: str) -> Score:
    """Read the letter with a rule and compare it with the target; no value where the target is withheld."""
    choices = options_of(record)
    letter = letters.RULES[rule](text, choices)
    return Score(
        value=None if record.target is None else float(letter == record.target),
        extracted=letter,
        no_answer=letter in ("", letters.UNSURE),
        explanation="" if letter or not text.strip() else f"rule '{rule}' finds no letter",
    )


def options_of(record: Record) -> Mapping[str, str]:
    """The record's options, letter -> text.

    Raises:
        DataError: the reader gave none.
    """
    choices = record.meta.get("options")
    if not isinstance(choices, Mapping) or not choices:
        raise DataError(
            f"record {shown(record.id)} has no options: a choice scorer needs a reader that gives meta['options']"
        )
    return choices


def lenient_accuracy(scored: Sequence[Scored], *, missing: float | None) -> Metric:
    """Accuracy had every text been read by `letters.lenient`."""
    known = [s for s in scored if s.record.target is not None]
    counted = [s for s in known if s.score.value is not None or missing is not None]
    values = [
        float(letters.lenient(s.text, options_of(s.record)) == s.record.target) if s.score.value is not None else 0.0
        for s in counted
    ]
    return rates.mean("lenient_accuracy", values, clusters=[rates.image(s) for s in counted])
