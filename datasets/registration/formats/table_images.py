"""The images of a record in a table: files by their names, what stands in cells, or those of another row."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...types import ImageSource, group_of, sources_of
from .base64_images import is_base64
from .cells import absent, images_in
from .files import MalformedError, MissingImage, image_file, whole_number
from .table_files import FileRecord, Item

_NUMBERED = re.compile(r"image_([1-9]\d?)")


class Gallery:
    """The images of one file.

    Args:
        columns: columns of images; the first that holds some counts.
        folder: of the images that are given by file name.
        pointers: whether a cell of digits may be the index of the row that has the image, not a file name.
        scan: reads the file from its start.
        numbered: whether columns ``image_1``, ``image_2``, ... hold a record's images where none of ``columns`` does.
    """

    def __init__(
        self,
        columns: Sequence[str],
        folder: Path,
        pointers: bool,
        scan: Callable[[], Iterable[Item]],
        numbered: bool = False,
    ) -> None:
        self._columns, self._folder, self._pointers, self._scan = columns, folder, pointers, scan
        self._numbered = numbered

    def columns_in(self, cells: Mapping[str, Any]) -> list[str]:
        """Columns of a record that are for images, in order."""
        present = [column for column in self._columns if column in cells]
        return present or (numbered_columns(cells) if self._numbered else [])

    def of(self, where: str, entry: FileRecord, index: str) -> ImageSource | None:
        """The image of a record; None for one that has none where others do, or where no column is for them.

        Args:
            where: the record's place, for messages.
            entry: the record.
            index: column of the rows' indices.

        Raises:
            MalformedError: a cell holds no image, or names of files next to images; a file's name leads out of the
                folder; or of numbered columns one before the last is empty.
        """
        present = self.columns_in(entry.cells)
        if self._numbered and present and present == numbered_columns(entry.cells):
            if found := _without_gaps(entry.cells, present):
                return group_of(one for column in found for one in sources_of(self._source(entry, column, index)))
        else:
            for column in present:
                if (source := self._source(entry, column, index)) is not None:
                    return source
        if not present or self._any:
            return None
        return MissingImage(where, f"{where}: no {present[0]}; the file was stripped of its images")

    def _source(self, entry: FileRecord, column: str, index: str) -> ImageSource | None:
        """What a cell holds; None for nothing."""
        images = images_in(entry.cells[column])
        pointers = entry.pointers and self._pointers and len(images) == 1
        names = [image.strip() for image in images if isinstance(image, str) and _is_name(image, pointers)]
        if not images:
            return None
        if not names:
            return entry.image(column, index)
        if len(names) < len(images):
            raise MalformedError(f"'{column}' has names of files next to images")
        return group_of(image_file(self._folder, name) for name in names)

    @functools.cached_property
    def _any(self) -> bool:
        """Whether any record of the file has an image."""
        found = (entry.cells for _, entry in self._scan() if isinstance(entry, FileRecord))
        return any(_holds(cells[column]) for cells in found for column in self.columns_in(cells))


def numbered_columns(cells: Mapping[str, Any]) -> list[str]:
    """Columns ``image_1``, ``image_2``, ... of a record, in order."""
    numbers = {int(found[1]): column for column in cells if (found := _NUMBERED.fullmatch(str(column)))}
    return [numbers[number] for number in sorted(numbers)] if 1 in numbers else []


def _without_gaps(cells: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Those of numbered columns that hold something.

    Raises:
        MalformedError: one before the last of them is empty, so that a mark in the question would mean another image.
    """
    held = [column for column in columns if _holds(cells[column])]
    for number, column in enumerate(held, start=1):
        if column != f"image_{number}":
            raise MalformedError(f"has {column}, and no image_{number}")
    return held


def _holds(cell: Any) -> bool:
    """Whether a cell holds something; parquet has objects of nothing in place of an image."""
    return not absent(cell) and not (isinstance(cell, Mapping) and all(map(absent, cell.values())))


def _is_name(text: str, pointers: bool) -> bool:
    """Whether a text is the name of a file: no image, and no index of the row that has it."""
    return not is_base64(text.strip()) and not (pointers and whole_number(text.strip()).isdigit())
