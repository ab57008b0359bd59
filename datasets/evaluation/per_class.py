"""The paper's object probes: how often a model is right about each class, and about the best and the worst of them.

A record has its class in ``meta["class"]``. Class2Binary is answered by yes or no, Box2Class by a class name, one of
``meta["names"]``.

Source: CoLLaVO (arXiv 2402.11248), section 4: per class, the average over the classes, and that of the 20 best and of
the 20 worst.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from configs.common.words import shown

from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import DataError, Metric, Record, Score, Scored
from . import yes_no
from .parsing import targets
from .statistics import intervals, rates
from .statistics.intervals import Estimate


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to read and report.

    Attributes:
        rule: ``yes_no`` reads as POPE does; ``class_name`` looks for the name of a class.
        extremes: how many of the best and of the worst classes are averaged.
    """

    rule: Literal["yes_no", "class_name"]
    extremes: int = 20

    def __post_init__(self) -> None:
        """Check the number."""
        if self.extremes < 1:
            raise DataError(f"per_class: extremes must be at least 1, not {self.extremes}")


def grouped_by(options: Options) -> tuple[str, ...]:
    """Name in ``meta`` that accuracy is reported by."""
    return ("class",)


def prepare(record: Record, options: Options) -> Record:
    """The record with ``yes`` or ``no``, or the name of a class, as its target.

    Raises:
        MalformedError: the target is none of these, or the record lacks its class, or the names of all classes.
    """
    targets.need(record, "per_class", "class", *(["names"] if options.rule == "class_name" else []))
    if options.rule == "yes_no":
        return targets.with_target(record, targets.yes_no)
    names = cells.as_list(record.meta["names"])
    if not names or not all(isinstance(name, str) for name in names):
        raise MalformedError(f"'names' should be a list of class names, got {record.meta['names']!r}")
    found = record if not isinstance(record.meta["names"], str) else targets.with_meta(record, {"names": names})
    return targets.with_target(found, lambda value: _named(targets.text(value), tuple(names)))


def _named(value: str, names: tuple[str, ...]) -> str:
    said = value if value in names else read_class(value, names)
    if not said:
        raise MalformedError(f"'answer' {value!r} is the name of no class, or of several")
    return said


def own_reply(record: Record, options: Options) -> str:
    """The label, or the name of the class."""
    return str(record.target)


def credits_empty(record: Record, options: Options) -> bool:
    """POPE's rule reads yes where nothing is said."""
    return bool(options.rule == "yes_no" and record.target == "yes")


def score(record: Record, text: str, options: Options) -> Score:
    """Read a text by the rule and compare it with the target."""
    if options.rule == "yes_no":
        return yes_no.score(record, text, yes_no.Options())
    names = record.meta.get("names")
    if not names:
        raise DataError(
            f"record {shown(record.id)} has no class names: the rule class_name needs a reader that gives them"
        )
    said = read_class(text, tuple(names))
    value = None if record.target is None else float(said == record.target)
    note = "names no class, or several" if not said and text.strip() else ""
    return Score(value=value, extracted=said, no_answer=not said, explanation=note)


def read_class(text: str, names: tuple[str, ...]) -> str:
    """The one class that a text names; "" for none or several.

    Case, articles, numbers such as ``#1`` and plurals do not matter; of names within each other (``light`` in ``traffic
    light``) the longest counts.
    """
    found = {_classes(names)[match[0].lower()] for match in _pattern(names).finditer(text)}
    return found.pop() if len(found) == 1 else ""


@lru_cache(maxsize=8)
def _classes(names: tuple[str, ...]) -> dict[str, str]:
    """Every form of every name -> the name; a form that is a name of its own stays that."""
    forms: dict[str, str] = {}
    for name in names:
        for form in _forms(name):
            forms.setdefault(form, name)
    return {**forms, **{name.lower(): name for name in names}}


def _forms(name: str) -> list[str]:
    """A name in singular and plural, with and without hyphens."""
    plain = name.lower()
    forms = [plain, plain.replace("-", " "), plain.replace(" ", ""), plain.replace(" ", "-")]
    for form in list(forms):
        forms += [f"{form}s", f"{form}es"]
        if form.endswith("y"):
            forms.append(f"{form[:-1]}ies")
        if form.endswith(("knife", "leaf", "shelf")):
            forms.append(f"{form.removesuffix('fe').removesuffix('f')}ves")
    return [*forms, *{"person": ["people", "man", "woman"], "mouse": ["mice"]}.get(plain, [])]


@lru_cache(maxsize=8)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(_classes(names), key=lambda form: (-len(form), form))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
    """The average over the classes, the best and the worst, the share of right answers, and every class."""
    groups = rates.by_meta([s for s in scored if s.score.value is not None], "class")
    each = {name: _estimate(members) for name, members in groups.items()}
    ranked = sorted(each, key=lambda name: (-each[name].value, f"class/{name}"))
    best, worst = ranked[: options.extremes], ranked[-options.extremes :]
    averages = {"average": ranked, f"top_{options.extremes}": best, f"bottom_{options.extremes}": worst}
    return [
        *(_average(name, [(each[c], len(groups[c])) for c in classes]) for name, classes in averages.items()),
        rates.accuracy(scored),
        *(rates.metric("accuracy", each[name], len(groups[name]), group=f"class/{name}") for name in each),
        rates.no_answer(scored),
        *rates.unscored(scored),
    ]


def _estimate(scored: Sequence[Scored]) -> Estimate:
    return intervals.mean([s.score.value or 0.0 for s in scored], [rates.image(s) for s in scored])


def _average(name: str, classes: Sequence[tuple[Estimate, int]]) -> Metric:
    """Mean over classes; questions about one image belong together, of whatever class they are."""
    if not classes:
        return Metric(name=name, value=None, num=0)
    whole = intervals.weighted_sum([(1 / len(classes), estimate) for estimate, _ in classes])
    average = sum(estimate.value for estimate, _ in classes) / len(classes)
    return rates.exactly(rates.metric(name, whole, sum(num for _, num in classes)), average)
