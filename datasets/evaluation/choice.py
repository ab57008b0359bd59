"""Multiple choice: the letter a rule finds in the text equals the letter of the right option.

Serves SEED-Bench and every set of its kind. A record's target is the letter (None where it is withheld) and
``meta["options"]`` maps letters to option texts in order. What a robust reader would have understood is scored next to
the rule of the declaration as ``lenient_accuracy``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from configs.common.words import did_you_mean, shown

from ..types import DataError, Metric, Record, Score, Scored
from .judges import matching
from .judges.base import Request, Unjudged, question_of
from .parsing import letters, targets
from .statistics import rates

OFFLINE = "letters by the rule of the declaration"
"""What decides without a judge."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a choice is read and reported.

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


def check_rule(rule: str) -> None:
    """Raise DataError, with the nearest names, for a rule that does not exist."""
    if rule not in letters.RULES:
        hint = did_you_mean(rule, letters.RULES)
        raise DataError(f"unknown choice rule '{rule}'{hint} Known rules: {', '.join(letters.RULES)}")


def prepare(record: Record, options: Options) -> Record:
    """The record with the letter of the right option as its target; see `targets.letter`."""
    return targets.letter(record)


def own_reply(record: Record, options: Options) -> str:
    """The letter of the right option."""
    return str(record.target)


def credits_empty(record: Record, options: Options) -> bool:
    """Whether the rule finds a letter in an empty reply."""
    return bool(letters.RULES[options.rule]("", options_of(record)))


def own_verdict(record: Record, part: str, options: Options) -> str:
    """What a judge says of a reply that means the right option."""
    return str(record.target)


def score(record: Record, text: str, options: Options) -> Score:
    """Read the letter with the declared rule and compare it."""
    return score_with(options.rule, record, text)


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


def judged(record: Record, text: str, verdicts: Mapping[str, str], options: Options) -> Score:
    """Take the letter that a judge understood where the rule finds none."""
    return score_matched(record, text, verdicts, score(record, text, options))


def requests(answers: Iterable[tuple[Record, str]], options: Options) -> Iterator[Request]:
    """Every text in which the rule finds no letter."""
    return match_requests(answers, lambda record, text: score(record, text, options))


def score_matched(record: Record, text: str, verdicts: Mapping[str, str], ruled: Score) -> Score:
    """A judge's letter, where it gave one; else what the rule gave, unless the judge was asked in vain.

    Args:
        record: the question.
        text: the model's text.
        verdicts: see `judges.base.Verdicts`, of this record.
        ruled: the score by the rule.
    """
    said = verdicts.get("verdict")
    if said is not None:
        value = None if record.target is None else float(said == record.target)
        return Score(value=value, extracted=said, no_answer=said == letters.UNSURE, explanation="matched by the judge")
    if ruled.extracted or not text.strip():
        return ruled
    return Unjudged(no_answer=True)


def match_requests(answers: Iterable[tuple[Record, str]], rule: Callable[[Record, str], Score]) -> Iterator[Request]:
    """Ask which option is meant, for every text that says something and in which a rule finds no letter."""
    for record, text in answers:
        if text.strip() and not rule(record, text).extracted:
            yield matching.request(record.id, question_of(record), options_of(record), text)


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


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Accuracy over all, by each declared key, and under the robust reading."""
    missing = 0.0 if options.missing == "wrong" else None
    counted = [s for s in scored if not isinstance(s.score, Unjudged)]
    return [
        rates.accuracy(counted, missing=missing),
        *rates.table(counted, options.by, missing=missing),
        lenient_accuracy(counted, missing=missing),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]


def lenient_accuracy(scored: Sequence[Scored], *, missing: float | None) -> Metric:
    """Accuracy had every text been read by `letters.lenient`."""
    known = [s for s in scored if s.record.target is not None]
    counted = [s for s in known if s.score.value is not None or missing is not None]
    values = [
        float(letters.lenient(s.text, options_of(s.record)) == s.record.target) if s.score.value is not None else 0.0
        for s in counted
    ]
    return rates.mean("lenient_accuracy", values, clusters=[rates.image(s) for s in counted])
