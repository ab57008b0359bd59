"""JSON lines of other tools: told apart by the keys of the first line, read whole."""

from __future__ import annotations

import json
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
    first = next(jsonl.lines(path), None)
    try:
        item = None if first is None else json.loads(first.content)
    except (ValueError, RecursionError):
        return False
    return isinstance(item, dict) and set(needed) <= item.keys() and (not some_of or bool(set(some_of) & item.keys()))


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of every line.

    Raises:
        DataError: a line is no JSON object.
    """
    for line in jsonl.lines(path):
        try:
            item = jsonl.parse(line.content)
        except MalformedError as error:
            raise DataError(f"{line.where}: {error}") from None
        if not isinstance(item, dict):
            raise DataError(f"{line.where}: expected an object, got {type(item).__name__}")
        yield line.where, item
