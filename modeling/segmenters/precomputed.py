"""Panoptic maps from disk, in COCO's layout: a JSON of segments and a folder of PNGs (id = R + 256 G + 65536 B).

Source: COCO panoptic format (arXiv 1801.00868). A map is brought to the asked size by taking the pixel at the middle of
every cell; segments that no cell shows, or that the PNG lacks altogether, are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from configs.common.pillow_errors import UNREADABLE

from ..files import FileError, path_in_folder, placeholder_kind
from ..image import DecodedImage
from .base import Int32Array, PanopticMap, Segment
from .coco import COCO_BY_INDEX, INDEX_BY_COCO_ID, INDEX_BY_NAME
from .coco_format import ids_of
from .errors import SegmenterError
from .options import SegmenterConfig

T = TypeVar("T")


class PrecomputedSegmenter:
    """Looks maps up by image name: the whole name as the JSON lists it, else its last part without suffix.

    Args:
        annotations: the JSON file.
        folder: of the PNGs.

    Raises:
        SegmenterError: the file is missing, unreadable, or no COCO panoptic JSON.
    """

    categories = COCO_BY_INDEX
    reads_maps = True

    def __init__(self, annotations: Path, folder: Path) -> None:
        self._file, self._folder = annotations, folder
        try:
            if annotations.exists() and not annotations.is_file():
                raise SegmenterError(f"SEGMENTER.PATH: {annotations} is no file; name the COCO panoptic JSON itself")
            data = annotations.read_bytes()
            if found := placeholder_kind(data[:256]):
                raise SegmenterError(f"SEGMENTER.PATH: {annotations} {found}")
            content = json.loads(data)
        except OSError as error:
            raise SegmenterError(f"SEGMENTER.PATH: {annotations} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise SegmenterError(f"SEGMENTER.PATH: {annotations} is no valid JSON: {error}") from error
        self._classes = dict(self._each(content, "categories", lambda c: (int(c["id"]), _class_index(c))))
        images = self._each(content, "images", _image) if "images" in content else []
        self._sizes = {number: size for number, _, size in images if size is not None}
        names = {number: name for number, name, _ in images}
        pairs = self._each(content, "annotations", lambda i: (names.get(i["image_id"], str(i["file_name"])), i))
        self._by_name = dict(pairs)
        self._by_stem = _unambiguous([(Path(name).stem, item) for name, item in pairs])
        if not folder.is_dir():
            raise SegmenterError(f"SEGMENTER.IMAGES: {folder} is no folder of panoptic PNGs")
        self.fingerprint = f"precomputed-{hashlib.sha256(data).hexdigest()[:16]}"

    def _each(self, content: Any, key: str, read: Callable[[Any], T]) -> list[T]:
        """Read the records of one of the file's lists.

        Raises:
            SegmenterError: there is no such list, or a record is malformed; it is named.
        """
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise SegmenterError(f"SEGMENTER.PATH: {self._file} is no COCO panoptic JSON, it has no list of {key}")
        found = []
        for number, item in enumerate(content[key]):
            try:
                found.append(read(item))
            except KeyError as error:
                reason = f"it lacks {error}"
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                reason = str(error)
            else:
                continue
            raise SegmenterError(f"SEGMENTER.PATH: {self._file}, {key} {number}: {reason}")
        return found

    def has(self, name: str) -> bool:
        """Whether an image of this name has a map, as far as the JSON tells."""
        return self._item(name) is not None

    def files(self) -> Iterator[tuple[str, str]]:
        """Name of every image that has a map, and of the PNG, below the folder."""
        return ((name, str(item["file_name"])) for name, item in self._by_name.items())

    def _item(self, name: str) -> dict[str, Any] | None:
        """The annotation of an image: by its whole name, else by the stem of it."""
        return self._by_name.get(name) or self._by_stem.get(Path(name).stem)

    def segment(self, decoded_images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`.

        Raises:
            SegmenterError: an image has no map, or its PNG is damaged; the image is named.
        """
        return [self._segment(decoded, size) for decoded in decoded_images]

    def _segment(self, decoded: DecodedImage, size: tuple[int, int]) -> PanopticMap:
        item = self._item(decoded.name)
        if item is None:
            raise SegmenterError(f"image {decoded.name}: {self._file} has no panoptic map for it")
        try:
            path = path_in_folder(self._folder, str(item["file_name"]))
        except FileError as error:
            raise SegmenterError(f"image {decoded.name}: {self._file}: its map: {error}") from error
        try:
            with Image.open(path) as opened:
                ids = ids_of(opened)
        except UNREADABLE as error:
            raise SegmenterError(f"image {decoded.name}: panoptic map {path} cannot be read: {error}") from error
        try:
            listed = [(int(s["id"]), int(s["category_id"])) for s in item["segments_info"]]
            self._check(item, ids, listed)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise SegmenterError(
                f"image {decoded.name}: its panoptic map {path}, listed in {self._file}, is malformed: {reason}"
            ) from error
        return renumber(at_cell_centres(ids, size), [(number, self._classes[c]) for number, c in listed])

    def _check(self, item: Mapping[str, Any], ids: np.ndarray[Any, Any], listed: Sequence[tuple[int, int]]) -> None:
        """Compare a map with what the JSON says of it.

        Args:
            item: the annotation.
            ids: of the PNG, (height, width).
            listed: id and category of its segments.

        Raises:
            ValueError: a category is unknown, or the size is another.
        """
        unknown = [category for _, category in listed if category not in self._classes]
        if unknown:
            raise ValueError(f"category {unknown[0]} is not among the file's categories")
        wanted = self._sizes.get(item.get("image_id"))
        if wanted is not None and ids.shape != wanted:
            sizes = f"{ids.shape[1]} x {ids.shape[0]} pixels, the image {wanted[1]} x {wanted[0]}"
            raise ValueError(f"the PNG has {sizes}")


def _unambiguous(pairs: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """A mapping of what stands under one key only."""
    counts = Counter(key for key, _ in pairs)
    return {key: item for key, item in pairs if counts[key] == 1}


def _class_index(category: dict[str, Any]) -> int:
    """Our number of a category of the JSON: by its name, else by COCO's id.

    Raises:
        ValueError: it is none of the 133.
    """
    name, number = str(category.get("name")), int(category["id"])
    found = INDEX_BY_NAME.get(name, INDEX_BY_COCO_ID.get(number))
    if found is None:
        raise ValueError(f"class {number}, {name!r}, is none of COCO's {len(INDEX_BY_NAME)} panoptic ones")
    return found


def _image(image: Any) -> tuple[Any, str, tuple[int, int] | None]:
    """Id, file name, and (height, width) where both are said.

    Raises:
        KeyError, ValueError, TypeError: it is malformed.
    """
    if not isinstance(image["id"], int | str):
        raise ValueError(f"'id' should be a number or a text, got {image['id']!r}")
    sides = [image.get(side) for side in ("height", "width")]
    size = None if None in sides else (int(sides[0]), int(sides[1]))
    return image["id"], str(image["file_name"]), size


def at_cell_centres(ids: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Sample a map (H, W) at the middle of each cell of a grid (height, width)."""
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * length / n, length - 1).astype(int)
        for n, length in zip(size, ids.shape, strict=True)
    )
    sampled: np.ndarray[Any, Any] = ids[rows][:, columns]
    return sampled


def renumber(ids: np.ndarray[Any, Any], found: list[tuple[int, int]], scores: list[float] | None = None) -> PanopticMap:
    """Give the segments that a map shows the ids 1, 2, 3 in list order; ids that are not listed become 0.

    Args:
        ids: (height, width), any integers.
        found: id and class of the listed segments.
        scores: one per segment; 1.0 each where left out.
    """
    id_map: Int32Array = np.zeros(ids.shape, np.int32)
    segments: list[Segment] = []
    for index, (segment_id, category_id) in enumerate(found):
        pixels = ids == segment_id
        if segment_id > 0 and pixels.any() and not (id_map[pixels] > 0).any():
            number = len(segments) + 1
            id_map[pixels] = number
            segments.append(Segment(id=number, category_id=category_id, score=scores[index] if scores else 1.0))
    return PanopticMap(id_map, tuple(segments))


def build_precomputed(config: SegmenterConfig) -> PrecomputedSegmenter:
    """Build it from ``PATH`` (the JSON) and ``IMAGES`` (the folder of PNGs)."""
    return PrecomputedSegmenter(Path(config.PATH), Path(config.IMAGES or "."))
