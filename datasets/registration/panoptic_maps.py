"""COCO's panoptic annotations as they are: an image, its ground-truth map, and the segments in it.

Source: COCO panoptic format (arXiv 1801.00868): a JSON, and PNGs whose colour is the segment's id, R + 256 G + 65536 B.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..roots import find
from ..types import BadRecord, Record
from .formats.files import (
    MalformedError,
    brief,
    build_records,
    expect,
    image_file,
    listed,
    place,
    put_once,
    read_json,
    take,
)

T = TypeVar("T")
Categories = dict[int, tuple[str, bool]]
"""COCO's id of a class -> its official name, and whether it is a thing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the annotations lie.

    Attributes:
        annotations: the panoptic JSON, the first one found; the PNGs lie in the folder of its name without ``.json``.
        images: folder of the images.
    """

    annotations: tuple[str, ...] = ("coco/annotations/panoptic_val2017.json",)
    images: str = "coco/val2017"


FIELDS = ()
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [options.annotations]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [tuple(name.removesuffix(".json") for name in options.annotations), (options.images,)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """A record for each annotation: ``target`` has its segments; ``meta`` its map, image id, and all classes."""
    path = find(roots, *options.annotations)
    folder = find([path.parent], path.stem)
    images = place(roots, options.images)
    content = expect(read_json(path), dict, path)
    bad: list[BadRecord] = []
    categories: Categories = {}
    named: dict[int, str] = {}
    _enter(categories, expect(content.get("categories"), list, path, "categories"), f"{path}, categories", _class, bad)
    _enter(named, expect(content.get("images"), list, path, "images"), f"{path}, images", _file_name, bad)
    yield from bad
    items = enumerate(expect(content.get("annotations"), list, path, "annotations"))
    yield from build_records(
        ((f"{path}, annotations {number}", item) for number, item in items),
        lambda item: _record(item, images, folder, named, categories),
    )


def _class(item: Any) -> tuple[str, bool]:
    return take(item, "name", str), bool(take(item, "isthing", int))


def _file_name(item: Any) -> str:
    return take(item, "file_name", str)


def _enter(
    table: dict[int, T], items: Sequence[Any], where: str, read: Callable[[Any], T], bad: list[BadRecord]
) -> None:
    """Enter classes or images by their ids; malformed ones go to ``bad``."""
    for number, item in enumerate(items):
        try:
            put_once(table, take(item, "id", int), read(item), "id")
        except MalformedError as error:
            bad.append(BadRecord(where=f"{where} {number}", reason=str(error)))


def _record(item: Any, images: Path, folder: Path, named: Mapping[int, str], categories: Categories) -> Record:
    """One annotation.

    Raises:
        MalformedError: it is none, names an image or class that the file does not list, or its map is missing.
    """
    image_id = take(item, "image_id", int)
    if image_id not in named:
        raise MalformedError(f"image {brief(image_id)} is not among the file's images")
    name = named[image_id]
    true_map = image_file(folder, take(item, "file_name", str))
    if not os.path.isfile(true_map.path):
        raise MalformedError(f"image {listed([name])}: its map is missing; looked for {true_map.path}")
    return Record(
        id=name,
        image=image_file(images, name),
        fields={},
        target=_segments(take(item, "segments_info", list), categories),
        meta={"map": true_map, "image_id": image_id, "categories": categories},
    )


def _segments(entries: Sequence[Any], categories: Categories) -> list[dict[str, int]]:
    """Id, class and crowd mark of the segments, in the file's order."""
    segments: dict[int, dict[str, int]] = {}
    for entry in entries:
        number, category = take(entry, "id", int), take(entry, "category_id", int)
        if category not in categories:
            raise MalformedError(f"class {brief(category)} is not among the file's categories")
        if number in segments or number < 1:
            raise MalformedError(f"segment {brief(number)}: ids count from 1 and are listed once")
        crowd = int(bool(entry.get("iscrowd")))
        segments[number] = {"id": number, "category_id": category, "iscrowd": crowd}
    return list(segments.values())
