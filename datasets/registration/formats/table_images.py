"""The image of a record in a table: a file by its name, what stands in the cell, or that of another row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...types import ImageGroup, ImageSource
from .base64_images import is_base64
from .cells import absent, as_list, single
from .files import MissingImage, image_file, whole_number
from .table_files import FileRecord, Item


class Gallery:
    """The images of one file.

    Args:
        columns: columns of images; the first that holds one counts.
        folder: of the images that are given by file name.
        pointers: whether a cell of digits may be the index of the row that has the image, not a file name.
        scan: reads the file from its start.
    """

    def __init__(
        self, columns: Sequence[str], folder: Path, pointers: bool, scan: Callable[[], Iterable[Item]]
    ) -> None:
        self._columns, self._folder, self._pointers, self._scan = columns, folder, pointers, scan

    def of(self, where: str, entry: FileRecord, index: str) -> ImageSource | None:
        """The image of a record; None for one that has none where others do, or where no column is for them.

        Args:
            where: the record's place, for messages.
            entry: the record.
            index: column of the rows' indices.

        Raises:
            MalformedError: the cell holds several images or none, or its file's name leads out of the folder.
        """
        present = [column for column in self._columns if column in entry.cells]
        for column in present:
            if several := _several_files(entry.cells[column]):
                return ImageGroup(tuple(image_file(self._folder, name) for name in several))
            if (cell := single(entry.cells[column])) is not None:
                return self._source(entry, column, cell, index)
        if not present or self._any:
            return None
        return MissingImage(where, f"{where}: no {present[0]}; the file was stripped of its images")

    def _source(self, entry: FileRecord, column: str, cell: Any, index: str) -> ImageSource:
        if isinstance(cell, str):
            name = cell.strip()
            pointer = whole_number(name).isdigit() and entry.pointers and self._pointers
            if not pointer and not is_base64(name):
                return image_file(self._folder, name)
        return entry.image(column, index)

    @functools.cached_property
    def _any(self) -> bool:
        """Whether any record of the file has an image."""
        found = (entry.cells for _, entry in self._scan() if isinstance(entry, FileRecord))
        return any(not absent(cells.get(column)) for cells in found for column in self._columns)


def _several_files(cell: Any) -> list[str]:
    """Names of the files in a cell that holds several; nothing for any other cell."""
    items = as_list(cell)
    if items is None or len(items) < 2 or not all(isinstance(item, str) and not is_base64(item) for item in items):
        return []
    return [item.strip() for item in items]
