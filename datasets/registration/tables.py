"""Any benchmark whose questions stand in records with named columns: what a declaration says is all there is to it.

Files are JSON, JSON lines, tables with tabs or commas, or parquet; VLMEvalKit's tables (``index``, ``question``,
``hint``, ``A``, ``B``, ..., ``answer``, ``image``) need no word about their columns. `TableReader` says what can
be declared.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from configs.common.words import did_you_mean

from ..roots import find
from ..types import BadRecord, DataError, Record
from .base import Reader
from .formats.cells import CHOICES, absent, as_text, options_of, target_of
from .formats.files import MalformedError, build_records, expected_path, listed, whole_number
from .formats.table_files import FileRecord, Item, check_format, entries
from .formats.table_images import Gallery

_COLUMNS = ("id", "question", "image", "answer", "options", "group", "hint")
_IDS = ("index", "question_id", "id")
_IMAGES = ("image", "image_path")
_SPLIT = "{split}"
_LONGEST_KEPT = 200
"""Characters; what is longer is no category."""


@dataclass(frozen=True, kw_only=True)
class TableReader(Reader):
    """What to read, and how.

    Attributes:
        file: the file of records; ``{split}`` stands for a split's name.
        splits: the splits to read; each is the group of its records and leads their ids.
        format: json, jsonl, tsv, csv or parquet, where the file's suffix does not tell.
        records: dotted path to the list or object of records in JSON; the keys of an object are ids.
        images: folder of the images where records hold file names (also with ``{split}``); that of the file if "".
        columns: our names -> theirs, for ``id``, ``question``, ``image``, ``answer``, ``options``, ``group``, ``hint``.
            What is left out is looked for under our own name, ``id`` as ``index``, ``question_id`` and ``id``, else
            as the key or number of the record; ``image`` also as ``image_path``; and options as A, B, C, ...
        answer: how answers are written. Options are chosen by letter, by index from 0 or by their own text; "" is a
            letter or the text of an option where a question has options, else a text or a list of accepted ones.
        keep: columns for the scorer to report by or use, under their names in a record's ``meta``; short texts and
            numbers of all columns that have no other use if none are named.
    """

    file: str
    splits: tuple[str, ...] = ()
    format: Literal["", "json", "jsonl", "tsv", "csv", "parquet"] = ""
    records: str = ""
    images: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    answer: Literal["", "text", "yes_no", "letter", "index", "option", "list", "box"] = ""
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if bool(self.splits) != (_SPLIT in self.file):
            raise DataError(f"data.file takes {_SPLIT} where data.splits lists them, and only there: {self.file!r}")
        if self.records and check_format(self.file, self.format) != "json":
            raise DataError(f"data.records is for files of JSON; {self.file!r} is read from its first line")
        for name in self.columns:
            if name not in _COLUMNS:
                hint = did_you_mean(name, _COLUMNS, n=1, otherwise=";")
                raise DataError(f"data.columns: unknown '{name}'{hint} it takes {', '.join(_COLUMNS)}: ours: theirs")

    def needed(self) -> list[tuple[str, ...]]:
        """Files that must be there, each with the places that are taken for it.

        Raises:
            DataError: nothing tells their format.
        """
        check_format(self.file, self.format)
        return [(self.file.replace(_SPLIT, split),) for split in self.splits or ("",)]

    def besides(self, roots: Sequence[Path], fields: Container[str]) -> list[tuple[str, ...]]:
        """See `Reader.besides`."""
        folders = (self.images.replace(_SPLIT, split) for split in self.splits or ("",)) if self.images else ()
        return [(folder,) for folder in dict.fromkeys(folders)]

    def read(self, roots: Sequence[Path]) -> Iterator[Record | BadRecord]:
        """Read every record of every split, in order.

        Raises:
            DataError: a file is missing or of another format, or has no column that the declaration names.
        """
        tables = [_Table(split, roots, self) for split in self.splits or ("",)]
        yield from build_records((item for table in tables for item in table.items()), lambda build: build())
        self._check_columns(tables)

    def _check_columns(self, tables: Sequence[_Table]) -> None:
        """Refuse a declaration that names a column which no record of no file has."""
        paths, columns = ", ".join(str(table.path) for table in tables), [c for table in tables for c in table.columns]
        if not columns:
            faults = "".join(table.fault for table in tables)
            raise DataError(f"{paths}: no records that can be read{faults}")
        named = {f"data.columns.{name}": column for name, column in {"question": "question", **self.columns}.items()}
        named.update({f"data.keep[{number}]": column for number, column in enumerate(self.keep)})
        known = listed(dict.fromkeys(columns))
        for key, column in named.items():
            if column not in columns:
                hint = did_you_mean(column, columns, n=1)
                deeper = ". If records stand deeper in the file, data.records says where" if tables[0].is_json else ""
                raise DataError(f"{key}: no record of {paths} has '{column}'{hint} There are: {known}{deeper}")
        if self.answer in CHOICES and not any(table.has_options for table in tables):
            raise DataError(
                f"data.answer: '{self.answer}' is one of a question's options, but {paths} has none. Name their column "
                f"in data.columns.options, or have them in columns A, B, C, ... There are: {known}"
            )


class _Table:
    """One file: builds its records and remembers what columns they have."""

    def __init__(self, split: str, roots: Sequence[Path], reader: TableReader) -> None:
        self.path = find(roots, reader.file.replace(_SPLIT, split))
        self._format = check_format(self.path.name, reader.format)
        folder = expected_path(roots, reader.images.replace(_SPLIT, split)) if reader.images else self.path.parent
        columns = (reader.columns["image"],) if "image" in reader.columns else _IMAGES
        self._gallery = Gallery(columns, folder, not reader.images, self._entries)
        self._split, self._reader = split, reader
        self._id_column: str | None = reader.columns.get("id")
        self.columns: dict[str, None] = {}
        self.has_options = False
        self.fault = ""

    @property
    def is_json(self) -> bool:
        """Whether records may stand deeper in the file."""
        return self._format == "json" and not self._reader.records

    def _entries(self) -> Iterator[Item]:
        return entries(self.path, self._format, self._reader.records)

    def items(self) -> Iterator[tuple[str, Callable[[], Record]]]:
        """Place of every record and a function that builds it."""
        for position, (where, entry) in enumerate(self._entries()):
            if isinstance(entry, FileRecord):
                self._learn(entry)
            else:
                self.fault = self.fault or f". The first one, {where}: {entry}"
            yield where, functools.partial(self._record, where, entry, position)

    def _learn(self, entry: FileRecord) -> None:
        if not self.columns and entry.key is None and self._id_column is None:
            self._id_column = next((name for name in _IDS if name in entry.cells), None)
        self.columns.update(dict.fromkeys(entry.cells))

    @property
    def _named(self) -> set[str]:
        """Columns that the declaration gives a use."""
        return {*self._reader.columns.values()}

    def _column(self, name: str) -> str:
        return self._reader.columns.get(name, name)

    def _record(self, where: str, entry: FileRecord | MalformedError, position: int) -> Record:
        if isinstance(entry, MalformedError):
            raise entry
        cells, name = entry.cells, self._id(entry, position)
        choices = options_of(cells, self._column("options"), self._named)
        self.has_options = self.has_options or bool(choices)
        answer = self._column("answer")
        return Record(
            id=f"{self._split}/{name}" if self._split else name,
            image=self._gallery.of(where, entry, self._index(cells)),
            fields=self._fields(cells, choices),
            target=target_of(cells.get(answer), self._reader.answer, choices, answer),
            group=self._group(cells),
            meta={
                **{column: cells[column] for column in self._kept(cells) if not absent(cells.get(column))},
                **({"options": choices} if choices else {}),
            },
        )

    def _kept(self, cells: Mapping[str, Any]) -> Sequence[str]:
        """Columns for the scorer."""
        if self._reader.keep:
            return self._reader.keep
        used = {self._column(name) for name in _COLUMNS} | {*_IDS, *_IMAGES, *string.ascii_uppercase}
        short = (str, int, float)
        return [c for c, v in cells.items() if c not in used and isinstance(v, short) and len(str(v)) <= _LONGEST_KEPT]

    def _id(self, entry: FileRecord, position: int) -> str:
        if self._id_column is None:
            return str(position) if entry.key is None else entry.key
        name = _needed(entry.cells, self._id_column).strip()
        return whole_number(name) if entry.pointers else name

    def _index(self, cells: Mapping[str, Any]) -> str:
        """The column that rows are pointed to by."""
        return _IDS[0] if _IDS[0] in cells else self._id_column or ""

    def _group(self, cells: Mapping[str, Any]) -> str:
        """The declared column, else the split, else a column of that name."""
        if self._split and "group" not in self._reader.columns:
            return self._split
        value = cells.get(column := self._column("group"))
        return "" if absent(value) else as_text(value, column)

    def _fields(self, cells: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, str]:
        """What the prompt may name: every column of texts or numbers, and ours."""
        named = {
            column: "" if absent(value) else as_text(value, column)
            for column, value in cells.items()
            if absent(value) or isinstance(value, (str, int, float))
        }
        for column in (*_IMAGES, self._column("image")):
            named.pop(column, None)  # an image is no text, and long
        named["question"] = _needed(cells, self._column("question"))
        hint = named["hint"] = named.get(self._column("hint"), "")
        if hint or "context" not in named:
            named["context"] = f"{hint}\n" if hint else ""
        if choices or "options" not in named:
            named["options"] = "\n".join(f"{letter}. {text}" for letter, text in choices.items())
        return named


def _needed(cells: Mapping[str, Any], column: str) -> str:
    """A text or number that must be there."""
    if column not in cells:
        raise MalformedError(f"lacks '{column}'; it has: {listed(cells)}")
    if absent(cells[column]) or not (text := as_text(cells[column], column)).strip():
        raise MalformedError(f"'{column}' is empty")
    return text
