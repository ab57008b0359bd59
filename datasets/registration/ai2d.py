"""AI2D, test diagrams: one list ``ai2d_test.json``, or the release's ``questions/<image>.json`` and list of images.

A question about letters that replace the labels of a diagram (``abcLabel``) is asked about the image in
``abc_images``, any other about the one in ``images``.
"""

from __future__ import annotations

import os
import string
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find, first
from ..types import BadRecord, DataError, Record
from .formats.files import (
    MalformedError,
    brief,
    build_records,
    decode_text,
    expect,
    image_file,
    named_items,
    place,
    read_json,
    take,
    take_id,
    take_optional,
    whole_number,
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where AI2D lies.

    Attributes:
        root: its folder.
        file: all questions of the test diagrams; read where it exists.
        questions: folder with one file of questions per diagram, in ``root``.
        ids: list of the test diagrams, one number a line, in ``root``.
        images: folders that may hold ``images`` and ``abc_images``, in ``root``; the first one found counts.
    """

    root: str = "ai2d"
    file: str = "ai2d_test.json"
    questions: str = "questions"
    ids: str = "ai2d_test_ids.csv"
    images: tuple[str, ...] = ("ai2d_images", ".")


FIELDS = ("question", "options")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(f"{options.root}/{options.file}", f"{options.root}/{options.questions}")]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    listed = first(roots, f"{options.root}/{options.file}")
    released = first(roots, f"{options.root}/{options.questions}")
    ids = [(f"{options.root}/{options.ids}",)] if released and not listed else []
    return [*ids, tuple(f"{options.root}/{folder}/images" for folder in options.images)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions in the order of the list, or of the list of diagrams."""
    plain, lettered = (
        place(roots, *(f"{options.root}/{folder}/{name}" for folder in options.images))
        for name in ("images", "abc_images")
    )
    listed = next((path for root in roots if (path := root / options.root / options.file).is_file()), None)
    items = _listed(listed) if listed else _released(roots, options)
    return build_records(items, lambda triple: _record(*triple, plain, lettered))


def _listed(path: Path) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Place, and image name, question and the rest, of every entry of the list."""
    for number, item in enumerate(expect(read_json(path), list, path)):
        entry = item if isinstance(item, dict) else {}
        yield f"{path}, entry {number}", (entry.get("imageName"), entry.get("question"), entry.get("metadata"))


def _released(roots: Sequence[Path], options: Options) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """The same from one file per test diagram."""
    places = f"{options.root}/{options.file}", f"{options.root}/{options.questions}"
    folder = find(roots, *reversed(places))
    ids = find(roots, f"{options.root}/{options.ids}")
    try:
        names = [whole_number(line.strip()) for line in decode_text(ids.read_bytes()).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{ids}: cannot be read: {error}") from None
    for name in names:
        path = folder / f"{name}.png.json"
        if not os.path.isfile(path):
            yield f"{ids}, {brief(name)}", (None, None, f"there is no {path}")
            continue
        try:
            content = expect(read_json(path), dict, path)
            questions = expect(content.get("questions"), dict, path, "questions")
        except DataError as error:  # one file of many
            yield f"{ids}, {name}", (None, None, str(error))
            continue
        for question, rest in named_items(questions):
            yield f"{path}, {brief(question)}", (content.get("imageName"), question, rest)


def _record(image: Any, question: Any, rest: Any, plain: Path, lettered: Path) -> Record:
    if image is None and isinstance(rest, str):
        raise MalformedError(rest)
    choices = take(rest, "answerTexts", list)
    if not 2 <= len(choices) <= len(string.ascii_uppercase):
        raise MalformedError(f"expected two or more 'answerTexts', got {brief(choices)}")
    answer = take_optional(rest, "correctAnswer", int)
    if answer is not None and not 0 <= answer < len(choices):
        raise MalformedError(f"'correctAnswer' should be an index into {len(choices)} texts, got {answer}")
    if not isinstance(question, str) or not isinstance(image, str):
        raise MalformedError(f"expected the texts 'imageName' and 'question', got {brief(image)} and {brief(question)}")
    options = {letter: str(text) for letter, text in zip(string.ascii_uppercase, choices, strict=False)}
    folder = lettered if take(rest, "abcLabel", bool) else plain
    return Record(
        id=take_id(rest, "questionId"),
        # The name tells the two images of one diagram apart.
        image=image_file(folder.parent, f"{folder.name}/{image}"),
        fields={
            "question": question,
            "options": "".join(f"{letter}. {text}\n" for letter, text in options.items()),
        },
        target=None if answer is None else string.ascii_uppercase[answer],
        meta={"options": options},
    )
