"""Grounding: the box that the model says overlaps the right one by at least half (IoU >= 0.5).

A record's target is a box in pixels, and ``meta`` has the image's ``width`` and ``height``. How boxes are written is a
property of the model (``configs/models``): CoLLaVO says ``[x1, y1, x2, y2]`` from 0 to 1. Others count to 100, 1,000 or
in pixels, measure on the image that was padded to a square or resized, or use tags (``<loc_12>``, ``{<1><2><30><4>}``).

Source: Yu et al. 2016 (RefCOCO, arXiv 1608.00272); accuracy at IoU 0.5 as MDETR's evaluator has it (arXiv 2104.12763),
which counts an overlap of exactly the threshold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.common.words import quoted, shown

from ..image_size import image_size
from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import DataError, Metric, Record, Score, Scored
from .base import Scorer
from .parsing import targets
from .statistics import rates

Box = tuple[float, float, float, float]
_NUMBER = r"[-+]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(?:[eE][-+]?\d{1,2}(?!\d))?"
_SEPARATOR = r"[\s,;]{1,6}"
_PAIR = rf"\s{{0,6}}{_NUMBER}{_SEPARATOR}{_NUMBER}\s{{0,6}}"
_BRACKETS = r"\[{0}\]|\({0}\)|\{{{0}\}}|<{0}>"
_FOUR_IN_ONE = _BRACKETS.format(rf"\s{{0,6}}{_NUMBER}(?:{_SEPARATOR}{_NUMBER}){{3}}\s{{0,6}}")
_TWO_CORNERS = rf"(?:{_BRACKETS.format(_PAIR)})[\s,;]{{0,6}}(?:{_BRACKETS.format(_PAIR)})"
_BOX = re.compile(f"{_FOUR_IN_ONE}|{_TWO_CORNERS}")
_FOUR = re.compile(rf"(?<![\w.]){_NUMBER}(?:[\s,;()\[\]]{{1,6}}{_NUMBER}){{3}}(?![\d.]*\d)")
_ITEM = re.compile(r"^\s{0,9}(?:\(?\d{1,3}[.)]|[-*•])\s", re.MULTILINE)
"""The mark of a list's item, whose number belongs to no box."""
_TAGS = re.compile(r"\{?" + r"[\s,]{0,3}".join([r"<(?:loc_?|bin_)?(\d{1,4})>"] * 4) + r"\}?")
_VALUE = re.compile(_NUMBER)
_OTHER_BRACKETS = str.maketrans("【】〔〕［］（）｛｝＜＞，；", "[][][](){}<>,;")
_ROUNDING = 1e-9
"""What an overlap may fall short of the threshold by, having been computed in floating point."""


@dataclass(frozen=True, kw_only=True)
class GroundingScorer(Scorer):
    """Boxes that must overlap the right one.

    Attributes:
        scale: what the model's coordinates count to: 1, 100, 1000; 0 for pixels of the frame.
        frame: what they are measured on: the image; the image in the middle of a square of its longer side; or the
            image resized to sides that are multiples of ``factor``, within ``min_pixels`` and ``max_pixels``.
        order: of a box's numbers.
        tags: whether a coordinate is a tag, with or without ``loc``; other brackets are read where there are none.
        factor: see ``frame``.
        min_pixels: see ``frame``.
        max_pixels: see ``frame``.
        threshold: overlap that must be reached.
        box: how the target is written: two corners, or a corner with width and height.
    """

    scale: float = 1.0
    threshold: float = 0.5
    box: Literal["xyxy", "xywh"] = "xyxy"
    frame: Literal["image", "padded", "resized"] = "image"
    order: Literal["xyxy", "yxyx"] = "xyxy"
    tags: bool = False
    factor: int = 28
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (self.factor >= 1 and 1 <= self.min_pixels <= self.max_pixels):
            raise DataError(f"grounding: factor is at least 1, and min_pixels from 1 to max_pixels, not {self}")
        if self.scale < 0 or not 0 < self.threshold <= 1:
            raise DataError(f"grounding: scale is at least 0 and threshold from above 0 to 1, not {self}")

    def prepare(self, record: Record) -> Record:
        """The record with its box in pixels and the size of its image, which the image knows where the table does not.

        A box that lies within one pixel is written in fractions of the image's sides.

        Raises:
            MalformedError: the target is no box with an area, or nothing tells the size of the image.
        """
        if cells.blank(record.target):
            return targets.with_target(record, targets.box)
        found = _sized(record)
        width, height = found.meta["width"], found.meta["height"]
        sides = targets.box(record.target)
        if all(0 <= side <= 1 for side in sides):
            sides = [side * whole for side, whole in zip(sides, (width, height) * 2, strict=True)]
        x1, y1, x2, y2 = (*sides[:2], sides[0] + sides[2], sides[1] + sides[3]) if self.box == "xywh" else sides
        if x2 <= x1 or y2 <= y1:
            raise MalformedError(
                f"'answer' {record.target!r} encloses nothing; it is read as {self.box} (scorer.box: xyxy | xywh)"
            )
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise MalformedError(f"'answer' {record.target!r} lies outside its image of {width:g} x {height:g} pixels")
        return targets.with_target(found, lambda _: sides)

    def own_reply(self, record: Record) -> str:
        """The box as the model would write it."""
        x1, y1, x2, y2 = self._target(record)
        left, top, across, down = self._placement(record)
        sides = [x1 / across + left, y1 / down + top, x2 / across + left, y2 / down + top]
        if self.order == "yxyx":
            sides = [sides[i] for i in (1, 0, 3, 2)]
        return f"[{', '.join(f'{side:.6f}' for side in sides)}]"

    def score(self, record: Record, text: str) -> BoxScore:
        """Read the box and compare it."""
        said = self._said(text)
        if record.target is None:
            return BoxScore(value=None, extracted="" if said is None else str(list(said)), no_answer=said is None)
        right = self._target(record)
        if said is None:
            note = "holds no box" if text.strip() else ""
            return BoxScore(value=0.0, extracted="", no_answer=True, explanation=note, iou=0.0)
        iou = overlap(self._in_pixels(said, record), right)
        right_enough = float(iou >= self.threshold - _ROUNDING)
        return BoxScore(value=right_enough, extracted=str(list(said)), iou=iou, explanation=f"IoU {iou:.3f}")

    def _target(self, record: Record) -> Box:
        try:
            x, y, z, w = (float(value) for value in record.target)
        except (TypeError, ValueError):
            raise DataError(
                f"record {shown(record.id)}: its answer is no box of four numbers: {quoted(record.target)}"
            ) from None
        return (x, y, x + z, y + w) if self.box == "xywh" else (x, y, z, w)

    def _said(self, text: str) -> Box | None:
        """The first box of a reply, x before y, on the model's scale."""
        found = _TAGS.search(text) if self.tags else None
        box = _ordered(*map(float, found.groups())) if found else read_box(text)
        if box is None or self.order == "xyxy":
            return box
        y1, x1, y2, x2 = box
        return x1, y1, x2, y2

    def _placement(self, record: Record) -> tuple[float, float, float, float]:
        """Where the image lies in the frame: its left and top there, and image pixels per unit there."""
        width, height = _size_of(record)
        if self.frame == "resized":
            columns, rows = resized(width, height, self)
        else:
            columns, rows = (max(width, height),) * 2 if self.frame == "padded" else (width, height)
        # image pixels that the frame is wide and high, and units that the model gives them
        wide, high = (width, height) if self.frame == "resized" else (columns, rows)
        units = (self.scale, self.scale) if self.scale else (columns, rows)
        across, down = wide / units[0], high / units[1]
        # a square is padded by whole pixels, the odd one after the image
        left, top = ((wide - width) // 2, (high - height) // 2) if self.frame == "padded" else (0.0, 0.0)
        return left / across, top / down, across, down

    def _in_pixels(self, box: Box, record: Record) -> Box:
        """A box of the model in the image's pixels, cut at its edges."""
        width, height = _size_of(record)
        left, top, across, down = self._placement(record)
        x1, x2 = (min(max((side - left) * across, 0.0), width) for side in (box[0], box[2]))
        y1, y2 = (min(max((side - top) * down, 0.0), height) for side in (box[1], box[3]))
        return x1, y1, x2, y2

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy and mean overlap, over all and of each split."""
        groups = rates.split_by(scored, lambda s: s.record.group)
        each = [(name, members) for name, members in groups.items() if len(groups) > 1]
        return [
            rates.accuracy(scored),
            _mean_iou(scored, ""),
            *(
                metric
                for name, members in each
                for metric in (rates.accuracy(members, group=name), _mean_iou(members, name))
            ),
            rates.no_answer(scored),
            *rates.unscored(scored),
        ]


def read_box(text: str) -> Box | None:
    """The first box of a text; None where there is none.

    A box is a bracket of any kind with exactly four numbers, or two brackets with two each; only a text without such a
    bracket is searched for four numbers that stand together, marks of list items aside. Corners in another order are
    put right: the smaller of each side first.
    """
    plain = text.translate(_OTHER_BRACKETS)
    found = _BOX.search(plain) or _FOUR.search(_ITEM.sub("", plain)) or _FOUR.search(plain)
    if not found:
        return None
    x1, y1, x2, y2 = (float(number) for number in _VALUE.findall(found[0]))
    return _ordered(x1, y1, x2, y2)


def _ordered(x1: float, y1: float, x2: float, y2: float) -> Box:
    """Corners with the smaller of each side first."""
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1; 0 where both are empty."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    union = _area(a) + _area(b) - common
    return min(1.0, common / union) if union > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


@dataclass(frozen=True, kw_only=True)
class BoxScore(Score):
    """A verdict on a box.

    Attributes:
        iou: its overlap with the right one; None where the right one is withheld.
    """

    iou: float | None = None


def _sized(record: Record) -> Record:
    """The record with the width and height of its image as numbers.

    Raises:
        MalformedError: neither the record nor its image tells.
    """
    try:
        sides = {name: float(record.meta[name]) for name in ("width", "height")}
    except (KeyError, TypeError, ValueError):
        sides = {}
    if not sides or not all(0 < side < float("inf") for side in sides.values()):
        if record.image is None:
            raise MalformedError("has neither width and height (data.keep names their columns) nor an image")
        try:
            sides = dict(zip(("width", "height"), map(float, image_size(record.image)), strict=True))
        except DataError as error:
            raise MalformedError(f"has no width and height (data.keep names their columns), and {error}") from None
        return targets.with_meta(record, sides)
    same = all(type(record.meta[name]) in (int, float) for name in sides)
    return record if same else targets.with_meta(record, sides)


def _size_of(record: Record) -> tuple[float, float]:
    """Width and height of a record's image in pixels."""
    try:
        return float(record.meta["width"]), float(record.meta["height"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"record {shown(record.id)}: its image's width and height are not known; name their columns in data.keep"
        ) from None


def resized(width: float, height: float, scorer: GroundingScorer) -> tuple[float, float]:
    """Sides of an image as Qwen2-VL's processor and those made after it resize it.

    Both sides become multiples of ``factor``; where that has more than ``max_pixels``, the largest that has not, and
    where it has less than ``min_pixels``, the smallest that has, of about the image's shape.
    Source: ``smart_resize`` of QwenLM/Qwen2.5-VL, qwen-vl-utils 0.0.8.
    """
    factor = scorer.factor
    columns, rows = (round(side / factor) * factor for side in (width, height))
    if columns * rows > scorer.max_pixels:
        ratio = math.sqrt(width * height / scorer.max_pixels)
        columns, rows = (max(factor, math.floor(side / ratio / factor) * factor) for side in (width, height))
    elif columns * rows < scorer.min_pixels:
        ratio = math.sqrt(scorer.min_pixels / (width * height))
        columns, rows = (math.ceil(side * ratio / factor) * factor for side in (width, height))
    return float(columns), float(rows)


def _mean_iou(scored: Sequence[Scored], group: str) -> Metric:
    known = [(s, s.score.iou) for s in scored if isinstance(s.score, BoxScore) and s.score.iou is not None]
    return rates.mean("mean_iou", [iou for _, iou in known], clusters=[rates.image(s) for s, _ in known], group=group)
