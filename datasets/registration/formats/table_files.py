"""Files of records in any of the usual formats, read row by row: JSON, JSON lines, tables with tabs or commas, parquet.

What a row's cells hold is left as the format gives it. An image that stands in a cell is made into an `ImageSource`
that finds it again, so that the images of a large file are not held in memory; JSON alone cannot be read in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs.common.words import did_you_mean

from ...types import DataError, ImageSource
from . import jsonl, parquet, tsv
from .base64_images import EncodedImage, digest
from .cells import single
from .files import MalformedError, listed, named_items, read_json

FORMATS = ("json", "jsonl", "tsv", "csv", "parquet")
_DELIMITERS = {"tsv": "\t", "csv": ","}


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One record of a file.

    Attributes:
        cells: column name -> value.
        key: its name, where the file is an object of records.
        image: makes the source of the image in a cell, from the names of its column and of the rows' index.
        pointers: whether an image may be given as the index of the row that has it, and all cells are text.
    """

    cells: Mapping[str, Any]
    image: Callable[[str, str], ImageSource]
    key: str | None = None
    pointers: bool = False


Item = tuple[str, FileRecord | MalformedError]
"""A place (file and line, row or key) with its record, or with what is wrong there."""


def check_format(name: str, given: str) -> str:
    """The format of a file: what is given, else what its suffix says.

    Raises:
        DataError: the suffix says nothing.
    """
    kind = given or Path(name).suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise DataError(
            f"data.file: the name {name!r} does not tell its format; set data.format: {' | '.join(FORMATS)}"
        )
    return kind


def entries(path: Path, kind: str, records: str = "") -> Iterator[Item]:
    """Read a file record by record.

    Args:
        path: the file.
        kind: one of `FORMATS`; a file said to be JSON may hold one value a line.
        records: dotted path to the list or object of records in JSON; "" is the top level.

    Raises:
        DataError: the file is unreadable or of another format, or has no records there.
    """
    if kind == "parquet":
        return _parquet(path)
    if kind in _DELIMITERS:
        return _separated(path, _DELIMITERS[kind])
    return _lines(path) if kind == "jsonl" or (not records and _is_lines(path)) else _json(path, records)


def _parquet(path: Path) -> Iterator[Item]:
    for where, row in parquet.rows(path, ()):
        if isinstance(row, MalformedError):
            yield where, row
        else:
            yield where, FileRecord(cells=row.cells, image=partial(_parquet_image, path, row))


def _parquet_image(path: Path, row: parquet.ParquetRow, column: str, index: str) -> ImageSource:
    return parquet.ParquetImage(
        path, digest(_content(row.cells[column], column, (str, bytes))), column, row.group, row.index
    )


def _separated(path: Path, delimiter: str) -> Iterator[Item]:
    images: dict[tuple[str, str], tsv.DecodedImages] = {}

    def image(row: tsv.TsvRow, column: str, index: str) -> ImageSource:
        if (column, index) not in images:
            images[column, index] = tsv.DecodedImages(path, column, index, delimiter)
        return images[column, index].of(row)

    for row in tsv.rows(path, delimiter):
        if isinstance(row, tuple):
            yield row[0], MalformedError(row[1])
        else:
            yield row.where, FileRecord(cells=row.cells, image=partial(image, row), pointers=True)


def _lines(path: Path) -> Iterator[Item]:
    for line in jsonl.lines(path):
        try:
            value = jsonl.parse(line.content)
        except MalformedError as error:
            yield line.where, error
            continue
        if isinstance(value, dict):
            yield line.where, FileRecord(cells=value, image=partial(_line_image, path, line, value))
        else:
            yield line.where, MalformedError(f"expected an object, got {type(value).__name__}")


def _line_image(path: Path, line: jsonl.JsonLine, cells: Mapping[str, Any], column: str, index: str) -> ImageSource:
    name = digest(_content(cells[column], column, (str,)))
    return jsonl.LineImage(path, name, line.start, len(line.content), column)


def _is_lines(path: Path) -> bool:
    """Whether a file holds one JSON value a line, as some named .json do.

    Its first line then is a value though it is not the last; or it is the only one, and an object that is no object of
    records.
    """
    lines = jsonl.lines(path)
    first, second = next(lines, None), next(lines, None)
    if first is None or (second is None and first.content.lstrip()[:1] != b"{"):
        return False
    try:
        value = jsonl.parse(first.content)
    except MalformedError:
        return False
    return second is not None or not all(isinstance(v, Mapping) for v in value.values())


def _json(path: Path, records: str) -> Iterator[Item]:
    found = _descend(read_json(path), records, path)
    named = (
        named_items(found) if isinstance(found, dict) else ((str(number), value) for number, value in enumerate(found))
    )
    for name, value in named:
        where = f"{path}, {records or 'record'}[{listed([name])}]"
        if isinstance(value, dict):
            key = name if isinstance(found, dict) else None
            yield where, FileRecord(cells=value, key=key, image=partial(_json_image, where, value))
        else:
            yield where, MalformedError(f"expected an object, got {type(value).__name__}")


def _json_image(where: str, cells: Mapping[str, Any], column: str, index: str) -> ImageSource:
    text = _content(cells[column], column, (str,))
    return EncodedImage(where, digest(text), str(text))


def _descend(content: Any, records: str, path: Path) -> list[Any] | dict[str, Any]:
    """The list or object of records at a dotted path."""
    for part in records.split(".") if records else ():
        if not isinstance(content, dict) or part not in content:
            known = list(content) if isinstance(content, dict) else []
            hint = did_you_mean(part, known, n=1)
            raise DataError(
                f"{path}: data.records is '{records}', but there is no '{part}'{hint} {_described(content)}"
            )
        content = content[part]
    place = f"at '{records}' (data.records)" if records else "at the top; data.records may name where they are"
    if not isinstance(content, (list, dict)):
        raise DataError(f"{path}: expected a list or an object of records {place}. {_described(content)}")
    needed = any if records else all  # where the place was declared, some may be corrupt
    if isinstance(content, dict) and content and not needed(isinstance(value, dict) for value in content.values()):
        raise DataError(f"{path}: the object {place} holds other things than records. {_described(content)}")
    return content


def _described(content: Any) -> str:
    if isinstance(content, dict):
        return f"It has: {listed(content)}"
    return f"There is {type(content).__name__} instead of an object."


def _content(cell: Any, column: str, kinds: tuple[type, ...]) -> str | bytes:
    """The encoded image of a cell.

    Raises:
        MalformedError: there are several, or something else.
    """
    content = single(cell)
    if not isinstance(content, (str, bytes)) or not isinstance(content, kinds):
        raise MalformedError(f"'{column}' should be an image: its file's name or base64, got {type(content).__name__}")
    return content.strip() if isinstance(content, str) else content
