"""JSON of files and servers: whatever it holds, it is read or refused with a `ValueError`, never with another error."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DEEPEST = 100
"""Levels; Python's parser and writer give up, with a RecursionError, somewhere below a thousand."""
_TOO_DEEP = f"nested more than {DEEPEST} levels deep"


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is none, or nested more than `DEEPEST` levels deep.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [values]
    for _ in range(DEEPEST):
        level = [child for value in level if isinstance(value, (dict, list)) for child in _children(value)]
        if not level:
            return values
    raise ValueError(_TOO_DEEP)


def parse_json_lines(text: str, where: object) -> Iterator[tuple[str, Any]]:
    """Parse JSON lines; blank ones are skipped.

    Args:
        text: of a file.
        where: its name, for messages.

    Yields: a line's place and value.

    Raises:
        ValueError: a line is no JSON, see `parse_json`; with its place.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{where}, line {number}"
            try:
                yield place, parse_json(line)
            except ValueError as error:
                raise ValueError(f"{place}: not JSON: {error}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        OSError: it cannot be read, or is none: opening a pipe would wait for whoever writes into it.
        ValueError: see `parse_json`; or it is no UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return parse_json(path.read_text(encoding="utf-8"))


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
