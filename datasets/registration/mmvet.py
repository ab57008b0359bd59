"""MM-Vet: ``mm-vet.json`` with questions, reference answers and capabilities, ``images/<imagename>``.

Earlier users of this code have ``llava-mm-vet.json``, which holds the questions alone: they can be asked, not graded.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, DataError, Record
from .formats.files import (
    MalformedError,
    brief,
    build_records,
    image_file,
    named_items,
    place,
    read_json,
    take,
    take_id,
    take_optional,
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where MM-Vet lies.

    Attributes:
        root: its folder.
        files: names of the file of questions, the first one found is read.
        images: folder of the images, in ``root``.
    """

    root: str = "mm-vet"
    files: tuple[str, ...] = ("mm-vet.json", "llava-mm-vet.json")
    images: str = "images"


FIELDS = ("question",)
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [tuple(f"{options.root}/{file}" for file in options.files)]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(f"{options.root}/{options.images}",)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions in the order of the file."""
    path = find(roots, *(f"{options.root}/{file}" for file in options.files))
    images = place(roots, f"{options.root}/{options.images}")
    content = read_json(path)
    if isinstance(content, dict):
        graded = ((f"{path}, {key}", (key, item)) for key, item in named_items(content))
        return build_records(graded, lambda pair: _record(*pair, images))
    if isinstance(content, list):
        plain = ((f"{path}, entry {number}", item) for number, item in enumerate(content))
        return build_records(plain, lambda item: _plain_record(item, images))
    raise DataError(f"{path}: expected an object or a list at the top, got {type(content).__name__}")


def _record(key: str, item: Any, images: Path) -> Record:
    capabilities = take_optional(item, "capability", list) or []
    if not all(isinstance(name, str) for name in capabilities):
        raise MalformedError(f"'capability' should be a list of texts, got {brief(capabilities)}")
    return Record(
        id=key,
        image=image_file(images, take(item, "imagename", str)),
        fields={"question": take(item, "question", str)},
        target=take_optional(item, "answer", str) or None,
        meta={"capability": list(dict.fromkeys(capabilities))},
    )


def _plain_record(item: Any, images: Path) -> Record:
    """An entry of the list without answers; its number makes the official id."""
    return Record(
        id=f"v1_{take_id(item, 'question_id')}",
        image=image_file(images, take(item, "image", str)),
        fields={"question": take(item, "text", str)},
        target=None,
        meta={"capability": []},
    )
