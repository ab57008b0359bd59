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
from typing import Any, ClassVar

from ..roots import find, first_existing
from ..types import BadRecord, DataError, Record
from .base import Reader
from .formats.files import (
    MalformedError,
    brief,
    build_records,
    decode_text,
    expect,
    expected_path,
    image_file,
    named_items,
    read_json,
    take,
    take_id,
    take_optional,
    whole_number,
)


@dataclass(frozen=True, kw_only=True)
class Ai2dReader(Reader):
    """Where AI2D lies.

    Attributes:
        root: its folder.
        file: all questions of the test diagrams; read where it exists.
        questions: folder with one file of questions per diagram, in ``root``.
        ids: list of the test diagrams, one number a line, in ``root``.
        images: folders that may hold ``images`` and ``abc_images``, in ``root``; the first one found counts.
    """

    prompt_fields: ClassVar[tuple[str, ...]] = ("question", "options")

    root: str = "ai2d"
    file: str = "ai2d_test.json"
    questions: str = "questions"
    ids: str = "ai2d_test_ids.csv"
    images: tuple[str, ...] = ("ai2d_images", ".")

    def needed(self) -> list[tuple[str, ...]]:
        """See `Reader.needed`."""
        return [(f"{self.root}/{self.file}", f"{self.root}/{self.questions}")]

    def besides(self, roots: Sequence[Path], fields: Container[str]) -> list[tuple[str, ...]]:
        """See `Reader.besides`."""
        listed = first_existing(roots, f"{self.root}/{self.file}")
        released = first_existing(roots, f"{self.root}/{self.questions}")
        ids = [(f"{self.root}/{self.ids}",)] if released and not listed else []
        return [*ids, tuple(f"{self.root}/{folder}/images" for folder in self.images)]

    def read(self, roots: Sequence[Path]) -> Iterator[Record | BadRecord]:
        """Read the questions in the order of the list, or of the list of diagrams."""
        plain, lettered = (
            expected_path(roots, *(f"{self.root}/{folder}/{name}" for folder in self.images))
            for name in ("images", "abc_images")
        )
        listed = next((path for root in roots if (path := root / self.root / self.file).is_file()), None)
        items = _listed(listed) if listed else self._released(roots)
        return build_records(items, lambda triple: _record(*triple, plain, lettered))

    def _released(self, roots: Sequence[Path]) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
        """The same from one file per test diagram."""
        places = f"{self.root}/{self.file}", f"{self.root}/{self.questions}"
        folder = find(roots, *reversed(places))
        ids = find(roots, f"{self.root}/{self.ids}")
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


def _listed(path: Path) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Place, and image name, question and the rest, of every entry of the list."""
    for number, item in enumerate(expect(read_json(path), list, path)):
        entry = item if isinstance(item, dict) else {}
        yield f"{path}, entry {number}", (entry.get("imageName"), entry.get("question"), entry.get("metadata"))


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
