"""The paper's object probes, made from COCO panoptic annotations: is a class there, and which class is in a box.

Class2Binary asks of every image about each annotated class, and about others that are not in it: as many as it takes
for a class to be absent as often as it is there, drawn from a seed. Box2Class asks about every segment, by its box in
fractions of the image's sides with two decimals, as the crayon prompt writes boxes.

Source: CoLLaVO (arXiv 2402.11248), section 4 (Class2Binary and Box2Class); COCO panoptic format (arXiv 1801.00868).
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..roots import find
from ..types import BadRecord, Record
from .formats.files import MalformedError, brief, build_records, expect, image_file, place, put_once, read_json, take

_LONGEST_SIDE = 1_000_000
"""Pixels; what is said to be longer is no image."""
_LARGEST = float(_LONGEST_SIDE**2)
_SUFFIXES = ("-merged", "-other", "-stuff")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the annotations lie, and what is asked.

    Attributes:
        task: class2binary or box2class.
        annotations: the panoptic JSON, the first one found.
        images: folder of its images.
        things_only: ask about countable objects only, as the paper does (80 classes of COCO).
        min_area: least share of the image that a segment must cover to be asked about.
        limit: most questions about a class, drawn from the seed; None for all.
        seed: of what is drawn.
    """

    task: Literal["class2binary", "box2class"]
    annotations: tuple[str, ...] = ("coco/annotations/panoptic_val2017.json",)
    images: str = "coco/val2017"
    things_only: bool = True
    min_area: float = 0.0
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Segment:
    name: str
    box: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True, kw_only=True)
class _Annotated:
    """An image: its segments large enough to be asked about, and all classes in it, however small."""

    where: str
    image: str
    segments: tuple[_Segment, ...]
    names: frozenset[str]


FIELDS = ("question", "class", "box")
"""What a prompt may name."""


def needed(options: Options) -> list[tuple[str, ...]]:
    """Files that must be there, each with the places that are taken for it."""
    return [options.annotations]


def besides(roots: Sequence[Path], options: Options, fields: Container[str]) -> list[tuple[str, ...]]:
    """What questions are asked with besides: for each file or folder, the places below a root where it may be."""
    return [(options.images,)]


def read(roots: Sequence[Path], options: Options) -> Iterator[Record | BadRecord]:
    """Make the questions, image by image."""
    path = find(roots, *options.annotations)
    images = place(roots, options.images)
    content = expect(read_json(path), dict, path)
    bad: list[BadRecord] = []
    classes = _classes(expect(content.get("categories"), list, path, "categories"), path, options.things_only, bad)
    sizes = _sizes(expect(content.get("images"), list, path, "images"), path, bad)
    annotated: list[_Annotated] = []
    for number, item in enumerate(expect(content.get("annotations"), list, path, "annotations")):
        where = f"{path}, annotations {number}"
        try:
            annotated.append(_annotated(where, item, classes, sizes, options.min_area))
        except MalformedError as error:
            bad.append(BadRecord(where=where, reason=str(error)))
    yield from bad
    names = sorted(set(classes.values()) - {""})
    questions = _binary(annotated, names, options) if options.task == "class2binary" else _boxes(annotated, options)
    yield from build_records(questions, lambda values: _record(images, names, **values))


def _classes(items: Sequence[Any], path: Path, things_only: bool, bad: list[BadRecord]) -> dict[int, str]:
    """Names by id, as the crayon prompt shows them; "" for those that are not asked about."""
    found: dict[int, str] = {}
    for number, item in enumerate(items):
        try:
            name = take(item, "name", str)
            for suffix in _SUFFIXES:
                name = name.removesuffix(suffix)
            asked = not things_only or bool(take(item, "isthing", int))
            put_once(found, take(item, "id", int), name if asked else "", "class")
        except MalformedError as error:
            bad.append(BadRecord(where=f"{path}, categories {number}", reason=str(error)))
    return found


def _sizes(items: Sequence[Any], path: Path, bad: list[BadRecord]) -> dict[int, tuple[str, int, int]]:
    """File name, width and height by id."""
    found: dict[int, tuple[str, int, int]] = {}
    for number, item in enumerate(items):
        try:
            size = take(item, "width", int), take(item, "height", int)
            if not 1 <= min(size) <= max(size) <= _LONGEST_SIDE:
                raise MalformedError(f"an image of {brief(size[0])} x {brief(size[1])} pixels")
            put_once(found, take(item, "id", int), (take(item, "file_name", str), *size), "image")
        except MalformedError as error:
            bad.append(BadRecord(where=f"{path}, images {number}", reason=str(error)))
    return found


def _annotated(
    where: str, item: Any, classes: Mapping[int, str], sizes: Mapping[int, tuple[str, int, int]], least: float
) -> _Annotated:
    """One annotation.

    Raises:
        MalformedError: it is none, or names an image or class that the file does not list.
    """
    image_id = take(item, "image_id", int)
    if image_id not in sizes:
        raise MalformedError(f"image {brief(image_id)} is not among the file's images")
    image, width, height = sizes[image_id]
    segments, names = [], set()
    for entry in take(item, "segments_info", list):
        category = take(entry, "category_id", int)
        if category not in classes:
            raise MalformedError(f"class {brief(category)} is not among the file's categories")
        name = classes[category]
        names.add(name)
        segment = _Segment(name=name, box=_box(entry, width, height), area=_number(take(entry, "area", object), "area"))
        if name and not entry.get("iscrowd") and segment.area >= least * width * height:
            segments.append(segment)
    return _Annotated(where=where, image=image, segments=tuple(segments), names=frozenset(names))


def _box(entry: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Corners in fractions of the sides, from COCO's x, y, width, height in pixels."""
    values = [_number(value, "bbox") for value in take(entry, "bbox", list)]
    if len(values) != 4:
        raise MalformedError(f"'bbox' should be four numbers, got {brief(values)}")
    x, y, w, h = values
    return x / width, y / height, min((x + w) / width, 1.0), min((y + h) / height, 1.0)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
        raise MalformedError(f"'{key}' should be a number, got {brief(value)}")
    return float(value)


def _chance(seed: int, *parts: str) -> int:
    """A number that follows from names alone, to order what is drawn."""
    return zlib.crc32("\0".join((str(seed), *parts)).encode())


def _binary(
    annotated: Sequence[_Annotated], names: Sequence[str], options: Options
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every class where it is, and in as many images where it is not."""
    chosen: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name in names:
        order = sorted(range(len(annotated)), key=lambda i: (_chance(options.seed, name, annotated[i].image), i))
        there = [i for i in order if any(segment.name == name for segment in annotated[i].segments)]
        there = there[: options.limit]
        absent = [i for i in order if name not in annotated[i].names][: len(there)]
        for label, members in (("yes", there), ("no", absent)):
            for i in members:
                chosen[i].append((name, label))
    for i, one in enumerate(annotated):
        for name, label in sorted(chosen[i]):
            fields = {"question": f"Is there any {name} in this image?", "class": name}
            values = {"id": f"{one.image}/{name}", "image": one.image, "fields": fields, "target": label}
            yield one.where, {**values, "name": name}


def _boxes(annotated: Sequence[_Annotated], options: Options) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every segment by its box; a box that two of them share is left out, since it does not say which one is meant."""
    asked: list[tuple[_Annotated, str, str]] = []
    for one in annotated:
        boxes = [(_written(segment.box), segment.name) for segment in one.segments]
        written = [box for box, _ in boxes]
        asked += [(one, box, name) for box, name in boxes if written.count(box) == 1]
    kept = set(range(len(asked)))
    if options.limit is not None:
        by_class: dict[str, list[int]] = defaultdict(list)
        for i in sorted(kept, key=lambda i: (_chance(options.seed, asked[i][0].image, asked[i][1]), i)):
            by_class[asked[i][2]].append(i)
        kept = {i for members in by_class.values() for i in members[: options.limit]}
    for i in sorted(kept):
        one, box, name = asked[i]
        fields = {"question": f"Which object is in the specified bounding box {box}?", "box": box}
        values = {"id": f"{one.image}/{box}", "image": one.image, "fields": fields, "target": name}
        yield one.where, {**values, "name": name}


def _written(box: tuple[float, float, float, float]) -> str:
    return "[" + ", ".join(f"{side:.2f}" for side in box) + "]"


def _record(
    images: Path, names: Sequence[str], *, id: str, image: str, fields: dict[str, str], target: str, name: str
) -> Record:
    return Record(
        id=id, image=image_file(images, image), fields=fields, target=target, meta={"class": name, "names": names}
    )
