"""HallusionBench: ``HallusionBench.json``, images in ``hallusion_bench/<category>/<subcategory>/``.

A question belongs to a set; a set has several figures (number 0 is the original one, or no image at all) about which
the same questions are asked. ``category_subcategory_set_figure_question`` is the id. Some images on disk have their
extension in the other case than the list says.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..roots import find
from ..types import BadRecord, ImageFile, Record
from .formats.files import (
    MalformedError,
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

_KEY = ("category", "subcategory", "set_id", "figure_id", "question_id")
_CATEGORIES = ("VD", "VS")
_VISUAL_INPUTS = ("0", "1", "2")
_ANSWERS = {"0": "no", "1": "yes"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where HallusionBench lies.

    Attributes:
        root: its folder.
        file: the questions.
        images: folders that may hold the images, in ``root``; the first one found counts.
        text_only: ask the questions without an image too, which the official figures need.
    """

    root: str = "HallusionBench"
    file: str = "HallusionBench.json"
    images: tuple[str, ...] = ("hallusion_bench", ".")
    text_only: bool = True


FIELDS = ("question",)
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [(f"{options.root}/{options.file}",)]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [tuple(f"{options.root}/{folder}" for folder in options.images)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Read the questions in the order of the file."""
    path = find(roots, f"{options.root}/{options.file}")
    images = place(roots, *(f"{options.root}/{folder}" for folder in options.images))
    items = (
        (f"{path}, entry {number}", item)
        for number, item in enumerate(expect(read_json(path), list, path))
        if options.text_only or not isinstance(item, dict) or item.get("filename") is not None
    )
    return build_records(items, lambda item: _record(item, images))


def _record(item: Any, images: Path) -> Record:
    key = {name: take_id(item, name) for name in _KEY}
    shown = take_id(item, "visual_input")
    _check("category", key["category"], _CATEGORIES)
    _check("visual_input", shown, _VISUAL_INPUTS)
    answer = item.get("gt_answer")
    if answer is not None:
        answer = take_id(item, "gt_answer")
        _check("gt_answer", answer, tuple(_ANSWERS))
    name = take_optional(item, "filename", str)
    return Record(
        id="_".join(key.values()),
        image=None if name is None else _image(images, name),
        fields={"question": take(item, "question", str)},
        target=None if answer is None else _ANSWERS[answer],
        group=key["category"],
        meta={**key, "visual_input": shown, "reference": take_optional(item, "gt_answer_details", str) or ""},
    )


def _check(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise MalformedError(f"'{key}' should be {' or '.join(known)}, got {brief(value)}")


def _image(images: Path, name: str) -> ImageFile:
    """The image with the extension it has on disk."""
    image = image_file(images, name.removeprefix("./"))
    swapped = image.path.with_suffix(image.path.suffix.swapcase())
    if not os.path.exists(image.path) and os.path.exists(swapped):
        return ImageFile(swapped, image.name)
    return image
