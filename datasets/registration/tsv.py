"""Tables of values separated by tabs or commas, with base64 pictures in their cells, read as a stream.

Only the place of a picture in the file is kept; its bytes are read again when the picture is needed. Cells are text:
"None", "nan" and "NA" stay what they are, and an empty cell is an absent value.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..types import DataError, ImageSource
from .cells import single
from .encoded import digest, from_base64
from .files import MalformedError, MissingImage

_LONGEST_POINTER = 64  # characters; an encoded picture is longer, the index of a row is not


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
        # Lines end where they end for the table, at "\n"; str.splitlines would also break cells at other separators.
        lines = (line.decode("utf-8") for line in io.BytesIO(row))
        csv.field_size_limit(sys.maxsize)
        cell = next(csv.reader(lines, delimiter=self.delimiter))[self.column]
        try:
            return from_base64(str(single(cell)), where)
        except MalformedError as error:
            raise OSError(f"{where}: {error}") from None


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


def rows(path: Path, delimiter: str = "\t") -> Iterator[Row | tuple[str, str]]:
    """Read a table row by row.

    Args:
        path: the table.
        delimiter: what separates cells.

    Yields:
        a row; or, for a row with another number of cells than the header, its place and what is wrong.

    Raises:
        DataError: the file is unreadable, empty, or breaks off inside a quoted cell.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open("rb") as file:
            yield from _rows(_Lines(file, path), path, delimiter)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except csv.Error as error:
        kind = "comma" if delimiter == "," else "tab"
        raise DataError(
            f"{path}: not a table of {kind}-separated values: {error}. Was the download cut short?"
        ) from None


def _rows(lines: _Lines, path: Path, delimiter: str) -> Iterator[Row | tuple[str, str]]:
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
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


class Pictures:
    """The pictures of a table: in the cell of a row, or in that of the row whose index the cell gives.

    Args:
        path: the table.
        column: the column of pictures.
        key: the column of the rows' indices.
        delimiter: what separates cells.
    """

    def __init__(self, path: Path, column: str = "image", key: str = "index", delimiter: str = "\t") -> None:
        self._path, self._column, self._key, self._delimiter = path, column, key, delimiter
        self._known: dict[str, CellImage] = {}
        self._all_known = False

    def of(self, row: Row) -> ImageSource:
        """The picture of a row.

        Raises:
            MalformedError: its cell gives the index of a row that has no picture.
        """
        cell, index = row.cells.get(self._column, "").strip(), row.cells.get(self._key, "").strip()
        if not cell:
            return MissingImage(
                f"row {index}", f"{row.where}: no {self._column}; the table was stripped of its pictures"
            )
        if not (len(cell) <= _LONGEST_POINTER and cell.isdigit()):
            return self._keep(row)
        if cell not in self._known and not self._all_known:
            for other in rows(self._path, self._delimiter):  # it may stand further down
                if isinstance(other, Row) and len(other.cells.get(self._column, "")) > _LONGEST_POINTER:
                    self._keep(other)
            self._all_known = True
        if cell not in self._known:
            raise MalformedError(f"the {self._column} is that of row {cell}, which has none")
        return self._known[cell]

    def _keep(self, row: Row) -> CellImage:
        column, index = list(row.cells).index(self._column), row.cells.get(self._key, "").strip()
        name = digest(row.cells[self._column].strip())
        image = CellImage(self._path, name, row.start, row.length, column, self._delimiter)
        self._known.setdefault(index, image)
        return image
