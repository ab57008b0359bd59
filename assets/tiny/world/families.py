"""A mini of our own: questions of every kind that the tiny world knows, so that each kind has a score of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from collavo.instructions import QUESTIONS

from .lessons import Lesson, lessons
from .release import Release
from .scenes import Scene

_NOT_ASKED = ("refer", "describe")
"""Their answers are boxes and sentences, which no comparison of texts can score."""


def write_families(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """As many questions of each kind as there are scenes, as far as they give them; scenes take turns."""
    lines: list[dict[str, Any]] = []
    asked: Counter[str] = Counter()
    found = [
        [lesson for lesson in (*lessons(scene, rng), *_numbered(scene, rng)) if lesson.kind not in _NOT_ASKED]
        for scene in scenes
    ]
    orders = [[known[int(i)] for i in rng.permutation(len(known))] for known in found]
    for turn in range(max(map(len, orders))):
        for number, order in enumerate(orders, start=1):
            if turn < len(order) and asked[order[turn].kind] < len(scenes):
                lesson, image = order[turn], f"tiny_{number:06d}.png"
                asked[lesson.kind] += 1
                line = {"id": len(lines), "image": image, "kind": lesson.kind}
                lines.append({**line, "question": lesson.question, "answer": lesson.answer})
    for image in sorted({line["image"] for line in lines}):
        release.image(f"TinyWorld/images/{image}", image, scenes[int(image[5:11]) - 1])
    release.json_lines("TinyWorld/questions.jsonl", lines)


def _numbered(scene: Scene, rng: np.random.Generator) -> Iterator[Lesson]:
    """Which object is in a box, and which one of its kind; kinds are numbered in the order of the map's segments."""
    counts: Counter[str] = Counter()
    size = scene.image.shape[0]
    objects = []
    for thing in scene.things:
        counts[thing.name] += 1
        objects.append((f"#{counts[thing.name]} {thing.name}", [side / size for side in thing.box]))
    for i in rng.permutation(len(objects))[:2]:
        answer, box = objects[int(i)]
        question = QUESTIONS["box_numbered"][0].format(box="[" + ", ".join(f"{side:.2f}" for side in box) + "]")
        yield Lesson(kind="box_numbered", question=question, answer=answer)
