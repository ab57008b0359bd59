"""SEED-Bench: ``SEED-Bench.json`` with all questions, ``SEED-Bench-image/<data_id>`` with the images.

Two image questions of the release share the id 49914. Both are kept: the second one is ``49914#2`` here, and
predictions keyed by the release's id reach it through ``meta["release_id"]``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, ImageSource, Record
from .formats.files import (
    MalformedError,
    MissingImage,
    brief,
    build_records,
    expect,
    image_file,
    place,
    read_json,
    take,
    take_id,
    take_optional,
)

_LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where SEED-Bench lies and what is asked.

    Attributes:
        root: its folder.
        file: all questions.
        images: folder of the images, in ``root``.
        data_types: ``image``, ``video``; videos can be scored, not shown to the model.
    """

    root: str = "SEED-Bench"
    file: str = "SEED-Bench.json"
    images: str = "SEED-Bench-image"
    data_types: tuple[str, ...] = ("image",)


FIELDS = ("question", "options")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(f"{options.root}/{options.file}",)]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(f"{options.root}/{options.images}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions of the asked types, in the order of the file."""
    path = find(roots, f"{options.root}/{options.file}")
    content = expect(read_json(path), dict, path)
    questions = expect(content.get("questions"), list, path, "questions")
    dimensions = {
        str(number): name for name, number in expect(content.get("question_type"), dict, path, "question_type").items()
    }
    images = place(roots, f"{options.root}/{options.images}")
    seen: Counter[str] = Counter()
    items = (
        (f"{path}, questions[{index}]", item)
        for index, item in enumerate(questions)
        if not isinstance(item, dict) or (item.get("data_type") or "image") in options.data_types
    )
    return build_records(items, lambda item: _record(item, images, dimensions, seen))


def _record(item: Any, images: Path, dimensions: dict[str, str], seen: Counter[str]) -> Record:
    release_id = take_id(item, "question_id")
    options = {letter: str(item[key]) for letter in _LETTERS if item.get(key := f"choice_{letter.lower()}") is not None}
    answer = take_optional(item, "answer", str)
    if not options or (answer is not None and answer not in options):
        letters = ", ".join(options) or "(there are none)"
        raise MalformedError(f"answer {brief(answer)} is none of the choices {letters}")
    kind, number = take_optional(item, "data_type", str) or "image", take(item, "question_type_id", int)
    if str(number) not in dimensions:
        raise MalformedError(f"'question_type_id' {number} is not in 'question_type'")
    question, data_id = take(item, "question", str), take(item, "data_id", str)
    seen[release_id] += 1
    return Record(
        id=release_id if seen[release_id] == 1 else f"{release_id}#{seen[release_id]}",
        image=_image(kind, data_id, images),
        fields={"question": question, "options": " ".join(f"{letter}. {text}" for letter, text in options.items())},
        target=answer,
        group=dimensions[str(number)],
        meta={"options": options, "data_type": kind, "dimension": dimensions[str(number)], "release_id": release_id},
    )


def _image(kind: str, data_id: str, images: Path) -> ImageSource:
    if kind == "image":
        return image_file(images, data_id)
    return MissingImage(data_id, f"{data_id}: video questions can be scored, but not shown to the model")
