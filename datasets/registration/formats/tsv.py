"""Tables of values separated by tabs or commas, with base64 images in their cells, read as a stream.

Only the place of an image in the file is kept; its bytes are read again when the image is needed. Cells are text:
"None", "nan" and "NA" stay what they are, and an empty cell is an absent value.

Cells are quoted as pandas and Python's csv module quote them: a cell that begins with a quote ends at the next single
one, may hold delimiters and line ends, and has its own quotes doubled. Hand-made tables also have cells that begin with
a quote and are not quoted. A closed quote that no delimiter follows (``"So" he said``) means that its line has no
quoting, and it is read so; a quote that is never closed costs its line, and not what comes after it.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...types import DataError, ImageSource
from .base64_images import digest, from_base64
from .cells import single
from .files import MalformedError, MissingImage, listed, whole_number

_LONGEST_POINTER = 64  # characters; an encoded image is longer, the index of a row is not
_LONGEST_ROW = 1 << 26
"""Bytes; where a quote has not been closed by then, none was meant."""
_FEWEST_COLUMNS = 3
"""Of a table in which a line that looks like a whole row cannot be a line of a quoted text by chance."""


@dataclass(frozen=True)
class TsvRow:
    """One row of a table.

    Attributes:
        where: file and line, for messages.
        cells: column name -> text.
        start: first byte of the row in the file.
        length: how many bytes it takes, which may be several lines.
    """

    where: str
    cells: dict[str, str]
    start: int
    length: int


@dataclass(frozen=True)
class CellImage:
    """An image in a cell of a table, as base64.

    Attributes:
        path: the table.
        name: digest of the cell, so that equal names mean equal images.
        start: first byte of its row.
        length: bytes of its row.
        column: index of its cell.
        delimiter: what separates cells.
    """

    path: Path
    name: str
    start: int
    length: int
    column: int
    delimiter: str = "\t"

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            row = file.read(self.length)
        where = f"{self.path}: the image of the row at byte {self.start}"
        try:
            cell = _cells(_text(row), self.delimiter)[self.column]
            return from_base64(str(single(cell)), where)
        except (_OpenQuoteError, IndexError):
            raise OSError(f"{where} is gone, the file has changed") from None
        except MalformedError as error:
            raise OSError(f"{where}: {error}") from None


class _OpenQuoteError(Exception):
    """A row ends within a quoted cell; its argument is the number of the cell, from 1."""


def _text(line: bytes) -> str:
    """A row without its line end; bytes that are no UTF-8 become halves of characters, which no record takes."""
    return line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")


def _cells(text: str, delimiter: str) -> list[str]:
    """The cells of a row.

    Raises:
        _OpenQuoteError: a quoted cell is not closed.
    """
    if '"' not in text:
        return text.split(delimiter)
    cells: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            end = _closing(text, at + 1)
            if end < 0:
                raise _OpenQuoteError(len(cells) + 1)
            if end + 1 < len(text) and text[end + 1] != delimiter:
                return text.split(delimiter)  # the quote is a letter like any other here
            cells.append(text[at + 1 : end].replace('""', '"'))
            at = end + 1
        else:
            end = text.find(delimiter, at)
            cells.append(text[at : end if end >= 0 else len(text)])
            at = end if end >= 0 else len(text)
        if at == len(text):
            return cells
        at += 1


def _closing(text: str, at: int) -> int:
    """Where the next quote stands that is not doubled; -1 for nowhere."""
    while (end := text.find('"', at)) >= 0 and text.startswith('"', end + 1):
        at = end + 2
    return end


@dataclass(frozen=True)
class _Line:
    """A line of the file as it is: its number from 1, its first byte, its bytes."""

    number: int
    start: int
    content: bytes


class _Lines:
    """Lines of a file, which can be looked at before they are taken."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead: deque[_Line] = deque()
        self._offset = self._number = 0

    def peek(self, index: int) -> _Line | None:
        """The line so many after the next one; None after the last."""
        while len(self._ahead) <= index:
            content = self._file.readline()
            if not content:
                return None
            self._number += 1
            self._ahead.append(_Line(self._number, self._offset, content))
            self._offset += len(content)
        return self._ahead[index]

    def take(self, count: int) -> None:
        """Step over lines that were looked at."""
        for _ in range(count):
            self._ahead.popleft()


def rows(path: Path, delimiter: str = "\t") -> Iterator[TsvRow | tuple[str, str]]:
    """Read a table row by row; rows of empty cells are skipped.

    Args:
        path: the table.
        delimiter: what separates cells.

    Yields:
        a row; or, for one that has another number of cells than the header or an open quote, its place and what is
        wrong.

    Raises:
        DataError: the file is unreadable or empty, is no table of UTF-8 text, or its header has a column twice.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(_Lines(file), path, delimiter)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _rows(lines: _Lines, path: Path, delimiter: str) -> Iterator[TsvRow | tuple[str, str]]:
    header = _header(lines, path, delimiter)
    while (first := lines.peek(0)) is not None:
        where = f"{path}, line {first.number}"
        count, cells = _row(lines, delimiter, len(header))
        length = sum(len(line.content) for index in range(count) if (line := lines.peek(index)))
        lines.take(count)
        if isinstance(cells, str):
            yield where, cells
        elif not any(cell.strip() for cell in cells):
            continue
        elif len(cells) != len(header):
            yield where, f"has {len(cells)} cells, the header has {len(header)}"
        else:
            yield TsvRow(where, dict(zip(header, cells, strict=True)), first.start, length)


def _header(lines: _Lines, path: Path, delimiter: str) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: see `rows`.
    """
    first = lines.peek(0)
    if first is not None and first.content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    count, cells = _row(lines, delimiter, 0)
    if first is None or cells == [""]:
        raise DataError(f"{path}: empty; expected a header line with the names of the columns")
    if isinstance(cells, str):
        raise DataError(f"{path}, line 1, the header: {cells}")
    lines.take(count)
    cells[0] = cells[0].removeprefix("\ufeff").removeprefix('"').removesuffix('"')  # a mark hides the quotes behind it
    if twice := [name for name in dict.fromkeys(cells) if name and cells.count(name) > 1]:
        raise DataError(f"{path}, line 1, the header: names {listed(twice)} more than once; which one counts?")
    if any("\r" in cell for cell in cells) and lines.peek(0) is None:
        raise DataError(f"{path}: its lines end in CR alone, as old files of macOS do; save it with other line ends")
    return cells


def _row(lines: _Lines, delimiter: str, num_columns: int) -> tuple[int, list[str] | str]:
    """How many lines the next row takes, and its cells or what is wrong with it."""
    taken: list[bytes] = []
    size, opened = 0, 0
    while size <= _LONGEST_ROW and (line := lines.peek(len(taken))) is not None:
        if taken and delimiter == "\t" and _are_rows(taken[0], line.content, num_columns):
            break
        taken.append(line.content)
        size += len(line.content)
        if len(taken) > 1 and b'"' not in line.content:
            continue  # nothing that could close the quote
        try:
            cells = _cells(_text(b"".join(taken)), delimiter)
        except _OpenQuoteError as error:
            opened = error.args[0]
            continue
        whole_rows = (len(_text(content).split(delimiter)) == num_columns for content in taken[1:])
        if len(cells) == num_columns or not any(whole_rows):
            return len(taken), cells
        break  # what closes it belongs to another row
    remedy = "Was the download cut short? A quote that is text stands in quotes, doubled"
    return 1, f"cell {opened} begins with a quote that is not closed. {remedy}"


def _are_rows(first: bytes, later: bytes, num_columns: int) -> bool:
    """Whether a line with an open quote and one of those after it are rows of their own, by their tabs."""
    return num_columns >= _FEWEST_COLUMNS and first.count(b"\t") == later.count(b"\t") == num_columns - 1


class DecodedImages:
    """The images of a table: in the cell of a row, or in that of the row whose index the cell gives.

    Args:
        path: the table.
        column: the column of images.
        key: the column of the rows' indices.
        delimiter: what separates cells.
    """

    def __init__(self, path: Path, column: str = "image", key: str = "index", delimiter: str = "\t") -> None:
        self._path, self._column, self._key, self._delimiter = path, column, key, delimiter
        self._known: dict[str, CellImage] = {}
        self._all_known = False

    def of(self, row: TsvRow) -> ImageSource:
        """The image of a row.

        Raises:
            MalformedError: its cell gives the index of a row that has no image.
        """
        cell = whole_number(row.cells.get(self._column, "").strip())
        index = whole_number(row.cells.get(self._key, "").strip())
        if not cell:
            return MissingImage(f"row {index}", f"{row.where}: no {self._column}; the table was stripped of its images")
        if not (len(cell) <= _LONGEST_POINTER and cell.isdigit()):
            return self._keep(row)
        if cell not in self._known and not self._all_known:
            for other in rows(self._path, self._delimiter):  # it may stand further down
                if isinstance(other, TsvRow) and len(other.cells.get(self._column, "")) > _LONGEST_POINTER:
                    self._keep(other)
            self._all_known = True
        if cell not in self._known:
            raise MalformedError(f"the {self._column} is that of row {cell}, which has none")
        return self._known[cell]

    def _keep(self, row: TsvRow) -> CellImage:
        column = list(row.cells).index(self._column)
        index = whole_number(row.cells.get(self._key, "").strip())
        name = digest(row.cells[self._column].strip())
        image = CellImage(self._path, name, row.start, row.length, column, self._delimiter)
        self._known.setdefault(index, image)
        return image
