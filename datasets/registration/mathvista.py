"""MathVista, testmini: the hub's parquet table, or ``testmini.json`` with ``query.json``; ``images/<pid>.jpg``.

``query`` is the prompt as the authors build it: a hint on the form of the answer, the question with its unit, the
choices. Where no file has it, records have no ``query`` field: answers can be scored, and a prompt that names
``{query}`` says that it is missing.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..roots import find, first_existing
from ..types import BadRecord, ImageSource, Record
from .base import Reader
from .formats import parquet
from .formats.files import (
    MalformedError,
    as_id,
    brief,
    build_records,
    expect,
    expected_path,
    image_file,
    named_items,
    read_json,
    take,
    take_id,
    take_optional,
)

_IMAGES = "decoded_image"
_QUESTION_TYPES = ("multi_choice", "free_form")
_ANSWER_TYPES = ("text", "integer", "float", "list")
_METADATA = ("language", "source", "category", "task", "context", "grade")


@dataclass(frozen=True, kw_only=True)
class MathVistaReader(Reader):
    """Where MathVista lies.

    Attributes:
        root: its folder.
        files: names of the table of problems, the first one found is read.
        queries: names of the file of prompts for a table that lacks them.
        images: folder of ``images/<pid>.jpg``, in ``root``; the table's own images serve where a file is missing.
    """

    prompt_fields: ClassVar[tuple[str, ...]] = ("question", "query")

    root: str = "MathVista"
    files: tuple[str, ...] = (
        "testmini-00000-of-00001-725687bf7a18d64b.parquet",
        "data/testmini-00000-of-00001-725687bf7a18d64b.parquet",
        "testmini.json",
        "data/testmini.json",
    )
    queries: tuple[str, ...] = ("query.json", "data/query.json", "query_testmini.json")
    images: str = "."

    def needed(self) -> list[tuple[str, ...]]:
        """See `Reader.needed`."""
        return [tuple(f"{self.root}/{file}" for file in self.files)]

    def besides(self, roots: Sequence[Path], fields: Container[str]) -> list[tuple[str, ...]]:
        """See `Reader.besides`."""
        table = first_existing(roots, *(f"{self.root}/{file}" for file in self.files))
        if table is None or table.suffix == ".parquet":  # it holds the images too
            return []
        return [(f"{self.root}/{self.images}/images",)]

    def read(self, roots: Sequence[Path]) -> Iterator[Record | BadRecord]:
        """Read the problems in the order of the table."""
        path = find(roots, *(f"{self.root}/{file}" for file in self.files))
        folder = expected_path(roots, f"{self.root}/{self.images}/images").parent
        if path.suffix == ".parquet":
            return build_records(parquet.rows(path, [_IMAGES]), lambda row: _table_record(row, path, folder))
        queries = self._queries(roots)
        items = (
            (f"{path}, problem {pid}", (pid, problem))
            for pid, problem in named_items(expect(read_json(path), dict, path))
        )
        return build_records(items, lambda pair: _file_record(*pair, queries, folder))

    def _queries(self, roots: Sequence[Path]) -> Mapping[str, Any]:
        path = next((p for name in self.queries for root in roots if (p := root / self.root / name).is_file()), None)
        return expect(read_json(path), dict, path) if path else {}


def _file_record(pid: str, problem: Any, queries: Mapping[str, Any], folder: Path) -> Record:
    given = take_optional(problem, "pid", object)
    if given is not None and as_id(given) != pid:
        raise MalformedError(f"'pid' is {brief(given)}, but the problem stands under {pid!r}")
    query = take_optional(problem, "query", str)
    return _record(
        {**problem, "pid": pid},
        queries.get(pid) if query is None else query,
        _image(take(problem, "image", str), folder),
    )


def _image(name: str, folder: Path) -> ImageSource:
    return image_file(folder, name)


def _table_record(row: parquet.ParquetRow, path: Path, folder: Path) -> Record:
    return _record(row.cells, row.cells.get("query"), _cell(row, path, folder))


def _cell(row: parquet.ParquetRow, path: Path, folder: Path) -> ImageSource:
    """The image's file, else the cell of the table."""
    name = take(row.cells, "image", str)
    file = image_file(folder, name)
    return file if os.path.isfile(file.path) else parquet.ParquetImage(path, name, _IMAGES, row.group, row.index)


def _record(problem: Mapping[str, Any], query: Any, image: ImageSource) -> Record:
    question_type, answer_type = take(problem, "question_type", str), take(problem, "answer_type", str)
    if question_type not in _QUESTION_TYPES or answer_type not in _ANSWER_TYPES:
        raise MalformedError(f"unknown kind of question: {brief(question_type)} with {brief(answer_type)} answer")
    choices = take_optional(problem, "choices", list) or []
    if question_type == "multi_choice" and not choices:
        raise MalformedError("a multiple-choice problem without 'choices'")
    if query is not None and not isinstance(query, str):
        raise MalformedError(f"its prompt should be a text, got {brief(query)}")
    return Record(
        id=take_id(problem, "pid"),
        image=image,
        fields={"question": take(problem, "question", str), **({} if query is None else {"query": query})},
        target=take_optional(problem, "answer", str) or None,
        group=question_type,
        meta={
            "question_type": question_type,
            "answer_type": answer_type,
            "choices": [str(choice) for choice in choices],
            "precision": _precision(problem),
            **_groups(take_optional(problem, "metadata", dict) or {}),
        },
    )


def _precision(problem: Mapping[str, Any]) -> int | None:
    """Decimals of the answer, which tables with missing values hold as a float."""
    value = problem.get("precision")
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise MalformedError(f"'precision' should be a whole number, got {brief(value)}")
    return int(value)


def _groups(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the score is reported by; skills are a list."""
    skills = metadata.get("skills")
    if skills is not None and not isinstance(skills, list):
        raise MalformedError(f"'skills' should be a list, got {brief(skills)}")
    return {**{name: str(metadata.get(name) or "") for name in _METADATA}, "skills": [str(s) for s in skills or []]}
