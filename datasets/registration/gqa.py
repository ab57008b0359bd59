"""GQA: ``<split>_questions.json`` (one object, question id -> record) and ``images/<imageId>.jpg``."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, Record
from .formats.files import (
    build_records,
    expect,
    image_file,
    named_items,
    place,
    read_json,
    take,
    take_id,
    take_optional,
)

# Operations whose text holds one of these only phrase the question; they are no step of reasoning.
_NO_STEP = ("exist", "query: name", "choose name")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where GQA lies.

    Attributes:
        root: its folder.
        file: the questions.
        images: folder of the images, in ``root``.
    """

    root: str = "GQA"
    file: str = "testdev_balanced_questions.json"
    images: str = "images"


FIELDS = ("question",)
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(f"{options.root}/{options.file}", f"{options.root}/questions1.2/{options.file}")]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(f"{options.root}/{options.images}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the balanced questions; the others only serve a consistency measure that cannot be computed on testdev."""
    path = find(roots, f"{options.root}/{options.file}", f"{options.root}/questions1.2/{options.file}")
    images = place(roots, f"{options.root}/{options.images}")
    questions = expect(read_json(path), dict, path)
    items = (
        (f"{path}, question {key}", (key, item))
        for key, item in named_items(questions)
        if not isinstance(item, dict) or item.get("isBalanced") is not False
    )
    return build_records(items, lambda pair: _record(pair[0], pair[1], images))


def _record(key: str, item: Any, images: Path) -> Record:
    question, image = take(item, "question", str), take_id(item, "imageId") + ".jpg"
    answer = take_optional(item, "answer", str)
    return Record(
        id=key,
        image=image_file(images, image),
        fields={"question": question},
        target=answer,
        meta={} if answer is None else _meta(item, question),
    )


def _meta(item: Any, question: str) -> dict[str, Any]:
    """What the official tables group by; test questions come without it."""
    types = take(item, "types", dict)
    groups = take_optional(item, "groups", dict) or {}
    steps = [f"{take(op, 'operation', str)}: {take(op, 'argument', str)}" for op in take(item, "semantic", list)]
    return {
        "structural": take(types, "structural", str),
        "semantic": take(types, "semantic", str),
        "words": len(question.split()),
        "steps": sum(not any(word in step for word in _NO_STEP) for step in steps),
        "global_group": take_optional(groups, "global", str),
    }
