"""Tables in parquet, as the Hugging Face hub has them: rows without their pictures, and pictures one by one.

A picture column holds the encoded bytes, base64, an object with ``bytes`` and ``path``, or a list of one. Rows need
not be read with it; a `ParquetImage` reads the row group of its row when the picture is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..types import DataError
from .encoded import from_base64

_BATCH = 256  # rows made into Python values at a time; with their pictures they take twice the memory


@dataclass(frozen=True)
class ParquetImage:
    """A picture in a cell of a parquet table.

    Attributes:
        path: the table.
        name: see `ImageSource.name`.
        column: the column of pictures.
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
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise OSError(f"{self.path}: picture {self.name} cannot be read: {error}") from None
        cell = cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if isinstance(content, str):
            return from_base64(content, f"{self.path}: picture {self.name}")
        if not isinstance(content, bytes):
            raise OSError(f"{self.path}: the table has no bytes for picture {self.name}")
        return content


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        where: file and row, for messages.
        cells: column name -> value, without pictures.
        group: its row group.
        index: its index in the group.
    """

    where: str
    cells: dict[str, Any]
    group: int
    index: int


def rows(path: Path, pictures: Sequence[str]) -> Iterator[Row]:
    """Read a table row group by row group.

    Args:
        path: the table.
        pictures: columns to leave out.

    Raises:
        DataError: the file is unreadable or not parquet.
    """
    number = 0
    try:
        table = pq.ParquetFile(path)
        columns = [name for name in table.schema_arrow.names if name not in pictures]
        for group in range(table.num_row_groups):
            batches = table.read_row_group(group, columns=columns).to_batches(max_chunksize=_BATCH)
            for index, cells in enumerate(row for batch in batches for row in batch.to_pylist()):
                yield Row(f"{path}, row {number}", cells, group, index)
                number += 1
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable parquet table: {error}. Was the download cut short?") from None
