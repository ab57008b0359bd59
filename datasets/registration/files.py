"""What readers share: JSON with useful errors, fields with a checked type, and records that keep their faults apart."""

from __future__ import annotations

import dataclasses
import itertools
import json
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..types import BadRecord, DataError, ImageFile, Record

T = TypeVar("T")

_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object", bool: "true or false"}


class MalformedError(Exception):
    """One record of a file is not as the release has it; `build_records` turns it into a `BadRecord`."""


@dataclass(frozen=True)
class MissingImage:
    """Stands for a picture that should be there and is not: scoring works, asking the model says what is wrong.

    Attributes:
        name: see `ImageSource.name`.
        reason: what is missing and where it is expected.
    """

    name: str
    reason: str

    def read(self) -> bytes:
        """Raise OSError with the reason."""
        raise FileNotFoundError(self.reason)


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: the file is unreadable or not JSON; the message names file, line and column.
    """
    return _parse(_read_text(path), str(path))


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Parse a file of one JSON value per line, as pairs of place and value; blank lines are skipped.

    Raises:
        DataError: as `read_json`.
    """
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. "
            "Was the download cut short?"
        ) from None
    except ValueError as error:  # a number of too many digits
        raise DataError(f"{where}: not valid JSON: {error}") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply to be a file of this benchmark") from None


def expect(value: Any, kind: type[T], where: Path, key: str = "") -> T:
    """The top-level value of a file, or that of a key there, checked.

    Raises:
        DataError: it is of another kind.
    """
    if not isinstance(value, kind):
        place = f"as '{key}'" if key else "at the top"
        raise DataError(f"{where}: expected {_KINDS.get(kind, kind.__name__)} {place}, got {type(value).__name__}")
    return value


def take(item: Any, key: str, kind: type[T]) -> T:
    """A field of a record, checked.

    Raises:
        MalformedError: the record is no object, lacks the field, or has another kind of value there.
    """
    if not isinstance(item, Mapping):
        raise MalformedError(f"expected an object with '{key}', got {type(item).__name__}")
    if key not in item:
        raise MalformedError(f"lacks '{key}'; it has: {', '.join(map(str, item)) or 'nothing'}")
    value = item[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedError(f"'{key}' should be {_KINDS.get(kind, kind.__name__)}, got {value!r}")
    if isinstance(value, str):
        check_text(value, key)
    return value


def check_text(text: str, key: str) -> None:
    """Refuse what JSON can spell but no file can hold: half of a character that takes two codes.

    Raises:
        MalformedError: the text holds such a half.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError(f"'{key}' holds half of a character at {error.start}: {text!r}") from None


def take_optional(item: Any, key: str, kind: type[T]) -> T | None:
    """A field that may be absent or null.

    Raises:
        MalformedError: as `take`, for any other kind of value.
    """
    if isinstance(item, Mapping) and item.get(key) is None:
        return None
    return take(item, key, kind)


def take_id(item: Any, key: str) -> str:
    """An identifier, which releases write as text or as number.

    Raises:
        MalformedError: as `take`.
    """
    value = take(item, key, object)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise MalformedError(f"'{key}' should be a text or a whole number, got {value!r}")
    return str(value)


def image_file(folder: Path, name: str) -> ImageFile:
    """A picture of a folder by its relative path, which is also its name.

    Raises:
        MalformedError: the name is empty or leads out of the folder.
    """
    parts = Path(name).parts
    if not name.strip() or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise MalformedError(f"expected the name of a picture below {folder}, got {name!r}")
    return ImageFile(folder / name, name)


def build_records(items: Iterable[tuple[str, T]], build: Callable[[T], Record]) -> Iterator[Record | BadRecord]:
    """Build one record per item; a malformed item or a repeated id becomes a `BadRecord` at its place.

    Args:
        items: pairs of place (file and line, file and key) and raw record.
        build: makes the record, or raises `MalformedError`.
    """
    places: dict[str, str] = {}
    for where, item in items:
        try:
            record = build(item)
        except MalformedError as error:
            yield BadRecord(where=where, reason=str(error))
            continue
        if record.id in places:
            yield BadRecord(where=where, reason=f"repeats id {record.id} of {places[record.id]}")
            continue
        places[record.id] = where
        yield dataclasses.replace(record, where=where)


def place(roots: Sequence[Path], *candidates: str) -> Path:
    """First existing candidate under a root, else the first of all: a folder of pictures is only needed later."""
    places = [root / candidate for candidate in candidates for root in roots]
    return next((path for path in places if path.exists()), places[0])


def shown(options: Mapping[str, str]) -> dict[str, str]:
    """The options that a prompt lists: up to the first letter that is missing."""
    present = itertools.takewhile(lambda letter: letter in options, string.ascii_uppercase)
    return {letter: options[letter] for letter in present}
