"""Short answers: the text, normalised, is one of the accepted answers.

Serves sets whose answer is a word or a phrase. A record's target is a string or a list of accepted strings (None where
it is withheld).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import Metric, Record, Score, Scored
from . import vqa_accuracy
from .parsing import targets
from .statistics import rates


@dataclass(frozen=True, kw_only=True)
class Options:
    """How texts are compared and reported.

    Attributes:
        normalise: ``none`` compares as is; ``lower`` ignores case, spaces around and periods at the end; ``vqa`` is
            TextVQA's normalisation. Both sides are normalised.
        by: names in a record's ``meta`` to report separately by.
        chance: report, next to each of these figures, what the commonest answer would get if it were always given.
    """

    normalise: Literal["none", "lower", "vqa"] = "lower"
    by: tuple[str, ...] = ()
    chance: bool = False


def _lower(text: str) -> str:
    return text.strip().rstrip(".").strip().casefold()


_FORMS: dict[str, Callable[[str], str]] = {"none": str, "lower": _lower, "vqa": vqa_accuracy.normalise}


def prepare(record: Record, options: Options) -> Record:
    """The record with one accepted answer, or a list of several, as its target.

    Raises:
        MalformedError: an answer is no text, or nothing is left of any when it is normalised.
    """
    form = _FORMS[options.normalise]
    return targets.with_target(record, lambda value: one_or_several(value, form))


def one_or_several(value: Any, form: Callable[[str], str]) -> str | list[str]:
    """Accepted answers, without those that an empty reply would equal; see `targets.accepted`.

    A text such as ``[3, 4]`` may list two answers or be one: both are accepted.

    Raises:
        MalformedError: an answer is no text, or none is left.
    """
    answers = targets.accepted(value)
    items = cells.as_list(value) if isinstance(value, str) else None
    if items is not None and not all(isinstance(item, str) for item in items):
        answers.append(value)
    said = [answer for answer in answers if form(answer).strip()]
    if not said:
        raise MalformedError(f"'answer' {value!r} is nothing when it is normalised, as an empty reply is")
    return said[0] if len(said) == 1 and cells.as_list(said[0]) is None else said


def own_reply(record: Record, options: Options) -> str:
    """The first accepted answer."""
    return record.target if isinstance(record.target, str) else str(record.target[0])


def score(record: Record, text: str, options: Options) -> Score:
    """Compare the text with every accepted answer."""
    form = _FORMS[options.normalise]
    return compare(record, form(text), form)


def compare(record: Record, answer: str, form: Callable[[str], str] = str) -> Score:
    """Verdict on an answer that is already normalised.

    Args:
        record: its target is what counts as right.
        answer: the normalised text.
        form: the normalisation of the accepted answers.
    """
    if record.target is None:
        return Score(value=None, extracted=answer, no_answer=not answer.strip())
    accepted = [record.target] if isinstance(record.target, str) else list(record.target)
    value = float(answer in [form(str(target)) for target in accepted])
    return Score(value=value, extracted=answer, no_answer=not answer.strip())


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """Accuracy over all answered questions, and by each declared key."""
    return [
        rates.accuracy(scored),
        *rates.table(scored, options.by),
        *(_chance(scored, options) if options.chance else ()),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]


def _chance(scored: Sequence[Scored], options: Options) -> Iterator[Metric]:
    """Share of the commonest answer, among all questions and by each declared key."""
    groups = {"": list(scored)}
    for key in options.by:
        groups |= {f"{key}/{name}": members for name, members in rates.by_meta(scored, key).items()}
    form = _FORMS[options.normalise]
    for group, members in groups.items():
        targets = [s.record.target for s in members if s.record.target is not None]
        first = Counter(form(t if isinstance(t, str) else str(t[0])) for t in targets)
        common = first.most_common(1)[0][1] if first else 0
        yield rates.mean("chance", [1.0] * common + [0.0] * (len(targets) - common), group=group)
