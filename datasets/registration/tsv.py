"""Tables of tab-separated values with base64 pictures in their cells, read as a stream.

Only the place of a picture in the file is kept; its bytes are read again when the picture is needed. Cells are text:
"None", "nan" and "NA" stay what they are, and an empty cell is an absent value.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..types import DataError


@dataclass(frozen=True)
class Row:
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
    """A picture in a cell of a table, as base64.

    Attributes:
        path: the table.
        name: digest of the cell, so that equal names mean equal pictures.
        start: first byte of its row.
        length: bytes of its row.
        column: index of its cell.
    """

    path: Path
    name: str
    start: int
    length: int
    column: int

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            row = file.read(self.length)
        # Lines end where they end for the table, at "\n"; str.splitlines would also break cells at other separators.
        lines = (line.decode("utf-8") for line in io.BytesIO(row))
        csv.field_size_limit(sys.maxsize)
        cell = next(csv.reader(lines, delimiter="\t"))[self.column]
        try:
            return base64.b64decode(cell, validate=True)
        except binascii.Error as error:
            raise OSError(f"{self.path}: the image of the row at byte {self.start} is not base64: {error}") from None


class _Lines:
    """Decoded lines of a file; counts what was handed out, so that a row's place is known after it was parsed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.offset = self.number = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.number += 1
            self.offset += len(line)
            try:
                yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{self._path}, line {self.number}: not UTF-8: {error.reason}") from None


def rows(path: Path) -> Iterator[Row | tuple[str, str]]:
    """Read a table row by row.

    Yields:
        a row; or, for a row with another number of cells than the header, its place and what is wrong.

    Raises:
        DataError: the file is unreadable, empty, or breaks off inside a quoted cell.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open("rb") as file:
            yield from _rows(_Lines(file, path), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a table of tab-separated values: {error}. Was the download cut short?") from None


def _rows(lines: _Lines, path: Path) -> Iterator[Row | tuple[str, str]]:
    reader = csv.reader(iter(lines), delimiter="\t", strict=True)
    header = next(reader, None)
    if not header:
        raise DataError(f"{path}: empty; expected a header line with the names of the columns")
    start, line = lines.offset, lines.number
    for cells in reader:
        where = f"{path}, line {line + 1}"
        if cells and len(cells) != len(header):
            yield where, f"has {len(cells)} cells, the header has {len(header)}"
        elif cells:
            yield Row(where, dict(zip(header, cells, strict=True)), start, lines.offset - start)
        start, line = lines.offset, lines.number


def digest(cell: str) -> str:
    """Short name of a picture by its base64 text."""
    return hashlib.sha256(cell.encode()).hexdigest()[:16]
