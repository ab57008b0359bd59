"""The segments of COCO panoptic annotations (``panoptic_train2017.json`` and its PNGs), to learn to segment from.

Source: Kirillov et al. 2018 (arXiv 1801.00868), the format as COCO releases it: a PNG per image whose colour is the
segment's id (R + 256 G + 65536 B). Crowds ("iscrowd"), which are no single thing, are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from configs.common.pillow_errors import UNREADABLE

from ..registration.formats.files import MalformedError, brief, image_file, put_once, take
from ..types import BadRecord, DataError, ImageFile
from .stream import stream_arrays
from .types import MissingImageRecord

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedClass:
    """A class that a file annotates.

    Attributes:
        id: the file's number of it.
        name: official, suffixes included.
        is_thing: countable.
    """

    id: int
    name: str
    is_thing: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentedImage:
    """An image with its segments.

    Attributes:
        image: the image.
        map: its PNG.
        segments: id in the PNG and class (`AnnotatedClass.id`) of each, crowds left out.
    """

    image: ImageFile
    map: Path
    segments: tuple[tuple[int, int], ...]


def read_classes(path: Path) -> list[AnnotatedClass]:
    """The classes of a file, in its order.

    Args:
        path: the JSON file, in COCO's panoptic layout.

    Raises:
        DataError: the file is unreadable, or names no class that can be read.
    """
    found: dict[int, AnnotatedClass] = {}
    bad: list[BadRecord] = []
    for key, index, item in stream_arrays(path):
        if key == "categories":
            _enter_class(found, item, f"{path}, categories {index}", bad)
    if not found:
        why = f"; {bad[0].where}: {bad[0].reason}" if bad else ""
        raise DataError(f"{path}: no COCO panoptic JSON, it has no list of categories{why}")
    return list(found.values())


def _enter_class(found: dict[int, AnnotatedClass], item: Any, where: str, bad: list[BadRecord]) -> None:
    """Enter a class by its id; a malformed one goes to ``bad``."""
    try:
        thing = bool(take(item, "isthing", int))
        one = AnnotatedClass(id=take(item, "id", int), name=take(item, "name", str), is_thing=thing)
        put_once(found, one.id, one, "class")
    except MalformedError as error:
        bad.append(BadRecord(where=where, reason=str(error)))


def read_segments(path: Path, maps: Path, images: Path) -> Iterator[SegmentedImage | BadRecord]:
    """List the annotated images with their segments.

    Args:
        path: the JSON file, in COCO's panoptic layout.
        maps: folder of the PNGs.
        images: folder of the images.

    Yields:
        In the order of the annotations; malformed ones as `BadRecord`, those without image as `MissingImageRecord`.

    Raises:
        DataError: the file is unreadable.
    """
    names: dict[int, str] = {}
    classes: dict[int, AnnotatedClass] = {}
    bad: list[BadRecord] = []
    annotated: list[tuple[str, int, str, tuple[tuple[int, int], ...]]] = []
    for key, index, item in stream_arrays(path):
        where = f"{path}, {key} {index}"
        try:
            if key == "images":
                put_once(names, take(item, "id", int), take(item, "file_name", str), "image")
            elif key == "categories":
                _enter_class(classes, item, where, bad)
            elif key == "annotations":
                annotated.append((where, take(item, "image_id", int), take(item, "file_name", str), _segments(item)))
        except MalformedError as error:
            bad.append(BadRecord(where=where, reason=str(error)))
    if not classes:
        read_classes(path)  # says what is wrong
    yield from bad
    for where, image_id, png, segments in annotated:
        try:
            if image_id not in names:
                raise MalformedError(f"image {brief(image_id)} is not among the file's images")
            if unknown := sorted({number for _, number in segments} - classes.keys()):
                raise MalformedError(f"classes {brief(unknown)} are not among the file's categories")
            image = image_file(images, names[image_id])
            segmented = SegmentedImage(image=image, map=image_file(maps, png).path, segments=segments)
        except MalformedError as error:
            yield BadRecord(where=where, reason=str(error))
            continue
        if os.path.isfile(segmented.image.path):
            yield segmented
        else:
            yield MissingImageRecord(where=where, reason=f"the image is missing; looked for {segmented.image.path}")


def _segments(annotation: Any) -> tuple[tuple[int, int], ...]:
    """Id and class of each segment that is no crowd.

    Raises:
        MalformedError: one is malformed.
    """
    return tuple(
        (take(item, "id", int), take(item, "category_id", int))
        for item in take(annotation, "segments_info", list)
        if not (isinstance(item, dict) and item.get("iscrowd"))
    )


def segment_map(segmented: SegmentedImage) -> tuple[Int32Array, tuple[int, ...]]:
    """Where the segments of an image are.

    Returns: int32 (height, width): 1, 2, ... where a segment is, 0 elsewhere; and their classes, in this order.
    Segments without a pixel are left out.

    Raises:
        DataError: the PNG is missing or damaged; it is named.
    """
    try:
        with Image.open(segmented.map) as opened:
            colours = np.asarray(opened.convert("RGB"), dtype=np.int32)
    except UNREADABLE as error:
        raise DataError(
            f"image {segmented.image.name}: panoptic map {segmented.map} cannot be read: {error}"
        ) from error
    ids = colours @ np.array([1, 256, 65536], np.int32)
    numbers, classes = np.zeros(ids.shape, np.int32), []
    for segment_id, class_id in segmented.segments:
        pixels = ids == segment_id
        if segment_id > 0 and pixels.any():
            classes.append(class_id)
            numbers[pixels] = len(classes)
    return numbers, tuple(classes)
