"""ChartQA: a number may be off by five percent, any other answer must be the same text.

Source: ChartQA (arXiv 2203.10244, section 5.1) as Pix2Struct's public metric reads it: both texts are numbers (a
percent sign at the end divides by 100) and the right one is not 0, else the texts are compared without regard to case.
"12." is the number 12; "12 years", "1,000" and "$5" are texts. What a robust reader would have understood is reported
next to it as ``lenient_accuracy``: there both texts are read as quantities, so that 1,000 is 1000, and 2 % is 2 % or 2.
The paper's figure is the mean over the human and the augmented questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..types import DataError, Metric, Record, Score, Scored
from . import exact_match
from .parsing import numbers, targets
from .statistics import rates


@dataclass(frozen=True, kw_only=True)
class Options:
    """How far a number may be off.

    Attributes:
        tolerance: share of the right number, both ways.
    """

    tolerance: float = 0.05

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.tolerance < 1:
            raise DataError(f"relaxed: tolerance must be from 0 to below 1, not {self.tolerance}")


def as_number(text: str) -> float | None:
    """A text that is nothing but a number; None for any other."""
    percent = text.endswith("%")
    try:
        number = float(text.rstrip("%")) / 100 if percent else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None  # "nan" and "infinity" are words


def matches(text: str, target: str, tolerance: float) -> bool:
    """Whether an answer is right.

    Args:
        text: what was said.
        target: what is right.
        tolerance: see `Options`.
    """
    right, said = as_number(target), as_number(text)
    if right and said is not None:
        return _near(said, right, tolerance)
    return text.lower() == target.lower()


def prepare(record: Record, options: Options) -> Record:
    """The record with one accepted answer, or a list of several, as its target.

    Raises:
        MalformedError: an answer is neither a text nor a number.
    """
    return targets.with_target(record, lambda value: exact_match.one_or_several(value, str.strip))


def own_reply(record: Record, options: Options) -> str:
    """The first accepted answer."""
    return _targets(record)[0]


def _near(said: float, right: float, tolerance: float) -> bool:
    return said == right if right == 0 else abs(said - right) / abs(right) <= tolerance


def lenient_matches(text: str, target: str, tolerance: float) -> bool:
    """Whether a reader would have taken an answer for right: both sides are read as quantities, or as plain words.

    Args:
        text: what was said.
        target: what is right.
        tolerance: see `Options`.
    """
    if matches(text, target, tolerance) or _words(text) == _words(target):
        return True
    right = numbers.quantity(target)
    said = None if right is None else numbers.lenient_quantity(text)
    if right is None or said is None:
        return False
    return any(_near(one, other, tolerance) for one, other in said.readings(right))


def _words(text: str) -> str:
    """Case, spacing, quotes and a period at the end removed."""
    return " ".join(numbers.plain(text).casefold().strip().removesuffix(".").strip("\"'“”‘’ ").split())


def score(record: Record, text: str, options: Options) -> Score:
    """Compare a text with every accepted answer; the best one counts."""
    said = text.strip()
    value = None if record.target is None else float(any(matches(said, t, options.tolerance) for t in _targets(record)))
    return Score(value=value, extracted=said, no_answer=not said)


def _targets(record: Record) -> list[str]:
    accepted = [record.target] if isinstance(record.target, str) else list(record.target)
    return [str(target).strip() for target in accepted]


def _lenient(scored: Scored, options: Options) -> float:
    """Credit had the text been read as a reader would, periods at its end aside."""
    said = scored.text.strip().rstrip(".").rstrip()
    return float(any(lenient_matches(said, target, options.tolerance) for target in _targets(scored.record)))


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Mean over the groups, where there are several; accuracy over all and of each group; under the robust reading."""
    groups = rates.split_by(scored, lambda s: s.record.group)
    several = len(groups) > 1
    each = [rates.accuracy(members, group=name) for name, members in groups.items() if several]
    credits = [[(s.score.value, rates.image(s)) for s in g if s.score.value is not None] for g in groups.values()]
    known = [s for s in scored if s.score.value is not None]
    lenient = [_lenient(s, options) for s in known]
    return [
        *([rates.mean_of_groups("accuracy", credits)] if several else []),
        rates.accuracy(scored),
        *each,
        rates.mean("lenient_accuracy", lenient, clusters=[rates.image(s) for s in known]),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]
