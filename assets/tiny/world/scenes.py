"""Scenes of the tiny world: two or three grounds and up to ten things of free colours, with their exact visible masks.

Which things meet follows from the kind of scene (street, open air, indoor), so that an absent thing can be likely or
unlikely. Whatever lies in front, at least half of every thing stays visible, and a sign's text all of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .glyphs import ACCENT, BODY, GLYPHS, WORDS, text_pixels

SIGN = "stop sign"
THINGS = {
    **{"person": 1, "car": 3, "bus": 6, "boat": 9, SIGN: 13, "bird": 16, "cat": 17, "dog": 18, "umbrella": 28},
    **{"kite": 38, "bottle": 44, "cup": 47, "apple": 53, "chair": 62, "clock": 85},
}
STUFF = {
    **{"road": 149, "sand": 154, "sky-other-merged": 187, "grass-merged": 193, "floor-other-merged": 190},
    "wall-other-merged": 199,
}
"""Names and ids of COCO panoptic."""

GROUPS: dict[str, tuple[str, ...]] = {
    "street": ("person", "car", "bus", "dog", "umbrella"),
    "open air": ("person", "dog", "bird", "boat", "kite", "umbrella"),
    "indoor": ("cat", "bottle", "cup", "chair", "apple", "clock"),
}
"""Kinds of scene and the things that are met there."""

COLOURS = {
    "red": (214, 44, 44),
    "orange": (242, 140, 30),
    "yellow": (244, 224, 50),
    "green": (36, 140, 60),
    "blue": (40, 80, 214),
    "purple": (142, 60, 176),
    "white": (246, 246, 246),
    "black": (28, 28, 32),
}
_GROUNDS = {
    "sky-other-merged": (156, 204, 242),
    "grass-merged": (120, 172, 100),
    "road": (128, 128, 134),
    "sand": (222, 208, 168),
    "wall-other-merged": (208, 192, 176),
    "floor-other-merged": (150, 112, 84),
}
_LAYERS = {
    "street": (("sky-other-merged",), ("road",), ("grass-merged", "road")),
    "open air": (("sky-other-merged",), ("grass-merged", "sand"), ("sand", "grass-merged")),
    "indoor": (("wall-other-merged",), ("floor-other-merged",), ("floor-other-merged",)),
}
SIDE = 112
"""Pixels of a side for which the sizes below are given; others scale with it."""
_RADIUS = (8.0, 21.0)
_MIN_VISIBLE = 0.5
_MAX_OF_A_KIND = 6
_TRIES = 5
_SIGN_CHANCE = {"street": 0.5, "open air": 0.35, "indoor": 0.2}
Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """One region of a scene.

    Attributes:
        name: COCO panoptic class.
        pixels: bool (size, size), the visible ones.
        colour: a name of `COLOURS`; "" for a ground.
        text: what a sign says; "" for anything else.
        accent: bool (size, size), the visible pixels that have the second tone.
    """

    name: str
    pixels: Mask
    colour: str = ""
    text: str = ""
    accent: Mask | None = None

    @property
    def is_thing(self) -> bool:
        """Whether it can be counted."""
        return self.name in THINGS

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the visible pixels; the last two are the first pixel outside."""
        rows, columns = np.flatnonzero(self.pixels.any(1)), np.flatnonzero(self.pixels.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box, x and y in fractions of the image."""
        left, top, right, bottom = self.box
        height, width = self.pixels.shape
        return (left + right) / 2 / width, (top + bottom) / 2 / height


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: RGB, uint8 (size, size, 3).
        shapes: regions that divide it, things first.
        group: one of `GROUPS`; "chart" for a chart.
    """

    image: Pixels
    shapes: tuple[Shape, ...]
    group: str

    @cached_property
    def things(self) -> tuple[Shape, ...]:
        """The countable objects."""
        return tuple(shape for shape in self.shapes if shape.is_thing)

    @cached_property
    def counts(self) -> Counter[str]:
        """How many things there are of each class; classes in alphabetical order."""
        return Counter(sorted(shape.name for shape in self.things))

    @cached_property
    def single(self) -> tuple[Shape, ...]:
        """Things that are alone of their class."""
        return tuple(shape for shape in self.things if self.counts[shape.name] == 1)


@dataclass
class Canvas:
    """An image that is being drawn.

    Attributes:
        image: RGB, uint8 (size, size, 3).
        owner: which region shows at a pixel, by its place in ``regions``.
        regions: name, colour and text.
        areas: pixels of each region before anything covered it.
        tones: body or accent, at the pixels of things.
        kept: pixels that nothing may cover.
    """

    image: Pixels
    owner: npt.NDArray[np.int64]
    regions: list[tuple[str, str, str]] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    tones: Pixels = field(init=False)
    kept: Mask = field(init=False)

    def __post_init__(self) -> None:
        """Start without things."""
        self.tones = np.zeros(self.owner.shape, np.uint8)
        self.kept = np.zeros(self.owner.shape, np.bool_)

    def ground(self, name: str, first_row: int) -> None:
        """Lay a ground from a row down."""
        self.owner[first_row:] = len(self.regions)
        self.image[first_row:] = _GROUNDS[name]
        self._add(name, "", "", 0)

    def put(self, name: str, colour: str, tones: Pixels, text: str = "") -> bool:
        """Put a thing in front of all others.

        Args:
            name: class.
            colour: name of a colour.
            tones: uint8 (size, size), `BODY` and `ACCENT` where the thing is, else 0.
            text: of a sign.
        Returns: False, and nothing is drawn, if too little of another thing would stay visible, or if it would melt
            into one of its own colour.
        """
        mask = tones > 0
        touched = self._pixels(self.owner[mask], len(self.regions))
        if (mask & self.kept).any() or any(n and r[1] == colour for n, r in zip(touched, self.regions, strict=True)):
            return False
        after = np.where(mask, len(self.regions), self.owner)
        visible = self._pixels(after.ravel(), len(self.regions) + 1)
        if any(count < _MIN_VISIBLE * area for count, area in zip(visible, self.areas, strict=False)):
            return False
        self.owner = after
        np.copyto(self.tones, tones, where=mask)
        body, accent = tones_of(name, colour)
        self.image[mask] = np.array([body, accent], np.uint8)[tones[mask] - BODY]
        self._add(name, colour, text, int(visible[-1]))
        return True

    @staticmethod
    def _pixels(owners: npt.NDArray[np.int64], num: int) -> npt.NDArray[np.int64]:
        """How many pixels each of so many regions has; -1 is bare paper."""
        return np.bincount(owners + 1, minlength=num + 1)[1:]

    def _add(self, name: str, colour: str, text: str, area: int) -> None:
        self.regions.append((name, colour, text))
        self.areas.append(area)

    def scene(self, group: str) -> Scene:
        """What was drawn."""
        accents = self.tones == ACCENT
        masks = [self.owner == index for index in range(len(self.regions))]
        shapes = [
            Shape(name, mask, colour, text, mask & accents if name in THINGS else None)
            for (name, colour, text), mask in zip(self.regions, masks, strict=True)
            if mask.any()
        ]
        return Scene(self.image, tuple(sorted(shapes, key=lambda shape: not shape.is_thing)), group)


def draw_scene(rng: np.random.Generator, size: int, sign: bool | None = None) -> Scene:
    """Draw a scene of up to ten things.

    Args:
        rng: source of all chance.
        size: side in pixels.
        sign: whether there is a sign with a text; by chance if not given.
    """
    group = list(GROUPS)[int(rng.integers(len(GROUPS)))]
    canvas = _grounds(rng, size, group)
    if rng.random() < _SIGN_CHANCE[group] if sign is None else sign:
        text, cell = _text(rng)
        _put_sign(canvas, rng, size, text, cell)
    for name in _cast(rng, group):
        for _ in range(_TRIES):
            colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
            radius = size / SIDE * rng.uniform(*_RADIUS)
            x, y = rng.uniform(radius, size - radius, 2)
            if canvas.put(name, colour, draw_glyph(name, size, x, y, radius, mirrored=rng.random() < 0.5)):
                break
    noise = rng.integers(-6, 7, canvas.image.shape, np.int16)
    np.clip(canvas.image + noise, 0, 255, out=noise)
    canvas.image = noise.astype(np.uint8)
    return canvas.scene(group)


def _grounds(rng: np.random.Generator, size: int, group: str) -> Canvas:
    """Two grounds, or three in half of the scenes."""
    canvas = Canvas(np.empty((size, size, 3), np.uint8), np.zeros((size, size), np.int64))
    rows = (0, round(size * rng.uniform(0.3, 0.5)), round(size * rng.uniform(0.65, 0.8)))
    names = [names[int(rng.integers(len(names)))] for names in _LAYERS[group]]
    for index, (name, row) in enumerate(zip(names, rows, strict=True)):
        if index < 2 or (name != names[1] and rng.random() < 0.5):
            canvas.ground(name, row)
    return canvas


def _cast(rng: np.random.Generator, group: str) -> list[str]:
    """Which things to draw: few kinds, the first ones more often, now and then one from elsewhere."""
    kinds = list(rng.permutation(GROUPS[group])[: int(rng.integers(2, 5))])
    if rng.random() < 0.2:
        kinds.append(str(rng.choice([name for name in GLYPHS if name not in GROUPS[group]])))
    counts: Counter[str] = Counter()
    for _ in range(int(rng.integers(4, 10))):
        name = str(kinds[int(rng.random() ** 1.6 * len(kinds))])
        counts[name] += counts[name] < _MAX_OF_A_KIND
    return list(rng.permutation(list(counts.elements())))


def draw_glyph(name: str, size: int, x: float, y: float, radius: float, mirrored: bool = False) -> Pixels:
    """Tones of a thing, uint8 (size, size), whose middle and half side are given in pixels."""
    image = Image.new("L", (size, size))
    pen = ImageDraw.Draw(image)
    scale = np.array([-radius if mirrored else radius, radius])
    for tone, corners in GLYPHS[name]:
        pen.polygon((corners * scale + (x, y)).ravel().tolist(), fill=tone)
    return np.asarray(image)


def _text(rng: np.random.Generator) -> tuple[str, int]:
    """One digit or a word of two letters, and the pixels of a cell of its letters."""
    if rng.random() < 0.5:
        return str(rng.integers(10)), int(rng.integers(3, 5))
    return WORDS[int(rng.integers(len(WORDS)))], 3


def _put_sign(canvas: Canvas, rng: np.random.Generator, size: int, text: str, cell: int) -> None:
    """Put a sign on a pole, which nothing may cover later."""
    letters = text_pixels(text, max(1, round(cell * size / SIDE)))
    rim, pole = max(1, round(3 * size / SIDE)), max(2, round(7 * size / SIDE))
    height, width = letters.shape[0] + 2 * rim, letters.shape[1] + 2 * rim
    top, left = int(rng.integers(0, size - height - pole + 1)), int(rng.integers(0, size - width + 1))
    tones = np.zeros((size, size), np.uint8)
    tones[top : top + height, left : left + width] = BODY
    tones[top + rim : top + height - rim, left + rim : left + width - rim][letters] = ACCENT
    middle, half = left + width // 2, max(1, round(size / SIDE))
    tones[top + height : top + height + pole, middle - half : middle + half] = ACCENT
    canvas.put(SIGN, list(COLOURS)[int(rng.integers(len(COLOURS)))], tones, text)
    canvas.kept = tones > 0


def tones_of(name: str, colour: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """RGB of body and accent of a thing; a sign's letters are black or white, whichever stands out."""
    body = COLOURS[colour]
    bright = sum(body) > 380
    if name == SIGN:
        return body, COLOURS["black" if bright else "white"]
    factor = 0.5 if sum(body) > 200 else 3.0
    return body, tuple(min(255, round(part * factor)) for part in body)


def recolour(scene: Scene, thing: Shape, colour: str) -> Scene:
    """The same scene with one of its things in another colour."""
    image = scene.image.copy()
    body, accent = tones_of(thing.name, colour)
    image[thing.pixels] = body
    image[thing.accent] = accent
    shapes = tuple(replace(shape, colour=colour) if shape is thing else shape for shape in scene.shapes)
    return replace(scene, image=image, shapes=shapes)
