"""Files of one JSON value per line, read as a stream; a corrupt line costs only itself."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...types import DataError
from .base64_images import from_base64
from .cells import single
from .files import MalformedError, parse_json


@dataclass(frozen=True)
class JsonLine:
    """One line that is not blank.

    Attributes:
        where: file and line number from 1, for messages.
        start: its first byte in the file.
        content: its bytes.
    """

    where: str
    start: int
    content: bytes


@dataclass(frozen=True)
class LineImage:
    """An image in a line of a file, as base64; only its place is kept.

    Attributes:
        path: the file.
        name: digest of its text.
        start: first byte of the line.
        length: bytes of the line.
        key: where it stands in the line's object, perhaps in a list or object of its own.
    """

    path: Path
    name: str
    start: int
    length: int
    key: str

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.length)
        where = f"{self.path}: the image of the line at byte {self.start}"
        try:
            text = single(parse(content)[self.key])
        except (MalformedError, KeyError, TypeError) as error:
            raise OSError(f"{where} is gone, the file has changed: {error}") from None
        if not isinstance(text, str):
            raise OSError(f"{where} is gone, the file has changed")
        return from_base64(text, where)


def lines(path: Path) -> Iterator[JsonLine]:
    """Lines of a file, see `values`, with their places in it.

    Raises:
        DataError: the file is unreadable, or no UTF-8.
    """
    return (JsonLine(*line) for line in _lines(path))


def values(path: Path) -> Iterator[tuple[str, Any]]:
    """Values of a file's lines; blank ones and byte order marks are left out (joined files have several).

    Yields: file and line number from 1, for messages, and the value; or a `MalformedError` in its place.

    Raises:
        DataError: the file is unreadable, or no UTF-8.
    """
    for where, _, content in _lines(path):
        try:
            value = parse(content)
        except MalformedError as error:
            value = error
        yield where, value


def _lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """What `JsonLine` has of every line; any line end will do."""
    offset = 0
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise DataError(f"{path}: is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
                content = raw.removeprefix(codecs.BOM_UTF8)
                start, offset = offset + len(raw) - len(content), offset + len(raw)
                if content.strip():
                    yield f"{path}, line {number}", start, content
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def parse(content: bytes) -> Any:
    """The value of a line.

    Raises:
        MalformedError: the line is not UTF-8 or not JSON.
    """
    try:
        return parse_json(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        raise MalformedError(f"not a JSON object ({error})") from None
