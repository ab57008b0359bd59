"""What readers share: JSON with useful errors, fields with a checked type, and records that keep their faults apart."""

from __future__ import annotations

import codecs
import dataclasses
import itertools
import json
import math
import re
import reprlib
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...roots import candidate_paths, first_existing
from ...types import BadRecord, DataError, ImageFile, Record

T = TypeVar("T")
K = TypeVar("K")

DEEPEST = 100
"""Brackets within brackets in a file of records; the releases have a handful."""

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins like the mark of UTF-16, so it is tried first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LONGEST_NUMBER = 4000
"""Digits; Python reads and writes no whole number of more than 4300."""
_LONGEST_NAME = 255
"""Bytes of a file's name that common file systems take."""
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object", bool: "true or false"}


class MalformedError(Exception):
    """One record of a file is not as the release has it; `build_records` turns it into a `BadRecord`."""


@dataclass(frozen=True)
class MissingImage:
    """Stands for an image that should be there and is not: scoring works, asking the model says what is wrong.

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
    """Parse a JSON file. A fault within one record is left in it, so that it costs this record and not the file.

    A byte that is no UTF-8 becomes half of a character, which `build_records` refuses; what is nested beyond `DEEPEST`
    becomes an empty object, a number of too many digits infinity, and a repeated key is kept (see `named_items`).

    Raises:
        DataError: the file is unreadable or not JSON; the message names file, line and column.
    """
    return _parse(_read_text(path), str(path))


def _read_text(path: Path) -> str:
    try:
        return decode_text(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def decode_text(data: bytes) -> str:
    """A file's text: UTF-8, or what its byte order mark says. Other bytes become halves of characters (PEP 383).

    Raises:
        UnicodeDecodeError: a mark promises another encoding than the file has.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def parse_json(text: str) -> Any:
    """Parse JSON as `read_json` does.

    Raises:
        ValueError: it is none.
    """
    try:
        return DECODER.decode(text)
    except RecursionError:
        return DECODER.decode(without_depths(text))


def _parse(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}. {_likely(text)}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from None


def _likely(text: str) -> str:
    """What a file that is no JSON may be instead."""
    head = text[:200].lstrip().lower()
    if head.startswith("version https://git-lfs"):
        return "It is a git-lfs pointer: fetch the file itself with 'git lfs pull'."
    if head.startswith(("<!doctype", "<html", "<?xml")):
        return "It is a web page: the download gave an error or asked for a login."
    return "Was the download cut short?"


def _integer(digits: str) -> int | float:
    """A whole number, or infinity for one that Python refuses to read; no field takes that."""
    return int(digits) if len(digits) <= _LONGEST_NUMBER else math.inf


class RepeatedKeys(dict[str, Any]):
    """An object in which keys stand several times: as a mapping it has the last of each, as Python's parser does.

    Attributes:
        pairs: all of it.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


def named_items(content: Mapping[str, T]) -> Iterable[tuple[str, T]]:
    """Keys and values of an object of records, repeated ones included: `build_records` then names them."""
    return content.pairs if isinstance(content, RepeatedKeys) else content.items()


DECODER = json.JSONDecoder(parse_int=_integer, object_pairs_hook=_object)
"""Parses JSON as `read_json` does, but for depths."""


def end_of_value(text: str, at: int) -> int:
    """Where a JSON list or object ends that begins at a place of a text; -1 where the text ends before."""
    depth = 0
    for found in _BRACKETS.finditer(text, at):
        depth += (found.group() in "[{") - (found.group() in "]}")
        if depth == 0:
            return found.end()
    return -1


def without_depths(text: str) -> str:
    """JSON in which everything nested deeper than `DEEPEST` is an empty object."""
    kept: list[str] = []
    depth, start = 0, 0
    for found in _BRACKETS.finditer(text):
        bracket = found.group()
        if bracket in "[{":
            depth += 1
            if depth == DEEPEST:
                kept.append(text[start : found.start()] + "{}")
        elif bracket in "]}":
            if depth == DEEPEST:
                start = found.end()
            depth -= 1
    return "".join([*kept, text[start:] if depth < DEEPEST else ""])


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
        raise MalformedError(f"lacks '{key}'; it has: {listed(item)}")
    value = item[key]
    if kind is int and type(value) is float and value.is_integer():
        value = int(value)  # as tables write whole numbers where some are missing
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedError(f"'{key}' should be {_KINDS.get(kind, kind.__name__)}, got {brief(value)}")
    if isinstance(value, str):
        check_text(value, key)
    return value


def brief(value: Any) -> str:
    """A value for a message, of a length that can be read."""
    try:
        return _BRIEF.repr(value)
    except (ValueError, RecursionError):  # a number of too many digits
        return type(value).__name__


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 120


def check_text(text: str, key: str) -> None:
    """Refuse what no text holds: bytes of another encoding, half of a character that takes two codes, NUL.

    Raises:
        MalformedError: the text holds one of them.
    """
    if "\0" in text:
        raise MalformedError(f"'{key}' holds a NUL at {text.index(chr(0))}, as damaged files do: {brief(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = ord(text[error.start])
        if 0xDC80 <= found <= 0xDCFF:
            what = f"the byte 0x{found - 0xDC00:02X}, which is not UTF-8 (is the file in another encoding?),"
        else:
            what = "half of a character"
        raise MalformedError(f"'{key}' holds {what} at {error.start}: {brief(text)}") from None


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
        MalformedError: as `take`; or it is empty.
    """
    value = as_id(take(item, key, object))
    if value is None:
        raise MalformedError(f"'{key}' should be a text or a whole number, got {brief(item[key])}")
    if not value.strip():
        raise MalformedError(f"'{key}' is empty")
    check_text(value, key)
    return value


def as_id(value: Any) -> str | None:
    """A text or a whole number as text, also one that a table holds as ``7.0``; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return None if isinstance(value, bool) or not isinstance(value, (str, int)) else str(value)


def whole_number(text: str) -> str:
    """A cell of text without the decimal point that tables give whole numbers where some are missing: ``7.0`` is 7."""
    return found.group(1) if (found := _WHOLE.fullmatch(text.strip())) else text


_WHOLE = re.compile(r"([0-9]+)\.0+")


def listed(names: Iterable[Any]) -> str:
    """Names for a message: the first of them, none of them long."""
    known = list(itertools.islice(names, _LISTED + 1))
    short = [str(name) if len(str(name)) <= _LONGEST_LISTED else brief(str(name)) for name in known[:_LISTED]]
    return ", ".join([*short, *(["..."] if len(known) > _LISTED else [])]) or "nothing"


_LISTED, _LONGEST_LISTED = 20, 60


def image_file(folder: Path, name: str) -> ImageFile:
    """An image of a folder by its relative path, which is also its name.

    Raises:
        MalformedError: the name is empty, leads out of the folder, or is none that a file can have.
    """
    parts = Path(name).parts
    long = any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in parts)
    if not name.strip() or not parts or Path(name).is_absolute() or ".." in parts or long or "\0" in name:
        raise MalformedError(f"expected the name of an image below {folder}, got {brief(name)}")
    return ImageFile(folder / name, name)


HIDDEN = ("thumbs.db", "desktop.ini")


def is_hidden(path: Path) -> bool:
    """Whether a file is one that systems leave next to others: ``._0001.txt`` and ``.DS_Store`` of macOS, Thumbs.db."""
    return path.name.startswith(".") or path.name.lower() in HIDDEN


def build_records(
    items: Iterable[tuple[str, T | MalformedError]], build: Callable[[T], Record]
) -> Iterator[Record | BadRecord]:
    """Build one record per item; a malformed item or a repeated id becomes a `BadRecord` at its place.

    Args:
        items: pairs of place (file and line, file and key) and raw record; or of place and what is wrong there.
        build: makes the record, or raises `MalformedError`.
    """
    places: dict[str, str] = {}
    for where, item in items:
        try:
            if isinstance(item, MalformedError):
                raise item
            record = build(item)
            _check_record(record)
        except MalformedError as error:
            yield BadRecord(where=where, reason=str(error))
            continue
        except (ArithmeticError, ValueError, RecursionError) as error:  # a number or a nesting beyond all bounds
            yield BadRecord(where=where, reason=f"cannot be used ({type(error).__name__}: {error})")
            continue
        if record.id in places:
            yield BadRecord(where=where, reason=f"repeats id {record.id} of {places[record.id]}")
            continue
        places[record.id] = where
        yield dataclasses.replace(record, where=where)


def without_bad(items: Iterable[T | BadRecord]) -> tuple[list[T], list[BadRecord]]:
    """Read to the end, in order: what can be used, and what cannot."""
    usable: list[T] = []
    bad: list[BadRecord] = []
    for item in items:
        if isinstance(item, BadRecord):
            bad.append(item)
        else:
            usable.append(item)
    return usable, bad


def _check_record(record: Record) -> None:
    """Refuse a record that no file, tokenizer or file system could hold.

    Raises:
        MalformedError: one of its texts is damaged, or it is nested without end.
    """
    if not record.id.strip():
        raise MalformedError("its id is empty")
    _check_texts(record.id, "id")
    _check_texts(record.group, "group")
    _check_texts(record.fields, "fields")
    _check_texts(record.target, "answer")
    _check_texts(record.meta, "meta")
    if record.image is not None:
        _check_texts(record.image.name, "image")


def _check_texts(value: Any, key: str, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise MalformedError(f"'{key}' is nested too deeply")
    if isinstance(value, str):
        check_text(value, key)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _check_texts(name, key, depth + 1)
            _check_texts(item, str(name), depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_texts(item, key, depth + 1)


def put_once(table: dict[K, T], key: K, value: T, what: str) -> None:
    """Enter a value under a key that stands once.

    Raises:
        MalformedError: it is there already.
    """
    if key in table:
        raise MalformedError(f"repeats {what} {key}")
    table[key] = value


def expected_path(roots: Sequence[Path], *candidates: str) -> Path:
    """The first candidate that exists under a root, else the first of all: a folder of images is only needed later."""
    return first_existing(roots, *candidates) or candidate_paths(roots, *candidates)[0]


def leading_options(options: Mapping[str, str]) -> dict[str, str]:
    """The options that a prompt lists: up to the first letter that is missing."""
    present = itertools.takewhile(lambda letter: letter in options, string.ascii_uppercase)
    return {letter: options[letter] for letter in present}
