"""Maps in COCO's panoptic format: segment lists for the JSON, and PNGs whose colour is the id, R + 256 G + 65536 B.

Source: COCO panoptic format (arXiv 1801.00868).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import find_objects

from ..image import DecodedImage
from .base import PanopticMap, Segmenter

MOST_PIXELS = 2**22
"""Pixels of a map up to which a segmenter is asked for it at the image's own size."""


def at_own_size(segmenter: Segmenter, images: Sequence[DecodedImage]) -> list[PanopticMap]:
    """Maps of images, each of its image's height and width; images of one size are segmented together.

    Backends that make masks hold one of the asked size for every segment. So a map of more than `MOST_PIXELS` is asked
    for at a smaller size, which is still finer than any network's masks, and enlarged.

    Raises:
        SegmenterError: see `Segmenter.segment`.
    """
    sizes = [(image.pixels.shape[0], image.pixels.shape[1]) for image in images]
    maps: dict[int, PanopticMap] = {}
    for size in dict.fromkeys(sizes):
        members = [index for index, other in enumerate(sizes) if other == size]
        asked = size if segmenter.reads_maps else _limited(size)
        found = segmenter.segment([images[index] for index in members], asked)
        maps |= zip(members, (_enlarged(panoptic, size) for panoptic in found), strict=True)
    return [maps[index] for index in range(len(images))]


def _limited(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, both made smaller by one factor where they hold more than `MOST_PIXELS`."""
    factor = min(1.0, math.sqrt(MOST_PIXELS / (size[0] * size[1])))
    height, width = (max(1, int(side * factor)) for side in size)
    return min(height, MOST_PIXELS // width or 1), min(width, MOST_PIXELS // height)


def _enlarged(panoptic: PanopticMap, size: tuple[int, int]) -> PanopticMap:
    """A map at another size that is nowhere smaller: every pixel takes the nearest one's id."""
    if panoptic.id_map.shape == size:
        return panoptic
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, panoptic.id_map.shape, strict=True))
    return replace(panoptic, id_map=panoptic.id_map[rows][:, columns])


def segments_info(panoptic: PanopticMap, class_ids: Mapping[int, int]) -> list[dict[str, Any]]:
    """A map's entries of ``segments_info``; ``bbox`` is x, y, width, height in pixels.

    Args:
        panoptic: the map.
        class_ids: class number -> id in the JSON; segments of other classes are left out.
    """
    if not panoptic.segments:
        return []
    areas = np.bincount(panoptic.id_map.reshape(-1))
    places = find_objects(panoptic.id_map)
    return [
        {
            "id": segment.id,
            "category_id": class_ids[segment.category_id],
            "area": int(areas[segment.id]),
            "bbox": _xywh(*places[segment.id - 1]),
            "iscrowd": 0,
            "score": round(segment.score, 6),
        }
        for segment in panoptic.segments
        if segment.category_id in class_ids
    ]


def _xywh(rows: slice, columns: slice) -> list[int]:
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def panoptic_png(ids: npt.NDArray[np.int32]) -> bytes:
    """An id map as a PNG; 0, which is no segment, is black."""
    colours = np.empty((*ids.shape, 3), np.uint8)
    for channel in range(3):
        colours[..., channel] = ids >> 8 * channel & 255
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG")
    return buffer.getvalue()


def ids_of(image: Image.Image) -> npt.NDArray[np.int32]:
    """The id map that a panoptic PNG holds, (height, width).

    Raises:
        OSError, SyntaxError, ValueError: the image is damaged.
    """
    colours = np.asarray(image.convert("RGB"), np.int32)
    ids: npt.NDArray[np.int32] = colours[..., 0] + (colours[..., 1] << 8) + (colours[..., 2] << 16)
    return ids


def unique_stems(names: Iterable[str], endings: Sequence[str] = ("",)) -> list[str]:
    """File names without suffix, one for each image; where files would have one name, later ones get ``_2``, ``_3``.

    Args:
        names: of the images; folders in them become a part of the file name.
        endings: of the files that an image gets, after its stem.
    """
    stems = [str(PurePath(name).with_suffix("")).replace("/", "_").replace("\\", "_") for name in names]
    wished = {stem + ending for stem in stems for ending in endings}
    given: set[str] = set()
    found = []
    for stem in stems:
        number, chosen = 1, stem
        while any(chosen + e in given or (number > 1 and chosen + e in wished) for e in endings):
            number += 1
            chosen = f"{stem}_{number}"
        given |= {chosen + ending for ending in endings}
        found.append(chosen)
    return found
