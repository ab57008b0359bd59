"""VLMEvalKit's result tables: ``<model>_<dataset>.xlsx``, ``.tsv`` or ``.csv`` with the columns index and prediction.

Next to these a table has what the dataset's table had: question, answer, category, options A, B, ...; images are left
out. An empty cell is an empty reply. Source: ``vlmeval/inference.py`` and ``vlmeval/smp/file.py`` of the tool.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from datasets.registration.formats import tsv
from datasets.types import DataError

from .row import ResultFile, ResultRow, texts

TOOL = "VLMEvalKit's result table"
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_NEEDED = ("index", "prediction")
_FAILED = "Failed to obtain answer via API"
"""What the tool writes in place of a reply that it did not get."""


def read(path: Path) -> ResultFile | None:
    """Read a table; None for a file with another suffix.

    Raises:
        DataError: it is unreadable, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in (".xlsx", *_DELIMITERS) or path.is_dir():
        return None
    found = _sheet(path) if suffix == ".xlsx" else _separated(path, _DELIMITERS[suffix])
    return ResultFile(tool=TOOL, rows=[_row(where, _named(cells, path)) for where, cells in found])


def _named(cells: Mapping[str, str], path: Path) -> dict[str, str]:
    """Cells by the names of their columns, in lower case but for the letters of options.

    Raises:
        DataError: a column is missing.
    """
    named = {name if len(name) == 1 else name.lower(): value for name, value in cells.items()}
    lacking = [name for name in _NEEDED if name not in named]
    if lacking:
        raise DataError(
            f"{path}: no column {' and '.join(lacking)}; a table of replies needs {' and '.join(_NEEDED)}, as "
            f"VLMEvalKit writes it. It has: {', '.join(cells)}"
        )
    return named


def _row(where: str, cells: Mapping[str, str]) -> ResultRow:
    reply = cells["prediction"]
    failed = _FAILED in reply
    return ResultRow(
        where=where,
        reply=None if failed else reply,
        error=reply.strip() if failed else None,
        ids=texts([cells["index"]]),
        question=cells.get("question", ""),
        image=cells.get("image_path", ""),
        groups=texts(part for name in ("category", "split") for part in cells.get(name, "").split(",")),
        options={letter: cells[letter] for letter in string.ascii_uppercase if cells.get(letter, "").strip()},
        target=cells.get("answer", ""),
    )


def _separated(path: Path, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    for row in tsv.rows(path, delimiter):
        if isinstance(row, tuple):
            raise DataError(f"{row[0]}: {row[1]}")
        yield row.where, {name.strip(): value for name, value in row.cells.items()}


def _sheet(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a workbook's first sheet; a reply that begins with "=" is text and no formula.

    Raises:
        DataError: it is no such file, or has no rows.
    """
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True)
        rows = [[_text(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)]
    except (OSError, BadZipFile, KeyError, ValueError, IndexError, TypeError, SyntaxError) as error:
        raise DataError(f"{path}: not a readable .xlsx workbook ({error})") from None
    if not rows:
        raise DataError(f"{path}: its first sheet is empty")
    header = [name.strip() for name in rows[0]]
    for number, cells in enumerate(rows[1:], start=2):
        if any(cells):
            padded = [*cells, *[""] * (len(header) - len(cells))]
            yield f"{path}, row {number}", dict(zip(header, padded, strict=False))


def _text(cell: Any) -> str:
    """A cell as the tool meant it: a whole number that the format keeps as 5.0 is 5."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
