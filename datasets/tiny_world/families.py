"""A mini of our own: questions of every kind that the tiny world knows, so that each kind has a score of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .lessons import lessons
from .release import Release
from .scenes import Scene

_EACH = 60
_NOT_ASKED = ("refer", "describe")
"""Their answers are boxes and sentences, which no comparison of texts can score."""


def write_families(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """Up to 60 questions of each kind, in JSON lines; scenes take turns."""
    lines: list[dict[str, Any]] = []
    asked: Counter[str] = Counter()
    found = [[lesson for lesson in lessons(scene, rng) if lesson.kind not in _NOT_ASKED] for scene in scenes]
    orders = [[known[int(i)] for i in rng.permutation(len(known))] for known in found]
    for turn in range(max(map(len, orders))):
        for number, order in enumerate(orders, start=1):
            if turn < len(order) and asked[order[turn].kind] < _EACH:
                lesson, image = order[turn], f"tiny_{number:06d}.png"
                asked[lesson.kind] += 1
                line = {"id": len(lines), "image": image, "kind": lesson.kind}
                lines.append({**line, "question": lesson.question, "answer": lesson.answer})
    for image in sorted({line["image"] for line in lines}):
        release.picture(f"TinyWorld/images/{image}", image, scenes[int(image[5:11]) - 1])
    release.json_lines("TinyWorld/questions.jsonl", lines)
