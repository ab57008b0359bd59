"""Targets in the one form that a scorer compares with, whatever way a table writes them; pure functions of values.

What can be meant in one way only is normalised (``True``, ``Yes.`` and 1 are yes; ``b`` and ``(B)`` are option B; a
list of one text is that text); anything else is refused by name, before a model is asked. Absent targets (None, NaN, an
empty text or list) are withheld ones and stay None.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...registration.formats import cells
from ...registration.formats.files import MalformedError, whole_number
from ...types import Record

_SIDES = 4


def with_target(record: Record, read: Callable[[Any], Any]) -> Record:
    """A record with its target in a scorer's form; the same record where that changes nothing.

    Args:
        record: as its reader made it.
        read: from a target that is there to its form; raises MalformedError.
    """
    target = None if cells.blank(record.target) else read(record.target)
    same = type(target) is type(record.target) and target == record.target
    return record if same else replace(record, target=target)


def with_meta(record: Record, values: Mapping[str, Any]) -> Record:
    """A record with these values in its ``meta``; the same record where they are there already."""
    held = {name: record.meta[name] for name in values if name in record.meta}
    changed = {n: v for n, v in values.items() if n not in held or type(held[n]) is not type(v) or held[n] != v}
    return replace(record, meta={**record.meta, **changed}) if changed else record


def need(record: Record, scorer: str, *names: str) -> None:
    """Check that a record has in its ``meta`` what a scorer cannot do without.

    Raises:
        MalformedError: it lacks some; with their names.
    """
    lacking = [name for name in names if cells.absent(record.meta.get(name))]
    if lacking:
        raise MalformedError(
            f"lacks {', '.join(lacking)}, which the scorer '{scorer}' needs; data.keep names the columns that a scorer "
            "uses, under these names"
        )


def single(value: Any) -> Any:
    """The one value of a list that repeats nothing else, be it a list or written in a text; any other value as it is.

    Raises:
        MalformedError: the list holds several values.
    """
    items = cells.as_list(value)
    if items is None:
        return value
    distinct = {str(item): item for item in items if not cells.absent(item)}
    if len(distinct) != 1:
        raise MalformedError(f"'answer' should be one value, got {reprlib.repr(value)}")
    return next(iter(distinct.values()))


def text(value: Any) -> str:
    """One answer as text.

    Raises:
        MalformedError: there are several, or it is neither a text nor a number.
    """
    return cells.as_text(single(value), "answer")


def yes_no(value: Any) -> str:
    """``yes`` or ``no``.

    Raises:
        MalformedError: the value says neither.
    """
    said = cells.yes_no(single(value))
    if said is None:
        raise MalformedError(f"'answer' should be yes or no, got {reprlib.repr(value)}")
    return said


def accepted(value: Any) -> list[str]:
    """The accepted answers: one, or those of a list, which may be written in a text and hold objects with ``answer``.

    Raises:
        MalformedError: one of them is neither a text nor a number.
    """
    items = cells.as_list(value)
    answers = [value] if items is None else items
    plain = [item["answer"] if isinstance(item, Mapping) and "answer" in item else item for item in answers]
    return [cells.as_text(item, "answer") for item in plain]


def names(value: Any, column: str) -> list[str]:
    """The groups that a value in ``meta`` names: one, or those of a list, which may be written in a text.

    Args:
        value: a text, a number or a list of them; absent ones name nothing.
        column: for messages.

    Raises:
        MalformedError: it is anything else.
    """
    items = cells.as_list(value)
    found = [value] if items is None else items
    return [cells.as_text(item, column) for item in found if not cells.absent(item)]


def whole(value: Any, column: str) -> str:
    """A number of a pass, a figure or a set as text; a whole one has no decimal point, in tables of text either.

    Raises:
        MalformedError: it is neither a text nor a number.
    """
    return whole_number(cells.as_text(value, column).strip())


def letter(record: Record) -> Record:
    """A record whose target is the letter of one of its options.

    Raises:
        MalformedError: it has no options, or the target is none of them or may be several.
    """
    options = record.meta.get("options")
    if not isinstance(options, Mapping) or not options:
        raise MalformedError("has no options to choose from: columns A, B, C, ..., or those of data.columns.options")
    return with_target(record, lambda value: cells.option_letter(value, options))


def box(value: Any) -> list[float]:
    """Four finite numbers.

    Raises:
        MalformedError: it is anything else.
    """
    items = cells.as_list(value)
    if items is None and isinstance(value, str):
        items = value.replace(",", " ").split()
    try:
        sides = [float(item) for item in items or () if not isinstance(item, bool)]
    except (TypeError, ValueError):
        sides = []
    if len(sides) != _SIDES or not all(map(math.isfinite, sides)):
        raise MalformedError(f"'answer' should be a box of four numbers, got {reprlib.repr(value)}")
    return sides
