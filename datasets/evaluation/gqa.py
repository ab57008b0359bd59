"""GQA: exact match with the table of its official script.

Source: the release's ``eval.py`` after LLaVA's conversion of the answers (periods at the end removed, lower case,
nothing else), which is what published numbers went through. Validity, plausibility and consistency need files that the
1.2 release lacks for testdev and are not computed, as everywhere. Records carry ``structural``, ``semantic``,
``words``, ``steps`` and ``global_group`` in ``meta``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..registration.formats.files import MalformedError
from ..types import Metric, Record, Score, Scored
from . import exact_match
from .parsing import targets
from .statistics import rates

OPEN = "query"
"""The one structural type whose answers are open; all others are binary."""

_TABLES = ("structural", "semantic", "steps", "words")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What happens to a text before it is compared.

    Attributes:
        conversion: LLaVA's, or none at all (the official script on raw text).
    """

    conversion: Literal["llava", "none"] = "llava"


def convert(text: str) -> str:
    """LLaVA's conversion: periods at the end removed, lower case."""
    return text.rstrip(".").lower()


def grouped_by(options: Options) -> tuple[str, ...]:
    """Names in ``meta`` of the coarse tables."""
    return _TABLES[:2]


def prepare(record: Record, options: Options) -> Record:
    """The record with its answer converted as replies are.

    Raises:
        MalformedError: there are several answers, nothing is left of one, or the kind of question is not known.
    """
    found = targets.with_target(record, lambda value: _converted(value, options))
    if found.target is not None:
        targets.need(found, "gqa", "structural")
    return found


def _converted(value: object, options: Options) -> str:
    said = targets.text(value).strip()
    answer = convert(said) if options.conversion == "llava" else said
    if not answer:
        raise MalformedError(f"'answer' {value!r} is nothing once it is converted, as an empty reply is")
    return answer


def own_reply(record: Record, options: Options) -> str:
    """The answer."""
    return str(record.target)


def score(record: Record, text: str, options: Options) -> Score:
    """Convert the text and ask whether it is the answer."""
    return exact_match.compare(record, convert(text) if options.conversion == "llava" else text)


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Accuracy, binary and open, the distribution value, then the tables."""
    answered = [s for s in scored if s.score.value is not None]
    return [
        rates.accuracy(answered),
        _or_zero(rates.accuracy([s for s in answered if s.record.meta["structural"] != OPEN], group="binary")),
        _or_zero(rates.accuracy([s for s in answered if s.record.meta["structural"] == OPEN], group="open")),
        _distribution(answered),
        *rates.table(answered, _TABLES),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]


def _or_zero(metric: Metric) -> Metric:
    """The script's average of nothing is 0."""
    return Metric(name=metric.name, value=0.0, num=0, group=metric.group) if metric.value is None else metric


def _distribution(answered: Sequence[Scored]) -> Metric:
    """A hundredth of the chi-square between given and right answers in each global group, averaged by group size.

    Lower is better. Only answers that occur as right answers of the group are summed over; None if none has a group.
    """
    grouped = [s for s in answered if s.record.meta.get("global_group") is not None]
    total = 0.0
    for members in rates.split_by(grouped, lambda s: str(s.record.meta["global_group"])).values():
        gold = Counter(str(s.record.target) for s in members)
        said = Counter(s.score.extracted for s in members)
        total += len(members) * sum((said[answer] - number) ** 2 / number for answer, number in gold.items())
    value = total / len(grouped) / 100 if grouped else None
    return Metric(name="distribution", value=value, num=len(grouped), kind="score")
