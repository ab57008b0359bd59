"""Panoptic maps in colours, and over their images with numbers, boxes and a legend, for people to look at."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import find_objects

from modeling.segmenters.base import PanopticMap
from modeling.segmenters.coco import Category, display_name

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Pixels = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_HUE_STEP, _SATURATION = 0.618, 0.6
_DARKEST, _LIGHTER, _SHADES = 0.45, 0.12, 4
_LIGHTNESSES, _SATURATIONS = (0.42, 0.56, 0.68), (0.9, 0.6)

SMALLEST = 480
"""Pixels of the longer side up to which an image is enlarged before names are written on it."""
OPACITY = 0.55
"""Share of the class colour in a segment's pixels."""
_SAMPLES = 64
"""Places a side, within a segment's box, among which one for its name is looked for."""


def colour(category: int, number: int) -> Colour:
    """A hue per class, a lightness per number in the class."""
    lightness = _DARKEST + _LIGHTER * (number % _SHADES)
    return _bytes(*colorsys.hls_to_rgb((category + 1) * _HUE_STEP % 1, lightness, _SATURATION))


def class_colour(category: int) -> Colour:
    """The colour of a class, always the same and no other class's: classes next to each other differ most."""
    lightness, saturation = _LIGHTNESSES[category % 3], _SATURATIONS[category // 3 % 2]
    return _bytes(*colorsys.hls_to_rgb((category + 1) * _HUE_STEP % 1, lightness, saturation))


def _bytes(red: float, green: float, blue: float) -> Colour:
    return round(red * 255), round(green * 255), round(blue * 255)


def segment_colours(panoptic: PanopticMap, chosen: Callable[[int, int], Colour] = colour) -> Pixels:
    """A map in colours, RGB uint8 (height, width, 3); black where there is no segment.

    Args:
        panoptic: the map.
        chosen: from a segment's class and number in it to its colour.
    """
    table = np.zeros((int(panoptic.id_map.max(initial=0)) + 1, 3), np.uint8)
    counts: Counter[int] = Counter()
    for segment in panoptic.segments:
        counts[segment.category_id] += 1
        if segment.id < len(table):
            table[segment.id] = chosen(segment.category_id, counts[segment.category_id])
    found: Pixels = table[panoptic.id_map]
    return found


def write_name(pen: ImageDraw.ImageDraw, at: tuple[float, float], name: str, font: Font) -> None:
    """Write white letters with a dark rim, which can be read on any ground, centred at a place."""
    pen.text(at, name, "white", font, "mm", stroke_width=2, stroke_fill="black")


@dataclass(frozen=True, kw_only=True)
class DrawnSegment:
    """A segment as it is drawn.

    Attributes:
        name: with its number in its class, e.g. ``#2 dog``.
        category: class number.
        is_thing: countable; its box is drawn thicker.
        box: left, top, right, bottom in the map's pixels, the last two exclusive.
        at: column and row of a pixel of the segment, where its name goes.
    """

    name: str
    category: int
    is_thing: bool
    box: tuple[int, int, int, int]
    at: tuple[int, int]


def drawn_segments(panoptic: PanopticMap, categories: Mapping[int, Category]) -> Iterator[DrawnSegment]:
    """The segments of a map with their numbers, in the order of its list.

    Args:
        panoptic: the map.
        categories: what its class numbers stand for.
    """
    places = find_objects(panoptic.id_map) if panoptic.segments else []
    counts: Counter[int] = Counter()
    for segment in panoptic.segments:
        rows, columns = places[segment.id - 1]
        counts[segment.category_id] += 1
        category = categories[segment.category_id]
        left, top = _inner(panoptic.id_map[rows, columns] == segment.id)
        yield DrawnSegment(
            name=f"#{counts[segment.category_id]} {display_name(category.name)}",
            category=segment.category_id,
            is_thing=category.is_thing,
            box=(columns.start, rows.start, columns.stop, rows.stop),
            at=(columns.start + left, rows.start + top),
        )


def _inner(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Column and row of a set pixel near the middle of all; exact for small masks, of a sample for large ones."""
    steps = [max(1, side // _SAMPLES) for side in mask.shape]
    rows, columns = np.nonzero(mask[:: steps[0], :: steps[1]])
    if len(rows) == 0:  # too thin for the sample
        first = int(mask.argmax())
        return first % mask.shape[1], first // mask.shape[1]
    nearest = int(((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin())
    return int(columns[nearest]) * steps[1], int(rows[nearest]) * steps[0]


def overlay(pixels: Pixels, panoptic: PanopticMap, categories: Mapping[int, Category]) -> Image.Image:
    """An image under its map: class colours, outlines, boxes, numbered names, and a legend at the right.

    Args:
        pixels: RGB, uint8 (height, width, 3).
        panoptic: of the same height and width.
        categories: what its class numbers stand for.
    Returns: the image at its own size, or enlarged by a whole factor where it is small, with the legend next to it.
    """
    height, width = panoptic.id_map.shape
    scale = max(1, SMALLEST // max(height, width))
    letters = min(96, max(13, max(height, width) * scale // 45))
    font = ImageFont.load_default(letters)
    image = Image.fromarray(_tinted(pixels, panoptic))
    image = image.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    items = list(drawn_segments(panoptic, categories))
    for item in items:
        left, top, right, bottom = (side * scale for side in item.box)
        thick = max(1, letters // 7) if item.is_thing else 1
        pen.rectangle((left, top, right - 1, bottom - 1), outline=class_colour(item.category), width=thick)
    for item in items:
        write_name(pen, _within(pen, item, scale, image.size, font), item.name, font)
    return _beside(image, _legend(items, categories, font))


def _tinted(pixels: Pixels, panoptic: PanopticMap) -> Pixels:
    """Class colours over an image, black lines where segments meet."""
    colours = segment_colours(panoptic, lambda category, number: class_colour(category))
    mixed = np.asarray(Image.blend(Image.fromarray(pixels), Image.fromarray(colours), OPACITY)).copy()
    ids = panoptic.id_map
    np.copyto(mixed, pixels, where=(ids == 0)[..., None])
    mixed[:, 1:][ids[:, 1:] != ids[:, :-1]] = 0
    mixed[1:][ids[1:] != ids[:-1]] = 0
    return mixed


def _within(
    pen: ImageDraw.ImageDraw, item: DrawnSegment, scale: int, size: tuple[int, int], font: Font
) -> tuple[float, float]:
    """Where a name is centred: at its segment, but not beyond the image's edge where it fits into it."""
    left, top, right, bottom = pen.textbbox((0, 0), item.name, font, stroke_width=2)
    middle = []
    for place, length, side in zip(item.at, (right - left, bottom - top), size, strict=True):
        half = length / 2
        middle.append(min(max((place + 0.5) * scale, half), side - half) if length <= side else side / 2)
    return middle[0], middle[1]


def _legend(items: Sequence[DrawnSegment], categories: Mapping[int, Category], font: Font) -> Image.Image:
    """A line for each class in the map: its colour, its name, how many segments; white."""
    counts = Counter(item.category for item in items)
    lines = [f"{display_name(categories[category].name)}  {number}" for category, number in sorted(counts.items())]
    row = round(_height(font) * 1.5)
    longest = max((font.getlength(line) for line in [*lines, _EMPTY]), default=0)
    image = Image.new("RGB", (round(longest) + 3 * row, row * max(1, len(lines)) + row), "white")
    pen = ImageDraw.Draw(image)
    for number, (category, line) in enumerate(zip(sorted(counts), lines, strict=True)):
        top = row // 2 + number * row
        pen.rectangle((row // 2, top + row // 8, row * 5 // 4, top + row * 7 // 8), class_colour(category), "black")
        pen.text((row * 3 // 2, top + row // 2), line, "black", font, "lm")
    if not lines:
        pen.text((row * 3 // 2, row), _EMPTY, "black", font, "lm")
    return image


_EMPTY = "no segments"


def _height(font: Font) -> float:
    left, top, right, bottom = font.getbbox("#Ag")
    return bottom - top


def _beside(image: Image.Image, legend: Image.Image) -> Image.Image:
    """An image with a legend at its right; white where one is shorter than the other."""
    sheet = Image.new("RGB", (image.width + legend.width, max(image.height, legend.height)), "white")
    sheet.paste(image, (0, 0))
    sheet.paste(legend, (image.width, 0))
    return sheet
