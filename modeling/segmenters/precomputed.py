"""Panoptic maps from disk, in COCO's layout: a JSON of segments and a folder of PNGs (id = R + 256 G + 65536 B).

Source: COCO panoptic format (arXiv 1801.00868). A map is brought to the asked size by taking the pixel at the middle of
every cell; segments that no cell shows are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .base import Int32Array, PanopticMap, Picture, Segment
from .coco import INDEX_BY_COCO_ID, INDEX_BY_NAME
from .errors import SegmenterError
from .options import SegmenterConfig


class PrecomputedSegmenter:
    """Looks maps up by picture name: the whole name as the JSON lists it, else its last part without suffix.

    Args:
        annotations: the JSON file.
        folder: of the PNGs.

    Raises:
        SegmenterError: the file is missing, unreadable, or no COCO panoptic JSON.

    Attributes:
        reads_maps: its maps come from files, so that one of any size takes no more memory than itself.
    """

    reads_maps = True

    def __init__(self, annotations: Path, folder: Path) -> None:
        self._file, self._folder = annotations, folder
        try:
            data = annotations.read_bytes()
            content = json.loads(data)
            self._classes = {int(c["id"]): _class_index(c) for c in content["categories"]}
            names = {image["id"]: image["file_name"] for image in content.get("images", ())}
            pairs = [(names.get(item["image_id"], item["file_name"]), item) for item in content["annotations"]]
            self._by_name = dict(pairs)
            self._by_stem = _unambiguous([(Path(name).stem, item) for name, item in pairs])
        except OSError as error:
            raise SegmenterError(f"SEGMENTER.PATH: {annotations} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SegmenterError(f"SEGMENTER.PATH: {annotations} is no COCO panoptic JSON ({error!r})") from error
        if not folder.is_dir():
            raise SegmenterError(f"SEGMENTER.IMAGES: {folder} is no folder of panoptic PNGs")
        self.fingerprint = f"precomputed-{hashlib.sha256(data).hexdigest()[:16]}"

    def segment(self, pictures: Sequence[Picture], size: tuple[int, int]) -> list[PanopticMap]:
        """See `Segmenter.segment`.

        Raises:
            SegmenterError: a picture has no map, or its PNG is damaged; the picture is named.
        """
        return [self._segment(picture, size) for picture in pictures]

    def _segment(self, picture: Picture, size: tuple[int, int]) -> PanopticMap:
        item = self._by_name.get(picture.name) or self._by_stem.get(Path(picture.name).stem)
        if item is None:
            raise SegmenterError(f"picture {picture.name}: {self._file} has no panoptic map for it")
        path = self._folder / item["file_name"]
        try:
            with Image.open(path) as opened:
                colours = np.asarray(opened.convert("RGB"), dtype=np.int32)
            found = [(int(s["id"]), self._classes[int(s["category_id"])]) for s in item["segments_info"]]
        except (OSError, SyntaxError, ValueError) as error:
            raise SegmenterError(f"picture {picture.name}: panoptic map {path} cannot be read: {error}") from error
        except (KeyError, TypeError) as error:
            raise SegmenterError(
                f"picture {picture.name}: its segments in {self._file} are malformed ({error!r})"
            ) from error
        return renumber(_at_cell_centres(colours @ np.array([1, 256, 65536]), size), found)


def _unambiguous(pairs: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """A mapping of what stands under one key only."""
    counts = Counter(key for key, _ in pairs)
    return {key: item for key, item in pairs if counts[key] == 1}


def _class_index(category: dict[str, Any]) -> int:
    """Our number of a category of the JSON: by its name, else by COCO's id.

    Raises:
        KeyError: it is none of the 133.
    """
    by_name = INDEX_BY_NAME.get(str(category.get("name")))
    return INDEX_BY_COCO_ID[int(category["id"])] if by_name is None else by_name


def _at_cell_centres(ids: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Sample a map (H, W) at the middle of each cell of a grid."""
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


def build(config: SegmenterConfig, device: Any = "cpu") -> PrecomputedSegmenter:
    """Build it from ``PATH`` (the JSON) and ``IMAGES`` (the folder of PNGs)."""
    return PrecomputedSegmenter(Path(config.PATH), Path(config.IMAGES or "."))
