"""The classes an X-Decoder looks for: their names, which are things, and the numbers that segments carry.

A segment's number is a row of CoLLaVO's crayon table, which has one row per category of COCO panoptic. Names of COCO
panoptic keep their row, so that a shorter list means the same to CoLLaVO; other names take rows that are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..coco import COCO_PANOPTIC, NUM_CLASSES, Category, coco_index, display_name
from ..errors import SegmenterError
from .prompts import BACKGROUND


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Classes in the order of the network's logits, without the background.

    Attributes:
        names: as given, suffixes of COCO panoptic included.
        is_thing: per class whether it is countable.
        numbers: per class what `Segment.category_id` holds, 0..132.
    """

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    numbers: tuple[int, ...]

    @property
    def categories(self) -> dict[int, Category]:
        """Each number's category; one that is not of COCO panoptic has an id above 1000, which COCO leaves free."""
        rows = zip(self.names, self.is_thing, self.numbers, strict=True)
        return {
            number: Category(COCO_PANOPTIC[number].id if coco_index(name) == number else 1001 + number, name, is_thing)
            for name, is_thing, number in rows
        }


def class_list(names: Sequence[str] = (), stuff: Sequence[str] = ()) -> ClassList:
    """Make the list of classes.

    Args:
        names: in the order of the logits; empty for COCO panoptic.
        stuff: those of them that are stuff although COCO panoptic has no such stuff.

    Raises:
        SegmenterError: too many names, an empty or repeated one, the background, or ``stuff`` that is not named.
    """
    chosen = tuple(names) or tuple(category.name for category in COCO_PANOPTIC)
    _check(chosen, stuff)
    rows = [coco_index(name) for name in chosen]
    is_thing = tuple(
        name not in stuff and (row is None or COCO_PANOPTIC[row].is_thing)
        for name, row in zip(chosen, rows, strict=True)
    )
    left = [index for index in range(NUM_CLASSES) if index not in rows]
    numbers = []
    for row, thing in zip(rows, is_thing, strict=True):
        if row is None:  # a row of the same kind where there is one left: CoLLaVO counts things apart
            row = next((index for index in left if COCO_PANOPTIC[index].is_thing == thing), left[0])
            left.remove(row)
        numbers.append(row)
    return ClassList(names=chosen, is_thing=is_thing, numbers=tuple(numbers))


def _check(names: Sequence[str], stuff: Sequence[str]) -> None:
    if len(names) > NUM_CLASSES:
        raise SegmenterError(
            f"SEGMENTER.CLASSES: {len(names)} classes, at most {NUM_CLASSES} are possible: CoLLaVO's crayon table has "
            f"one row per category of COCO panoptic, and its weights are trained for these {NUM_CLASSES}"
        )
    shown = Counter(display_name(name).strip() for name in names)
    if "" in shown or BACKGROUND in shown:
        raise SegmenterError(
            f"SEGMENTER.CLASSES: no class can be called '' or {BACKGROUND}; the latter is always added"
        )
    if twice := [name for name, count in shown.items() if count > 1]:
        raise SegmenterError(f"SEGMENTER.CLASSES: {', '.join(map(repr, twice))} stands there more than once")
    if unnamed := [name for name in stuff if name not in names]:
        raise SegmenterError(f"SEGMENTER.STUFF: {', '.join(map(repr, unnamed))} is not among SEGMENTER.CLASSES")
