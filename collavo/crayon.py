"""The crayon prompt of an image: from a panoptic map to table rows per image token, and to the object list in words.

Source: CoLLaVO (arXiv 2402.11248), section 3.1: per image token a semantic query (its class) and a numbering query (the
instance number of its class). The released code counts the map by segment id but the text by list order, pairs boxes
with classes by position, and runs past 20 instances; here both count in list order, boxes belong to ids, and what has
no row of its own takes row 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.segmenters.base import PanopticMap
from modeling.segmenters.coco import COCO_PANOPTIC, NUM_CLASSES, Category, display_name

MAX_INSTANCES = 20
"""Instances of a class that have a numbering query of their own; further ones take row 0, "unknown"."""

LEAST_SHARE = 0.15
"""Share of an image token's area from which on a thing gives the token its class, where the map is finer than the
tokens: small things would be lost behind large grounds otherwise."""

COCO_BY_INDEX: Mapping[int, Category] = dict(enumerate(COCO_PANOPTIC))
Int64Array = npt.NDArray[np.int64]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class CrayonObject:
    """One object of an image.

    Attributes:
        segment_id: its id in the panoptic map.
        category: class name as users read it, without ``-merged``, ``-other``, ``-stuff``.
        number: instance number in its class, from 1, in the order of the segment list.
        box: x1, y1, x2, y2 as fractions of the map's sides, upper ends exclusive.
    """

    segment_id: int
    category: str
    number: int
    box: Box


@dataclass(frozen=True, eq=False)
class CrayonPrompt:
    """What the model is told of an image's objects.

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
        """The prompt of an image in which nothing was found."""
        return cls(np.zeros((grid, grid), np.int64), np.zeros((grid, grid), np.int64), ())


def crayon_prompt(panoptic: PanopticMap, grid: int, categories: Mapping[int, Category] = COCO_BY_INDEX) -> CrayonPrompt:
    """Turn a panoptic map into the two index grids that the crayon tables are read with, and the list of objects.

    Args:
        panoptic: a map of (grid, grid), or finer by a whole factor: boxes are then measured on the finer map. Ids below
            1, and ids that no segment lists, are "unknown". Segments that no image token shows are left out and take no
            number.
        grid: side of the image token grid.
        categories: what the class numbers stand for, where a segmenter looks for other classes than COCO's.

    Raises:
        ValueError: the map has another size, a class is outside the 133, or an id is listed twice or below 1; the
            segment is named.
    """
    shape = panoptic.id_map.shape
    if shape != (shape[0], shape[0]) or shape[0] < grid or shape[0] % grid:
        raise ValueError(f"the panoptic map is {panoptic.id_map.shape}, the image tokens are ({grid}, {grid})")
    tokens = panoptic.id_map if shape[0] == grid else _in_tokens(panoptic, grid, categories)
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
        shown = tokens == segment.id
        if not shown.any():
            continue
        counts[segment.category_id] += 1
        number = counts[segment.category_id]
        prompt.semantic[shown] = segment.category_id + 1
        prompt.numbering[shown] = number if number <= MAX_INSTANCES else 0
        name = display_name(categories[segment.category_id].name)
        box = _box(panoptic.id_map == segment.id)
        objects.append(CrayonObject(segment_id=segment.id, category=name, number=number, box=box))
    return CrayonPrompt(prompt.semantic, prompt.numbering, tuple(objects))


def _in_tokens(panoptic: PanopticMap, grid: int, categories: Mapping[int, Category]) -> npt.NDArray[np.integer[Any]]:
    """A finer map's segment of every image token, (grid, grid): see `largest_in_cells`."""
    things = [s.id for s in panoptic.segments if categories[s.category_id].is_thing]
    others = [s.id for s in panoptic.segments if not categories[s.category_id].is_thing]
    return largest_in_cells(panoptic.id_map, things, others, grid)


def largest_in_cells(
    ids: npt.NDArray[np.integer[Any]], things: Sequence[int], others: Sequence[int], grid: int
) -> npt.NDArray[np.integer[Any]]:
    """Bring a map to a coarser grid without losing small things.

    Args:
        ids: (side, side), side being a multiple of ``grid``.
        things: ids of countable objects.
        others: ids of grounds; all further ids count as 0.
        grid: cells a side.
    Returns: (grid, grid): in each cell the largest thing, if it fills `LEAST_SHARE` of it; else whatever fills most.
    """
    step = ids.shape[0] // grid
    cells = ids.reshape(grid, step, grid, step).swapaxes(1, 2).reshape(grid, grid, 1, step * step)
    known = np.array([*things, *others, 0], ids.dtype)
    areas = (cells == known[:-1, None]).sum(-1)  # (grid, grid, segments)
    areas = np.concatenate([areas, step * step - areas.sum(-1, keepdims=True)], axis=-1)
    largest: npt.NDArray[np.integer[Any]] = known[areas.argmax(-1)]
    if things:
        of_things = areas[..., : len(things)]
        fills = of_things.max(-1) >= LEAST_SHARE * step * step
        largest = np.where(fills, known[of_things.argmax(-1)], largest)
    return largest


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
