"""Grounding: the box that the model says overlaps the right one by at least half (IoU >= 0.5).

A record's target is a box in pixels, and ``meta`` has the image's ``width`` and ``height``. The model says
``[x1, y1, x2, y2]`` on a scale of its own: CoLLaVO from 0 to 1, others up to 100 or 1,000.

Source: Yu et al. 2016 (RefCOCO, arXiv 1608.00272); accuracy at IoU 0.5 as MDETR's evaluator has it (arXiv 2104.12763),
which counts an overlap of exactly the threshold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.common.words import quoted, shown

from ..image_size import image_size
from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import DataError, Metric, Record, Score, Scored
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
_VALUE = re.compile(_NUMBER)
_OTHER_BRACKETS = str.maketrans("【】〔〕［］（）｛｝＜＞，；", "[][][](){}<>,;")
_ROUNDING = 1e-9
"""What an overlap may fall short of the threshold by, having been computed in floating point."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How boxes are written and compared.

    Attributes:
        scale: what the model's coordinates count to: 1, 100, 1000; 0 for pixels.
        threshold: overlap that must be reached.
        box: how the target is written: two corners, or a corner with width and height.
    """

    scale: float = 1.0
    threshold: float = 0.5
    box: Literal["xyxy", "xywh"] = "xyxy"

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.scale < 0 or not 0 < self.threshold <= 1:
            raise DataError(f"grounding: scale is at least 0 and threshold from above 0 to 1, not {self}")


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
class Located(Score):
    """A verdict on a box.

    Attributes:
        iou: its overlap with the right one; None where the right one is withheld.
    """

    iou: float | None = None


def prepare(record: Record, options: Options) -> Record:
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
    x1, y1, x2, y2 = (*sides[:2], sides[0] + sides[2], sides[1] + sides[3]) if options.box == "xywh" else sides
    if x2 <= x1 or y2 <= y1:
        raise MalformedError(
            f"'answer' {record.target!r} encloses nothing; it is read as {options.box} (scorer.box: xyxy | xywh)"
        )
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise MalformedError(f"'answer' {record.target!r} lies outside its image of {width:g} x {height:g} pixels")
    return targets.with_target(found, lambda _: sides)


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


def own_reply(record: Record, options: Options) -> str:
    """The box on the model's scale."""
    x1, y1, x2, y2 = _target(record, options)
    across, down = (options.scale / record.meta[name] if options.scale else 1.0 for name in ("width", "height"))
    return f"[{x1 * across:.6f}, {y1 * down:.6f}, {x2 * across:.6f}, {y2 * down:.6f}]"


def score(record: Record, text: str, options: Options) -> Located:
    """Read the box and compare it."""
    said = read_box(text)
    if record.target is None:
        return Located(value=None, extracted="" if said is None else str(list(said)), no_answer=said is None)
    right = _target(record, options)
    if said is None:
        note = "holds no box" if text.strip() else ""
        return Located(value=0.0, extracted="", no_answer=True, explanation=note, iou=0.0)
    iou = overlap(_in_pixels(said, record, options.scale), right)
    right_enough = float(iou >= options.threshold - _ROUNDING)
    return Located(value=right_enough, extracted=str(list(said)), iou=iou, explanation=f"IoU {iou:.3f}")


def _target(record: Record, options: Options) -> Box:
    try:
        x, y, z, w = (float(value) for value in record.target)
    except (TypeError, ValueError):
        raise DataError(
            f"record {shown(record.id)}: its answer is no box of four numbers: {quoted(record.target)}"
        ) from None
    return (x, y, x + z, y + w) if options.box == "xywh" else (x, y, z, w)


def _in_pixels(box: Box, record: Record, scale: float) -> Box:
    """A box of the model in the image's pixels, cut at its edges."""
    try:
        width, height = float(record.meta["width"]), float(record.meta["height"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"record {shown(record.id)}: its image's width and height are not known; name their columns in data.keep"
        ) from None
    across, down = (width / scale, height / scale) if scale else (1.0, 1.0)
    x1, x2 = (min(max(side * across, 0.0), width) for side in (box[0], box[2]))
    y1, y2 = (min(max(side * down, 0.0), height) for side in (box[1], box[3]))
    return x1, y1, x2, y2


def summarize(scored: Sequence[Scored], options: Options) -> list[Metric]:
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


def _mean_iou(scored: Sequence[Scored], group: str) -> Metric:
    known = [(s, s.score.iou) for s in scored if isinstance(s.score, Located) and s.score.iou is not None]
    return rates.mean("mean_iou", [iou for _, iou in known], clusters=[rates.image(s) for s, _ in known], group=group)
