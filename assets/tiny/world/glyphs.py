"""What the things of the tiny world look like: polygons in a square from -1 to 1 (y downwards), and a pixel font.

A polygon has a shade: the body, which has the thing's free colour, or the accent, a darker or lighter tone of it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BODY, ACCENT = 1, 2
Polygon = tuple[int, npt.NDArray[np.float64]]
"""Shade and corners (n, 2) as x, y."""


def _points(*corners: float) -> npt.NDArray[np.float64]:
    return np.array(corners, np.float64).reshape(-1, 2)


def _oval(x: float, y: float, a: float, b: float, start: float = 0.0, end: float = 2.0) -> npt.NDArray[np.float64]:
    """An ellipse, or the part of it between two angles in units of pi, clockwise from the right."""
    turn = np.linspace(start * math.pi, end * math.pi, 20)
    return np.stack([x + a * np.cos(turn), y + b * np.sin(turn)], axis=1)


def _bar(left: float, top: float, right: float, bottom: float) -> npt.NDArray[np.float64]:
    return _points(left, top, right, top, right, bottom, left, bottom)


GLYPHS: dict[str, tuple[Polygon, ...]] = {
    "person": (
        (BODY, _points(-0.45, 0.3, -0.3, -0.3, 0.3, -0.3, 0.45, 0.3)),
        (BODY, _bar(-0.3, 0.3, -0.06, 1.0)),
        (BODY, _bar(0.06, 0.3, 0.3, 1.0)),
        (BODY, _points(0.25, -0.3, 0.75, -0.75, 0.85, -0.6, 0.4, 0.1)),
        (ACCENT, _oval(0, -0.65, 0.3, 0.33)),
    ),
    "car": (
        (BODY, _points(-1, 0.35, -1, -0.05, -0.6, -0.12, -0.35, -0.55, 0.45, -0.55, 0.75, -0.1, 1, 0, 1, 0.35)),
        (ACCENT, _points(-0.4, -0.12, -0.25, -0.42, 0.38, -0.42, 0.55, -0.12)),
        (ACCENT, _oval(-0.55, 0.38, 0.25, 0.25)),
        (ACCENT, _oval(0.55, 0.38, 0.25, 0.25)),
    ),
    "bus": (
        (BODY, _bar(-1, -0.75, 1, 0.5)),
        (ACCENT, _bar(-0.85, -0.55, -0.4, -0.1)),
        (ACCENT, _bar(-0.25, -0.55, 0.2, -0.1)),
        (ACCENT, _bar(0.35, -0.55, 0.85, -0.1)),
        (ACCENT, _oval(-0.55, 0.5, 0.24, 0.24)),
        (ACCENT, _oval(0.55, 0.5, 0.24, 0.24)),
    ),
    "dog": (
        (BODY, _bar(-0.6, -0.2, 0.55, 0.3)),
        (BODY, _points(-0.6, -0.15, -1, -0.7, -0.85, -0.75, -0.45, -0.2)),
        (BODY, _bar(-0.55, 0.3, -0.35, 0.85)),
        (BODY, _bar(0.3, 0.3, 0.5, 0.85)),
        (BODY, _points(0.35, -0.2, 0.4, -0.65, 0.75, -0.65, 1, -0.35, 1, -0.15, 0.55, -0.05)),
        (ACCENT, _points(0.4, -0.65, 0.6, -0.65, 0.5, -0.15)),
    ),
    "cat": (
        (BODY, _oval(-0.1, 0.45, 0.55, 0.52)),
        (BODY, _points(-0.55, 0.8, -1, 0.6, -0.95, 0.05, -0.8, 0.05, -0.8, 0.5, -0.5, 0.6)),
        (BODY, _oval(0.2, -0.25, 0.45, 0.4)),
        (BODY, _points(-0.2, -0.35, -0.2, -0.95, 0.15, -0.6)),
        (BODY, _points(0.6, -0.35, 0.6, -0.95, 0.25, -0.6)),
        (ACCENT, _oval(0.05, -0.28, 0.09, 0.09)),
        (ACCENT, _oval(0.36, -0.28, 0.09, 0.09)),
    ),
    "bird": (
        (BODY, _oval(0, 0.1, 0.6, 0.32)),
        (BODY, _oval(0.6, -0.2, 0.27, 0.25)),
        (BODY, _points(-0.5, 0.0, -1, -0.2, -1, 0.3)),
        (ACCENT, _points(0.84, -0.27, 1, -0.15, 0.84, -0.05)),
        (ACCENT, _points(-0.3, 0.05, -0.3, -0.75, 0.25, 0.05)),
    ),
    "boat": (
        (BODY, _points(-1, 0.35, 1, 0.35, 0.65, 0.85, -0.65, 0.85)),
        (ACCENT, _bar(-0.08, -0.95, 0.04, 0.35)),
        (BODY, _points(0.1, -0.9, 0.8, 0.2, 0.1, 0.2)),
    ),
    "kite": (
        (BODY, _points(0, -1, 0.65, -0.2, 0, 0.7, -0.65, -0.2)),
        (ACCENT, _points(-0.65, -0.2, 0, -0.3, 0.65, -0.2, 0, -0.1)),
        (ACCENT, _points(-0.05, 0.7, 0.3, 0.85, 0.1, 1, 0.2, 0.85)),
    ),
    "umbrella": (
        (BODY, _oval(0, -0.05, 1, 0.85, 1.0, 2.0)),
        (ACCENT, _bar(-0.07, -0.05, 0.07, 0.9)),
        (ACCENT, _bar(-0.35, 0.78, 0.07, 0.93)),
    ),
    "bottle": (
        (BODY, _points(-0.42, 1, -0.42, -0.05, -0.16, -0.4, -0.16, -0.8, 0.16, -0.8, 0.16, -0.4, 0.42, -0.05, 0.42, 1)),
        (ACCENT, _bar(-0.2, -1, 0.2, -0.8)),
        (ACCENT, _bar(-0.42, 0.2, 0.42, 0.65)),
    ),
    "cup": (
        (ACCENT, _oval(0.6, -0.05, 0.36, 0.4)),
        (BODY, _points(-0.75, -0.7, 0.6, -0.7, 0.42, 0.75, -0.57, 0.75)),
        (ACCENT, _bar(-0.75, -0.75, 0.6, -0.52)),
    ),
    "chair": (
        (BODY, _bar(-0.6, -1, -0.35, 1)),
        (BODY, _bar(-0.6, 0, 0.6, 0.25)),
        (BODY, _bar(0.38, 0.2, 0.6, 1)),
        (ACCENT, _bar(-0.35, -0.95, -0.2, -0.1)),
    ),
    "apple": (
        (BODY, _oval(-0.28, 0.2, 0.5, 0.65)),
        (BODY, _oval(0.28, 0.2, 0.5, 0.65)),
        (ACCENT, _bar(-0.07, -0.85, 0.07, -0.3)),
        (ACCENT, _points(0.05, -0.55, 0.55, -0.95, 0.5, -0.55)),
    ),
    "clock": (
        (ACCENT, _oval(0, 0, 0.95, 0.95)),
        (BODY, _oval(0, 0, 0.75, 0.75)),
        (ACCENT, _bar(-0.08, -0.6, 0.08, 0.08)),
        (ACCENT, _bar(-0.08, -0.08, 0.5, 0.08)),
    ),
}
"""Every thing but the sign, whose shape follows from its text."""

WORDS = ("GO", "UP", "IN", "TO", "HI", "OK", "BY", "AT")
_FONT = {
    "0": "###|#.#|#.#|#.#|###",
    "1": ".#.|##.|.#.|.#.|###",
    "2": "###|..#|###|#..|###",
    "3": "###|..#|.##|..#|###",
    "4": "#.#|#.#|###|..#|..#",
    "5": "###|#..|###|..#|###",
    "6": "###|#..|###|#.#|###",
    "7": "###|..#|.#.|.#.|.#.",
    "8": "###|#.#|###|#.#|###",
    "9": "###|#.#|###|..#|###",
    "A": ".#.|#.#|###|#.#|#.#",
    "B": "##.|#.#|##.|#.#|##.",
    "C": "###|#..|#..|#..|###",
    "D": "##.|#.#|#.#|#.#|##.",
    "G": "###|#..|#.#|#.#|###",
    "H": "#.#|#.#|###|#.#|#.#",
    "I": "###|.#.|.#.|.#.|###",
    "K": "#.#|##.|#..|##.|#.#",
    "N": "##.|#.#|#.#|#.#|#.#",
    "O": "###|#.#|#.#|#.#|###",
    "P": "###|#.#|###|#..|#..",
    "T": "###|.#.|.#.|.#.|.#.",
    "U": "#.#|#.#|#.#|#.#|###",
    "Y": "#.#|#.#|.#.|.#.|.#.",
}


def text_pixels(text: str, cell: int) -> npt.NDArray[np.bool_]:
    """A text in the pixel font, bool (5 cells, 4 cells a character less 1), each cell a square of so many pixels."""
    gap = np.zeros((5, 1), np.bool_)
    parts: list[npt.NDArray[np.bool_]] = []
    for character in text:
        parts += [np.array([[dot == "#" for dot in row] for row in _FONT[character].split("|")]), gap]
    cells: npt.NDArray[np.bool_] = np.concatenate(parts[:-1], axis=1)
    return np.kron(cells, np.ones((cell, cell), np.bool_))
