"""JSON lines of other tools: recognised by the keys of the first line, read whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from datasets.registration.formats import jsonl
from datasets.registration.formats.files import MalformedError
from datasets.types import DataError


def begins_with(path: Path, needed: Collection[str], some_of: Collection[str] = ()) -> bool:
    """Whether a file's first line is a JSON object with some keys.

    Args:
        path: perhaps no such file at all.
        needed: keys that it must have.
        some_of: keys of which it must have one.
    """
    if not path.is_file():
        return False
    _, item = next(jsonl.values(path), ("", None))
    return isinstance(item, dict) and set(needed) <= item.keys() and (not some_of or bool(set(some_of) & item.keys()))


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of every line.

    Raises:
        DataError: a line is no JSON object.
    """
    for where, item in jsonl.values(path):
        if isinstance(item, MalformedError):
            raise DataError(f"{where}: {item}")
        if not isinstance(item, dict):
            raise DataError(f"{where}: expected an object, got {type(item).__name__}")
        yield where, item
