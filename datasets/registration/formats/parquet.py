"""Tables in parquet, as the Hugging Face hub has them: rows without their images, and images one by one.

An image column holds the encoded bytes, base64, an object with ``bytes`` and ``path``, or a list of one. Rows need
not be read with it; a `ParquetImage` reads the row group of its row when the image is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...types import DataError
from .base64_images import from_base64
from .files import MalformedError

_BATCH = 256  # rows made into Python values at a time; with their images they take twice the memory


@dataclass(frozen=True)
class ParquetImage:
    """An image in a cell of a parquet table.

    Attributes:
        path: the table.
        name: see `ImageSource.name`.
        column: the column of images.
        group: the row group that holds the row.
        row: index in that group.
    """

    path: Path
    name: str
    column: str
    group: int
    row: int

    def read(self) -> bytes:
        """See `ImageSource.read`."""
        try:
            table = pq.ParquetFile(self.path).read_row_group(self.group, columns=[self.column])
            cell = table.column(self.column)[self.row].as_py()
        except (pa.ArrowException, ValueError, OverflowError, KeyError, IndexError) as error:
            raise OSError(f"{self.path}: image {self.name} cannot be read: {error}") from None
        cell = cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if isinstance(content, str):
            return from_base64(content, f"{self.path}: image {self.name}")
        if not isinstance(content, bytes):
            raise OSError(f"{self.path}: the table has no bytes for image {self.name}")
        return content


@dataclass(frozen=True)
class ParquetRow:
    """One row of a table.

    Attributes:
        where: file and row, for messages.
        cells: column name -> value, without images.
        group: its row group.
        index: its index in the group.
    """

    where: str
    cells: dict[str, Any]
    group: int
    index: int


def rows(path: Path, images: Sequence[str]) -> Iterator[tuple[str, ParquetRow | MalformedError]]:
    """Read a table row group by row group.

    Args:
        path: the table.
        images: columns to leave out.

    Yields:
        the place of a row with its cells, or with what is wrong: a cell that is no value of its column's type, or a
        row group that is damaged, which costs all its rows.

    Raises:
        DataError: the file is unreadable or not parquet.
    """
    try:
        table = pq.ParquetFile(path)
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        columns = [name for name in table.schema_arrow.names if name not in images]
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable parquet table: {error}. Was the download cut short?") from None
    number = 0
    for group, size in enumerate(sizes):
        for index, cells in enumerate(_group(table, group, columns, size)):
            where = f"{path}, row {number}"
            yield where, cells if isinstance(cells, MalformedError) else ParquetRow(where, cells, group, index)
            number += 1


def _group(
    table: pq.ParquetFile, group: int, columns: Sequence[str], size: int
) -> Iterator[dict[str, Any] | MalformedError]:
    """Cells of the rows of a group."""
    try:
        batches = table.read_row_group(group, columns=list(columns)).to_batches(max_chunksize=_BATCH)
    except _UNREADABLE as error:
        yield from [MalformedError(f"its row group, {size} rows, cannot be read: {error}")] * size
        return
    for batch in batches:
        try:
            yield from batch.to_pylist()
        except _UNREADABLE:  # some cell of these rows
            yield from (_cells(batch, index) for index in range(batch.num_rows))


def _cells(batch: pa.RecordBatch, index: int) -> dict[str, Any] | MalformedError:
    """Cells of one row."""
    cells = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            cells[name] = column[index].as_py()
        except _UNREADABLE as error:
            return MalformedError(f"'{name}' cannot be read: {error}")
    return cells


_UNREADABLE = (OSError, pa.ArrowException, ValueError, OverflowError)
"""What pyarrow raises on damaged files, and on values that Python has no type for."""
