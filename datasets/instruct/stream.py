"""The arrays of a large JSON file, one element at a time.

LLaVA-Instruct-665K is a file of 1 GB. Parsed at once it takes several times that in each process (the text alone 4 GB
as soon as it holds one emoji, since Python then stores four bytes a character). Here only a block and the element at
hand are held.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..registration.formats.files import DECODER, end_of_value, parse_json
from ..types import DataError

BLOCK = 1 << 20
"""Bytes read at a time."""

LONGEST = 1 << 28
"""Characters of the longest value; what is longer is no record of a data set, but a file with a missing quote."""

_SPACE = " \t\r\n"
_AFTER = frozenset(_SPACE + ",:]}")
"""What shows that a value has ended; after ``1`` there could come more of ``1.5e3``."""

_NEAR_END = 16
"""A parser that stumbles so close to the end of what was read may lack the rest of ``\\u00e9``, ``-Infinity``."""


class _Reader:
    """A cursor over a file's text.

    Args:
        file: opened for bytes.
        path: for messages.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._before = "", 0, 0  # before: characters that are gone from the text
        # bytes of another encoding become halves of characters, which cost the record that has them and no other
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._parse = DECODER.raw_decode
        self._ended = False

    def _more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        try:
            data = self._file.read(size)
            self._ended = not data
            more = self._decode.decode(data, final=self._ended)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read: {error.strerror}") from None
        self._before += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        return True

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(BLOCK):
                return ""

    def take(self, *expected: str) -> str:
        """Step over the next character.

        Raises:
            DataError: it is none of the expected ones.
        """
        found = self.peek()
        if found not in expected:
            wanted = " or ".join(character or "the end of the file" for character in expected)
            raise self._error(f"expected {wanted}, got {found or 'the end of the file'}")
        self._at += len(found)
        return found

    def value(self) -> Any:
        """Parse and step over the next value.

        Raises:
            DataError: it is no JSON, or longer than `LONGEST`.
        """
        self.peek()
        size = BLOCK
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                open_string = error.msg.startswith("Unterminated string")
                if not open_string and error.pos < len(self._text) - _NEAR_END:
                    raise self._error(error.msg, error.pos) from None
                failure = self._error(error.msg, error.pos)
            except ValueError as error:  # a number of too many digits
                raise self._error(str(error)) from None
            except RecursionError:
                failure = self._error("the end of the file")
                if (end := end_of_value(self._text, self._at)) >= 0:
                    value = parse_json(self._text[self._at : end])
                    self._at = end
                    return value
            else:
                if self._ended or end + _NEAR_END < len(self._text) or self._text[end : end + 1] in _AFTER:
                    self._at = end
                    return value
                failure = self._error("the end of the file")
            if len(self._text) - self._at > LONGEST:
                raise self._error(f"a value of more than {LONGEST} characters; is a quote or bracket missing?")
            if not self._more(size):
                raise failure
            size *= 2  # each attempt starts anew, so that the whole stays linear

    def _error(self, reason: str, at: int | None = None) -> DataError:
        place = self._before + (self._at if at is None else at)
        return DataError(f"{self._path}: not valid JSON at character {place}: {reason}. Was the download cut short?")


def stream_list(path: Path) -> Iterator[tuple[int, Any]]:
    """Elements of the list that a file holds; a fault within one stays in it, see `registration.files.read_json`.

    Args:
        path: UTF-8, with or without byte order mark.

    Yields:
        Index and element.

    Raises:
        DataError: the file is unreadable, no JSON list, or cut short; the message names the file and character.
    """
    with _open(path) as reader:
        yield from _array(reader)
        reader.take("")


def stream_arrays(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Elements of all arrays that are values of the object that a file holds; other values are stepped over.

    Args:
        path: UTF-8, with or without byte order mark.

    Yields:
        Key of the array, index in it, element.

    Raises:
        DataError: the file is unreadable, no JSON object, or cut short; the message names the file and character.
    """
    with _open(path) as reader:
        reader.take("{")
        while reader.peek() != "}":
            key = str(reader.value())
            reader.take(":")
            if reader.peek() == "[":
                yield from ((key, index, item) for index, item in _array(reader))
            else:
                reader.value()
            if reader.peek() != "}":
                reader.take(",")
        reader.take("}")
        reader.take("")


@contextmanager
def _open(path: Path) -> Iterator[_Reader]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        yield _Reader(file, path)


def _array(reader: _Reader) -> Iterator[tuple[int, Any]]:
    reader.take("[")
    index = 0
    while index or reader.peek() != "]":
        yield index, reader.value()
        index += 1
        if reader.take(",", "]") == "]":
            return
    reader.take("]")
