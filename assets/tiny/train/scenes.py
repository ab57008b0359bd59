"""Scenes of the tiny world in memory, with what each image token shows, and questions about them.

Shape legend: N scenes, S pixels a side, P image tokens.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from collavo.crayon import crayon_prompt, largest_in_cells
from collavo.instructions import KINDS, AskedClasses, make_instruction, possible_kinds
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import INDEX_BY_NAME, display_name

from ..world import COLOURS, STUFF, THINGS, Scene, draw_scene
from ..world.glyphs import WORDS
from ..world.lessons import Lesson, lessons
from ..world.school import SIGN_CHANCE, TEACHING

CLASSES = (*THINGS, *STUFF)
COLOUR_NAMES = tuple(COLOURS)
TEXTS = (*map(str, range(10)), *WORDS)
_CHUNK = 250
_INSTRUCTIONS = {"class_binary": 3, "box_class": 4, "class_boxes": 2, "box_numbered": 2}
_CLASSES = AskedClasses(names=tuple(display_name(name) for name in CLASSES))


@dataclass(frozen=True, kw_only=True)
class DrawnScenes:
    """Scenes.

    Attributes:
        images: RGB, uint8 (N, S, S, 3).
        labels: int8 (N, P, 3): class (of `CLASSES`), colour (of `COLOUR_NAMES`) and text of a sign (of `TEXTS`) that an
            image token shows; -1 for none.
        lessons: questions about each scene.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int8]
    lessons: Sequence[Sequence[Lesson]]


def draw(seed: int, num: int, size: int, grid: int, workers: int) -> DrawnScenes:
    """Draw scenes.

    Args:
        seed: of everything; the number of workers changes nothing.
        num: N.
        size: S.
        grid: image tokens a side.
        workers: processes.
    """
    chunks = [(start, min(_CHUNK, num - start)) for start in range(0, num, _CHUNK)]
    task = partial(_draw_chunk, seed, size, grid)
    with multiprocessing.get_context("fork" if workers == 1 else "spawn").Pool(workers) as pool:
        parts = pool.map(task, chunks, chunksize=1)
    return DrawnScenes(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        lessons=[lesson for part in parts for lesson in part.lessons],
    )


def _draw_chunk(seed: int, size: int, grid: int, chunk: tuple[int, int]) -> DrawnScenes:
    start, num = chunk
    rng = np.random.default_rng([TEACHING, seed, 0, start])
    scenes = [draw_scene(rng, size, bool(rng.random() < SIGN_CHANCE)) for _ in range(num)]
    return DrawnScenes(
        images=np.stack([scene.image for scene in scenes]),
        labels=np.stack([token_labels(scene, grid) for scene in scenes]),
        lessons=[lessons(scene, rng) + object_lessons(scene, grid, rng) for scene in scenes],
    )


def panoptic_map(scene: Scene) -> PanopticMap:
    """A scene's exact map, at its own size."""
    ids = np.zeros(scene.image.shape[:2], np.int32)
    for number, shape in enumerate(scene.shapes, start=1):
        ids[shape.pixels] = number
    segments = (
        Segment(id=number, category_id=INDEX_BY_NAME[shape.name], score=1.0)
        for number, shape in enumerate(scene.shapes, start=1)
    )
    return PanopticMap(ids, tuple(segments))


def object_lessons(scene: Scene, grid: int, rng: np.random.Generator) -> list[Lesson]:
    """Crayon instructions on a scene, several of each kind."""
    objects = crayon_prompt(panoptic_map(scene), grid).objects
    found = []
    for kind in possible_kinds(objects, KINDS, _CLASSES):
        for _ in range(_INSTRUCTIONS.get(kind, 1)):
            turn = make_instruction(kind, objects, _CLASSES, rng)
            found.append(Lesson(kind=kind, question=turn.question, answer=turn.answer))
    return found


def token_labels(scene: Scene, grid: int) -> npt.NDArray[np.int8]:
    """Class, colour and text at every image token, int8 (P, 3); see `DrawnScenes`."""
    ids = np.zeros(scene.image.shape[:2], np.int64)
    table = [(-1, -1, -1)]
    for number, shape in enumerate(scene.shapes, start=1):
        ids[shape.pixels] = number
        colour = COLOUR_NAMES.index(shape.colour) if shape.colour else -1
        table.append((CLASSES.index(shape.name), colour, TEXTS.index(shape.text) if shape.text else -1))
    num = len(scene.things)
    cells = largest_in_cells(ids, range(1, num + 1), range(num + 1, len(table)), grid)
    labels: npt.NDArray[np.int8] = np.array(table, np.int8)[cells.ravel()]
    return labels
