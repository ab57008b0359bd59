"""Panoptic maps in colours, for people to look at."""

from __future__ import annotations

import colorsys
from collections import Counter

import numpy as np
import numpy.typing as npt

from modeling.segmenters.base import PanopticMap

_HUE_STEP, _SATURATION = 0.618, 0.6
_DARKEST, _LIGHTER, _SHADES = 0.45, 0.12, 4


def colour(category: int, number: int) -> tuple[int, int, int]:
    """A hue per class, a lightness per number in the class; red, green and blue, 0 to 255."""
    lightness = _DARKEST + _LIGHTER * (number % _SHADES)
    return _bytes(*colorsys.hls_to_rgb((category + 1) * _HUE_STEP % 1, lightness, _SATURATION))


def _bytes(red: float, green: float, blue: float) -> tuple[int, int, int]:
    return round(red * 255), round(green * 255), round(blue * 255)


def segment_colours(panoptic: PanopticMap) -> npt.NDArray[np.uint8]:
    """A map in colours, RGB uint8 (height, width, 3); black where there is no segment."""
    pixels = np.zeros((*panoptic.id_map.shape, 3), np.uint8)
    counts: Counter[int] = Counter()
    for segment in panoptic.segments:
        counts[segment.category_id] += 1
        pixels[panoptic.id_map == segment.id] = colour(segment.category_id, counts[segment.category_id])
    return pixels
