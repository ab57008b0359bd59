"""The images of COCO panoptic annotations (``panoptic_train2017.json``) with the classes that they are said to show.

The maps themselves are read by the segmenter backend that reads them for evaluation too. Only names are kept here, not
the segments, and the file is read as a stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..registration.formats.files import MalformedError, brief, image_file, put_once, take
from ..types import BadRecord, DataError, ImageFile
from .stream import stream_arrays
from .types import MissingImageRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class PanopticImage:
    """An image that has a panoptic map.

    Attributes:
        image: the image; maps are looked up by the stem of its name.
        categories: official names of all classes annotated in it, however small, each once.
    """

    image: ImageFile
    categories: tuple[str, ...]


def read_panoptic(path: Path, images: Path, check_images: bool) -> Iterator[PanopticImage | BadRecord]:
    """List the annotated images.

    Args:
        path: the JSON file, in COCO's panoptic layout.
        images: folder of the images.
        check_images: report images that are not there as `MissingImageRecord`.

    Yields:
        In the order of the annotations; malformed ones, and repeated images, as `BadRecord`.

    Raises:
        DataError: the file is unreadable or no COCO panoptic JSON.
    """
    names: dict[int, str] = {}
    categories: dict[int, str] = {}
    annotated: list[tuple[str, int, tuple[int, ...]]] = []
    bad: list[BadRecord] = []
    for key, index, item in stream_arrays(path):
        where = f"{path}, {key} {index}"
        try:
            if key == "images":
                put_once(names, take(item, "id", int), take(item, "file_name", str), "image")
            elif key == "categories":
                put_once(categories, take(item, "id", int), take(item, "name", str), "class")
            elif key == "annotations":
                annotated.append((where, take(item, "image_id", int), _classes(item)))
        except MalformedError as error:
            bad.append(BadRecord(where=where, reason=str(error)))
    if not (names and categories and annotated):
        raise DataError(f"{path}: no COCO panoptic JSON, it needs filled lists of images, annotations and categories")
    yield from bad
    seen: set[int] = set()
    for where, image_id, shown in annotated:
        try:
            image = _image(image_id, shown, names, categories, images)
            if image_id in seen:
                raise MalformedError(f"repeats image {brief(image_id)}")
        except MalformedError as error:
            yield BadRecord(where=where, reason=str(error))
            continue
        seen.add(image_id)
        if check_images and not os.path.isfile(image.image.path):
            yield MissingImageRecord(where=where, reason=f"the image is missing; looked for {image.image.path}")
        else:
            yield image


def classes_of(path: Path) -> tuple[str, ...]:
    """Official names of the classes that a file annotates: what can be in its images, and what can be absent.

    Args:
        path: the JSON file, in COCO's panoptic layout.

    Raises:
        DataError: the file is unreadable.
    """
    categories = (item for key, _, item in stream_arrays(path) if key == "categories")
    return tuple(str(item["name"]) for item in categories if isinstance(item, dict) and "name" in item)


def _classes(annotation: Any) -> tuple[int, ...]:
    return tuple(sorted({take(item, "category_id", int) for item in take(annotation, "segments_info", list)}))


def _image(
    image_id: int, shown: tuple[int, ...], names: dict[int, str], categories: dict[int, str], images: Path
) -> PanopticImage:
    """Put names for numbers.

    Raises:
        MalformedError: the file does not list the image or a class.
    """
    if image_id not in names:
        raise MalformedError(f"image {brief(image_id)} is not among the file's images")
    unknown = [number for number in shown if number not in categories]
    if unknown:
        raise MalformedError(f"classes {brief(unknown)} are not among the file's categories")
    return PanopticImage(
        image=image_file(images, names[image_id]), categories=tuple(categories[number] for number in shown)
    )
