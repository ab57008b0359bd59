"""Q-Bench (LLVisionQA): ``llvisionqa_dev.json``, a list in which the position is the id; ``images/<img_path>``.

``type`` is 0 yes-or-no, 1 what, 2 how; ``concern`` is 0 distortion, 1 other, and 2 and 3 the same in context.
"""

from __future__ import annotations

import string
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, Record
from .formats.files import (
    MalformedError,
    brief,
    build_records,
    expect,
    image_file,
    place,
    read_json,
    take,
    take_optional,
)

_TYPES = ("yes-or-no", "what", "how")
_CONCERNS = ("distortion", "other", "in-context distortion", "in-context other")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where LLVisionQA lies.

    Attributes:
        root: its folder.
        file: the questions of a split.
        images: folder of the images, in ``root``.
    """

    root: str = "LLVisionQA-QBench"
    file: str = "llvisionqa_dev.json"
    images: str = "images"


FIELDS = ("question", "options")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(f"{options.root}/{options.file}",)]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(f"{options.root}/{options.images}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions in the order of the file."""
    path = find(roots, f"{options.root}/{options.file}")
    questions = expect(read_json(path), list, path)
    images = place(roots, f"{options.root}/{options.images}")
    items = ((f"{path}, entry {number}", (number, item)) for number, item in enumerate(questions))
    return build_records(items, lambda pair: _record(*pair, images))


def _record(number: int, item: Any, images: Path) -> Record:
    candidates = take(item, "candidates", list)
    if not 2 <= len(candidates) <= len(string.ascii_uppercase) or not all(isinstance(c, str) for c in candidates):
        raise MalformedError(f"expected a list of two or more candidates, each a text, got {brief(candidates)}")
    answer = take_optional(item, "correct_ans", str)
    if answer is not None and answer not in candidates:
        raise MalformedError(f"'correct_ans' {brief(answer)} is none of the candidates {brief(candidates)}")
    options = dict(zip(string.ascii_uppercase, candidates, strict=False))
    return Record(
        id=str(number),
        image=image_file(images, take(item, "img_path", str)),
        fields={
            "question": take(item, "question", str),
            "options": "".join(f"{letter}. {text}\n" for letter, text in options.items()),
        },
        target=None if answer is None else string.ascii_uppercase[candidates.index(answer)],
        meta={"options": options, "type": _name(item, "type", _TYPES), "concern": _name(item, "concern", _CONCERNS)},
    )


def _name(item: Any, key: str, names: Sequence[str]) -> str:
    number = take_optional(item, key, int)
    if number is not None and not 0 <= number < len(names):
        raise MalformedError(f"'{key}' should be 0 to {len(names) - 1}, got {number}")
    return "" if number is None else names[number]
