"""Which field of other tools' records holds the model's reply, by what tells it apart from questions and ground truth.

Tools agree on no names: one writes the question as ``text`` and the reply as ``answer``, another the reply as
``response`` and the ground truth as ``answer``. Fields that repeat the questions are none, nor is an ``answer`` that is
the ground truth throughout; where several are left with different contents, the file is refused.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets.registration.formats import cells
from datasets.types import DataError, Record

NAMES = ("text", "response", "prediction", "pred", "output", "answer")
"""Fields that may hold the model's reply."""
QUESTIONS = ("question", "query", "prompt", "release_question")
"""Fields that may hold what was asked, in a file's records and in ours."""
_TRUTH = "answer"
"""The one name of them that other tools also use for the ground truth."""


def candidates(item: Mapping[str, Any]) -> dict[str, str | None]:
    """The fields of a record that may hold its reply: a text, a number, or None where there is none."""
    found = {name: item[name] for name in NAMES if name in item}
    scalar = {
        n: v for n, v in found.items() if isinstance(v, (str, int, float, type(None))) and not isinstance(v, bool)
    }
    return {
        name: value if value is None or isinstance(value, str) else cells.as_text(value, name)
        for name, value in scalar.items()
    }


def questions_of(item: Mapping[str, Any]) -> list[str]:
    """What a record says that was asked."""
    return [item[name] for name in QUESTIONS if isinstance(item.get(name), str) and item[name].strip()]


Row = tuple[Mapping[str, str | None], Sequence[str], Record | None]
"""A record of a file: its candidates, what it says that was asked, and our record of that id."""


def no_replies(rows: Iterable[Row], path: object) -> set[str]:
    """Fields of a file that hold no replies.

    Args:
        rows: all records of the file.
        path: the file, for messages.

    Raises:
        DataError: no field is left.
    """
    held: dict[str, list[tuple[str, list[str], Record | None]]] = {}
    for fields, asked, record in rows:
        own = [] if record is None else [record.fields[name] for name in QUESTIONS if record.fields.get(name)]
        for name, value in fields.items():
            if value is not None and value.strip():
                held.setdefault(name, []).append((value, [*asked, *own], record))
    if len(held) == 1:
        (name, cases) = next(iter(held.items()))
        if _most(_plain(value) in {_plain(question) for question in asked} for value, asked, _ in cases):
            raise DataError(
                f"{path}: its '{name}' repeats the questions; the model's reply is expected under one of "
                f"{', '.join(NAMES)}"
            )
        return set()
    dropped = {name for name, cases in held.items() if _most(_repeats(value, asked) for value, asked, _ in cases)}
    if dropped == held.keys() and held:
        raise DataError(f"{path}: its {_quoted(sorted(held))} repeat the questions; none holds the model's replies")
    left = held.keys() - dropped
    if _TRUTH in left and len(left) > 1 and _is_truth(held[_TRUTH]):
        dropped.add(_TRUTH)
    return dropped


def reply_of(fields: Mapping[str, str | None], dropped: set[str], where: str) -> str | None:
    """The reply of a record; None where it has none.

    Args:
        fields: its candidates.
        dropped: fields of the file that hold no replies.
        where: its place, for messages.

    Raises:
        DataError: several fields with different contents may be the reply.
    """
    left = {name: value for name, value in fields.items() if name not in dropped and value is not None}
    if len(set(left.values())) > 1:
        shown = ", ".join(f"{name}: {reprlib.repr(value)}" for name, value in left.items())
        raise DataError(
            f"{where}: {_quoted(list(left))} differ and each may be the model's reply ({shown}); leave the one that is"
        )
    return next(iter(left.values()), None)


def _most(found: Iterable[bool]) -> bool:
    """Whether at least half of some cases are so."""
    cases = list(found)
    return bool(cases) and 2 * sum(cases) >= len(cases)


def _repeats(value: str, asked: Iterable[str]) -> bool:
    """Whether a text is a question, perhaps with an instruction after it."""
    said = _plain(value)
    return any(said.startswith(_plain(question)) for question in asked)


def _is_truth(cases: Iterable[tuple[str, list[str], Record | None]]) -> bool:
    """Whether values are the ground truth wherever it is known."""
    known = [_says(value, record) for value, _, record in cases if record is not None and record.target is not None]
    return bool(known) and all(known)


def _says(value: str, record: Record) -> bool:
    """Whether a text is a record's target, however it is written."""
    target, options = record.target, record.meta.get("options")
    answers = [str(answer) for answer in (target if isinstance(target, (list, tuple)) else [target])]
    if isinstance(options, Mapping) and isinstance(target, str):
        answers.append(str(options.get(target, target)))
    return _plain(value) in map(_plain, answers) or cells.yes_no(value) == target


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
