"""The crayon prompt of a picture: from a panoptic map to table rows per image token, and to the object list in words.

Source: CoLLaVO (arXiv 2402.11248), section 3.1: per image token a semantic query (its class) and a numbering query (the
how-manieth of its class). The released code counts the map by segment id but the text by list order, pairs boxes with
classes by position, and runs past 20 instances; here both count in list order, boxes belong to ids, and what has no row
of its own takes row 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modeling.segmenters.base import PanopticMap
from modeling.segmenters.coco import COCO_PANOPTIC, NUM_CLASSES, display_name

MAX_INSTANCES = 20
"""Instances of a class that have a numbering query of their own; further ones take row 0, "unknown"."""

Int64Array = npt.NDArray[np.int64]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class CrayonObject:
    """One object of a picture.

    Attributes:
        segment_id: its id in the panoptic map.
        category: class name as users read it, without ``-merged``, ``-other``, ``-stuff``.
        number: the how-manieth of its class, from 1, in the order of the segment list.
        box: x1, y1, x2, y2 as fractions of the map's sides, upper ends exclusive.
    """

    segment_id: int
    category: str
    number: int
    box: Box


@dataclass(frozen=True, eq=False)
class CrayonPrompt:
    """What the model is told of a picture's objects.

    Attributes:
        semantic: int64 (grid, grid), row-major: class + 1 of every image token, 0 = unknown.
        numbering: int64 (grid, grid): number in the class, 0 = unknown.
        objects: in the order of the segment list; empty where nothing was found.
    """

    semantic: Int64Array
    numbering: Int64Array
    objects: tuple[CrayonObject, ...]

    @classmethod
    def empty(cls, grid: int) -> CrayonPrompt:
        """The prompt of a picture in which nothing was found."""
        return cls(np.zeros((grid, grid), np.int64), np.zeros((grid, grid), np.int64), ())


def crayon_prompt(panoptic: PanopticMap, grid: int) -> CrayonPrompt:
    """Turn a panoptic map into the two index grids that the crayon tables are read with, and the list of objects.

    Args:
        panoptic: a map of (grid, grid); ids below 1, and ids that no segment lists, are "unknown". Segments without a
            pixel are left out and take no number.
        grid: side of the image token grid.

    Raises:
        ValueError: the map has another size, a class is outside the 133, or an id is listed twice or below 1; the
            segment is named.
    """
    if panoptic.id_map.shape != (grid, grid):
        raise ValueError(f"the panoptic map is {panoptic.id_map.shape}, the image tokens are ({grid}, {grid})")
    prompt = CrayonPrompt.empty(grid)
    counts: Counter[int] = Counter()
    objects: list[CrayonObject] = []
    seen: set[int] = set()
    for segment in panoptic.segments:
        if not 0 <= segment.category_id < NUM_CLASSES:
            raise ValueError(f"segment {segment.id}: class {segment.category_id} is outside 0..{NUM_CLASSES - 1}")
        if segment.id in seen or segment.id < 1:
            raise ValueError(f"segment {segment.id}: ids count from 1 and are listed once")
        seen.add(segment.id)
        pixels = panoptic.id_map == segment.id
        if not pixels.any():
            continue
        counts[segment.category_id] += 1
        number = counts[segment.category_id]
        prompt.semantic[pixels] = segment.category_id + 1
        prompt.numbering[pixels] = number if number <= MAX_INSTANCES else 0
        name = display_name(COCO_PANOPTIC[segment.category_id].name)
        objects.append(CrayonObject(segment_id=segment.id, category=name, number=number, box=_box(pixels)))
    return CrayonPrompt(prompt.semantic, prompt.numbering, tuple(objects))


def _box(pixels: npt.NDArray[np.bool_]) -> Box:
    """Smallest box around the set pixels, in fractions of the sides."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    height, width = pixels.shape
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return left / width, top / height, right / width, bottom / height


def format_box(box: Box) -> str:
    """A box as prompts write it: ``[0.00, 0.16, 0.29, 0.88]``."""
    return "[" + ", ".join(f"{side:.2f}" for side in box) + "]"


def object_list(objects: Sequence[CrayonObject]) -> str:
    """Objects with numbers and boxes: ``(#1 person) [0.00, 0.16, 0.29, 0.88], (#2 person) [...]``; "" for none."""
    return ", ".join(f"(#{item.number} {item.category}) {format_box(item.box)}" for item in objects)


def names_only(objects: Sequence[CrayonObject]) -> str:
    """Objects with numbers, without boxes: ``#1 person, #2 person, #1 sky``."""
    return ", ".join(f"#{item.number} {item.category}" for item in objects)
