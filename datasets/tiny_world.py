"""A tiny world of drawn scenes, in the release formats of real datasets, made from a seed.

    python -m datasets.tiny_world DIR --seed 0

writes pictures (``coco2014/val2014``), their exact panoptic maps in COCO's layout (``coco_panoptic``) and a mini POPE
in its official format (``POPE``). The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .types import DataError

VERSION = 1
"""Raised when the same seed draws something else."""

MARKER = "made_from_seed.txt"
THINGS = {"person": 1, "car": 3, "dog": 18, "umbrella": 28, "kite": 38, "cup": 47, "apple": 53, "clock": 85}
STUFF = {"sky-other-merged": 187, "grass-merged": 193, "road": 149, "sand": 154}
"""Names and ids of COCO panoptic."""

_GROUNDS = {
    "sky-other-merged": (120, 180, 235),
    "grass-merged": (80, 150, 60),
    "road": (110, 110, 115),
    "sand": (220, 200, 140),
}
_MIN_VISIBLE = 0.5
_QUESTIONS_PER_PICTURE = 3
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Shape:
    """One region of a scene.

    Attributes:
        name: COCO panoptic class.
        pixels: bool (size, size), the visible ones.
    """

    name: str
    pixels: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        picture: RGB, uint8 (size, size, 3).
        shapes: regions that divide it, things first.
    """

    picture: npt.NDArray[np.uint8]
    shapes: tuple[Shape, ...]

    @property
    def things(self) -> set[str]:
        """Names of the countable objects in it."""
        return {shape.name for shape in self.shapes if shape.name in THINGS}


def _blob(x: float, y: float, r: float) -> list[Points]:
    """A person: head and body."""
    return [_ellipse(x, y - 0.6 * r, 0.35 * r, 0.4 * r), [(x - 0.5 * r, y + r), (x, y - 0.4 * r), (x + 0.5 * r, y + r)]]


def _ellipse(x: float, y: float, a: float, b: float) -> Points:
    return [(x + a * math.cos(t), y + b * math.sin(t)) for t in np.linspace(0, 2 * math.pi, 24, endpoint=False)]


def _box(x: float, y: float, a: float, b: float) -> Points:
    return [(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)]


_GLYPHS: dict[str, Callable[[float, float, float], list[Points]]] = {
    "person": _blob,
    "car": lambda x, y, r: [
        _box(x, y + 0.2 * r, r, 0.35 * r),
        _box(x, y - 0.3 * r, 0.55 * r, 0.35 * r),
        _ellipse(x - 0.55 * r, y + 0.6 * r, 0.25 * r, 0.25 * r),
        _ellipse(x + 0.55 * r, y + 0.6 * r, 0.25 * r, 0.25 * r),
    ],
    "dog": lambda x, y, r: [
        _box(x, y, 0.7 * r, 0.3 * r),
        _ellipse(x + 0.8 * r, y - 0.35 * r, 0.3 * r, 0.3 * r),
        _box(x - 0.5 * r, y + 0.55 * r, 0.12 * r, 0.35 * r),
        _box(x + 0.5 * r, y + 0.55 * r, 0.12 * r, 0.35 * r),
    ],
    "umbrella": lambda x, y, r: [
        [(x - r, y), (x - 0.6 * r, y - 0.7 * r), (x, y - r), (x + 0.6 * r, y - 0.7 * r), (x + r, y)],
        _box(x, y + 0.4 * r, 0.08 * r, 0.6 * r),
    ],
    "kite": lambda x, y, r: [[(x, y - r), (x + 0.6 * r, y - 0.1 * r), (x, y + r), (x - 0.6 * r, y - 0.1 * r)]],
    "cup": lambda x, y, r: [
        [
            (x - 0.6 * r, y - 0.7 * r),
            (x + 0.6 * r, y - 0.7 * r),
            (x + 0.4 * r, y + 0.8 * r),
            (x - 0.4 * r, y + 0.8 * r),
        ],
        _ellipse(x + 0.7 * r, y, 0.25 * r, 0.3 * r),
    ],
    "apple": lambda x, y, r: [_ellipse(x, y + 0.1 * r, 0.75 * r, 0.7 * r), _box(x, y - 0.8 * r, 0.06 * r, 0.2 * r)],
    "clock": lambda x, y, r: [_ellipse(x, y, 0.9 * r, 0.9 * r)],
}


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw one scene: two grounds and three to seven things, each at least half visible.

    Args:
        rng: source of all chance.
        size: side in pixels.
    """
    horizon = int(size * rng.uniform(0.3, 0.5))
    ground = str(rng.choice([name for name in STUFF if name != "sky-other-merged"]))
    picture = np.empty((size, size, 3), np.uint8)
    owner = np.zeros((size, size), np.int64)  # 0 sky, 1 ground, 2.. things
    picture[:horizon], picture[horizon:] = _GROUNDS["sky-other-merged"], _GROUNDS[ground]
    owner[horizon:] = 1
    names, areas = ["sky-other-merged", ground], [0, 0]
    kinds = rng.choice(list(THINGS), size=3, replace=False)
    for _ in range(int(rng.integers(3, 8))):
        name = str(rng.choice(kinds))
        mask = _mask(name, rng, size)
        after = np.where(mask, len(names), owner)
        visible = np.bincount(after.ravel(), minlength=len(names) + 1)
        if any(visible[i] < _MIN_VISIBLE * areas[i] for i in range(2, len(names))):
            continue
        owner = after
        picture[mask] = rng.integers(20, 236, 3)
        names.append(name)
        areas.append(int(mask.sum()))
    order = [*range(2, len(names)), 0, 1]
    shapes = tuple(Shape(names[i], owner == i) for i in order if (owner == i).any())
    return Scene(picture, shapes)


def _mask(name: str, rng: np.random.Generator, size: int) -> npt.NDArray[np.bool_]:
    """Pixels of a thing at a random place and size."""
    radius = size * rng.uniform(0.08, 0.16)
    x, y = rng.uniform(radius, size - radius, 2)
    canvas = Image.new("1", (size, size))
    pen = ImageDraw.Draw(canvas)
    for polygon in _GLYPHS[name](x, y, radius):
        pen.polygon(polygon, fill=1)
    return np.asarray(canvas, dtype=bool)


def write_world(directory: Path, seed: int, scenes: int, size: int) -> bool:
    """Write the world, or leave a complete one alone.

    Args:
        directory: made if absent.
        seed: of everything.
        scenes: how many pictures.
        size: side of a picture in pixels.
    Returns: whether anything was written.
    Raises:
        DataError: the directory holds something else.
    """
    description = f"tiny world version {VERSION}, seed {seed}, {scenes} scenes of {size} px\n"
    marker = directory / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == description:
        return False
    if directory.exists() and any(directory.iterdir()):
        raise DataError(f"{directory} is not the tiny world of these settings: remove it or choose another folder")
    rng = np.random.default_rng(seed)
    drawn = [draw_scene(rng, size) for _ in range(scenes)]
    partial = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
    names = [f"COCO_val2014_{number + 1:012d}" for number in range(scenes)]
    _write_pictures(partial / "coco2014" / "val2014", drawn, names)
    _write_panoptic(partial / "coco_panoptic", drawn, names)
    _write_pope(partial / "POPE", drawn, names, rng)
    (partial / MARKER).write_text(description, encoding="utf-8")
    if directory.exists():
        directory.rmdir()
    try:
        partial.rename(directory)
    except OSError:  # another process was faster; its world is the same
        shutil.rmtree(partial)
    return True


def _write_pictures(folder: Path, scenes: Sequence[Scene], names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for scene, name in zip(scenes, names, strict=True):
        Image.fromarray(scene.picture).save(folder / f"{name}.jpg", quality=95)


def _write_panoptic(folder: Path, scenes: Sequence[Scene], names: Sequence[str]) -> None:
    """COCO's layout: ``panoptic_val.json`` and PNGs whose colour is the segment's id (R + 256 G + 65536 B)."""
    (folder / "panoptic_val").mkdir(parents=True)
    images, annotations = [], []
    for number, (scene, name) in enumerate(zip(scenes, names, strict=True), start=1):
        height, width, _ = scene.picture.shape
        ids = np.zeros((height, width), np.int64)
        infos = []
        for index, shape in enumerate(scene.shapes):
            ids[shape.pixels] = index + 1
            infos.append(_segment_info(index + 1, shape))
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(folder / "panoptic_val" / f"{name}.png")
        sides = {"height": len(ids), "width": ids.shape[1]}
        images.append({"id": number, "file_name": f"{name}.jpg", **sides})
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": infos})
    categories = [{"id": i, "name": name, "isthing": int(name in THINGS)} for name, i in (THINGS | STUFF).items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic_val.json").write_text(json.dumps(content), encoding="utf-8")


def _segment_info(segment_id: int, shape: Shape) -> dict[str, Any]:
    """An entry of ``segments_info``; the box is x, y, width, height in pixels."""
    rows, columns = np.flatnonzero(shape.pixels.any(1)), np.flatnonzero(shape.pixels.any(0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "id": segment_id,
        "category_id": (THINGS | STUFF)[shape.name],
        "area": int(shape.pixels.sum()),
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "iscrowd": 0,
    }


def _write_pope(folder: Path, scenes: Sequence[Scene], names: Sequence[str], rng: np.random.Generator) -> None:
    """POPE's three lists: as many absent objects as present ones, drawn in POPE's three ways (arXiv 2305.10355)."""
    folder.mkdir(parents=True)
    frequency = Counter(name for scene in scenes for name in sorted(scene.things))
    together = Counter((a, b) for scene in scenes for a in sorted(scene.things) for b in sorted(scene.things) if a != b)
    rankings: dict[str, Callable[[Scene, str], float]] = {
        "random": lambda scene, name: float(rng.random()),
        "popular": lambda scene, name: -frequency[name],
        "adversarial": lambda scene, name: -sum(together[present, name] for present in scene.things),
    }
    for split, rank in rankings.items():
        lines: list[str] = []
        for scene, picture in zip(scenes, names, strict=True):
            present = sorted(scene.things)[:_QUESTIONS_PER_PICTURE]
            ranks = {name: rank(scene, name) for name in THINGS if name not in scene.things}
            absent = sorted(ranks, key=lambda name: (ranks[name], name))[: len(present)]
            for pair in zip(present, absent, strict=True):
                for name, label in zip(pair, ("yes", "no"), strict=True):
                    article = "an" if name[0] in "aeiou" else "a"
                    text = f"Is there {article} {name} in the image?"
                    line = {"question_id": len(lines) + 1, "image": f"{picture}.jpg", "text": text, "label": label}
                    lines.append(json.dumps(line) + "\n")
        (folder / f"coco_pope_{split}.json").write_text("".join(lines), encoding="utf-8")


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Draw a tiny world in the release formats of real datasets.")
    parser.add_argument("directory", type=Path, help="where it goes")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=24, help="pictures (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of a picture in pixels (default: %(default)s)")
    args = parser.parse_args()
    try:
        made = write_world(args.directory, args.seed, args.scenes, args.size)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    state = "" if made else ", as it was"
    sys.stdout.write(f"tiny world ({args.scenes} scenes, seed {args.seed}): {args.directory}{state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
