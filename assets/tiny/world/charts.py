"""Charts of the tiny world: columns of drawn things, as many as the chart tells, each column in a colour of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .glyphs import GLYPHS
from .scenes import COLOURS, Canvas, Scene, draw_glyph

_TALLEST = 5
_PAPER = (252, 250, 244)


def draw_chart(
    rng: np.random.Generator, size: int, columns: int = 3, heights: Mapping[str, int] | None = None
) -> Scene:
    """Draw a chart; no two columns are of the same height.

    Args:
        rng: source of all chance.
        size: side in pixels.
        columns: how many, up to five.
        heights: class -> how many of it; drawn by chance if not given.
    """
    if heights is None:
        names = rng.permutation(list(GLYPHS))[:columns]
        numbers = rng.permutation(np.arange(1, _TALLEST + 1))[:columns]
        heights = {str(name): int(number) for name, number in zip(names, numbers, strict=True)}
    colours = rng.permutation(list(COLOURS))
    canvas = Canvas(np.full((size, size, 3), _PAPER, np.uint8), np.full((size, size), -1, np.int64))
    canvas.image[-max(1, size // 56) :] = 0  # the base line
    cell = size / _TALLEST
    for column, (name, height) in enumerate(heights.items()):
        x = size * (column + 0.5) / len(heights)
        for row in range(height):
            y = size - (row + 0.5) * cell
            canvas.put(name, str(colours[column]), draw_glyph(name, size, x, y, 0.42 * cell))
    return canvas.scene("chart")
