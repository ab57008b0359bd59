"""MMBench in both languages: one table per split, read as a stream.

A question comes several times with its options moved on by one letter; pass ``s`` of question ``i`` has the index
``i + s * 1000000``. The first releases repeat the image in every row, later ones store it once and give the index of
the row that has it.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..roots import find
from ..types import BadRecord, DataError, Record
from .base import Reader
from .formats import tsv
from .formats.files import MalformedError, brief, build_records, leading_options, listed, whole_number

PASS_STRIDE = 1_000_000
_KEPT = ("category", "l2-category", "split", "source")


@dataclass(frozen=True, kw_only=True)
class MmBenchReader(Reader):
    """Where MMBench lies.

    Attributes:
        root: its folder.
        files: names the table has had, the first one found is read.
    """

    prompt_fields: ClassVar[tuple[str, ...]] = ("question", "hint", "context", "options")

    root: str = "MMBench"
    files: tuple[str, ...] = ("mmbench_dev_20230712.tsv",)

    def needed(self) -> list[tuple[str, ...]]:
        """See `Reader.needed`."""
        return [tuple(f"{self.root}/{file}" for file in self.files)]

    def read(self, roots: Sequence[Path]) -> Iterator[Record | BadRecord]:
        """Read every pass of every question, in the order of the table.

        Raises:
            DataError: the table is missing, or lacks ``index`` or ``question``.
        """
        path = find(roots, *(f"{self.root}/{file}" for file in self.files))
        images = tsv.DecodedImages(path)
        bad: list[BadRecord] = []
        for item in build_records(_rows(path, bad), lambda row: _record(row, images)):
            yield from bad
            bad.clear()
            yield item
        yield from bad


def _rows(path: Path, bad: list[BadRecord]) -> Iterator[tuple[str, tsv.TsvRow]]:
    """Rows with the columns that must be there; what is no row is set aside."""
    for row in tsv.rows(path):
        if isinstance(row, tuple):
            bad.append(BadRecord(where=row[0], reason=row[1]))
            continue
        lacking = [name for name in ("index", "question") if name not in row.cells]
        if lacking:
            raise DataError(f"{path}: no column {' and '.join(lacking)}; it has: {listed(row.cells)}")
        yield row.where, row


def _record(row: tsv.TsvRow, images: tsv.DecodedImages) -> Record:
    cells = row.cells
    index = whole_number(cells["index"].strip())
    if not (index.isascii() and index.isdigit()):
        raise MalformedError(f"'index' should be a whole number, got {brief(index)}")
    if not cells["question"].strip():
        raise MalformedError("'question' is empty")
    options = {letter: cells[letter] for letter in string.ascii_uppercase if cells.get(letter)}
    answer = cells.get("answer", "").strip().upper() or None
    if not options or (answer is not None and answer not in options):
        letters = ", ".join(options) or "(there are none)"
        raise MalformedError(f"answer {brief(answer)} is none of the options {letters}")
    hint = cells.get("hint", "")
    return Record(
        id=index,
        image=images.of(row),
        fields={
            "question": cells["question"],
            "hint": hint,
            "context": f"{hint}\n" if hint else "",
            "options": "\n".join(f"{letter}. {text}" for letter, text in leading_options(options).items()),
        },
        target=answer,
        meta={
            "options": options,
            "question": int(index) % PASS_STRIDE,
            "pass": int(index) // PASS_STRIDE,
            **{name: cells[name] for name in _KEPT if cells.get(name)},
        },
    )
