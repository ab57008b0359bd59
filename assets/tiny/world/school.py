"""What is learned from: scenes in COCO's panoptic layout, and questions about them as conversations of one turn.

They are drawn from seeds of their own, which no benchmark's scene comes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .coco import segments_file
from .lessons import Lesson, lessons
from .release import Release, encoded
from .scenes import STUFF, THINGS, draw_scene

SIGN_CHANCE = 0.45
TEACHING = 77
"""Sets scenes that are learned from apart from those of the benchmarks, whatever the seed."""

SHARES = {
    **{"existence": 2.0, "count": 3.0, "colour": 2.0, "choice/present": 2.0, "relation": 1.5, "corner": 1.0},
    **{"side": 1.0, "height": 0.5, "text": 1.0, "scene": 0.2, "judge/scene": 0.1, "describe": 0.2},
}
"""How often each kind of question is asked, whatever the number of its questions; kinds that are not listed, 0.5."""

_OTHERS = 0.5
_QUESTIONS = 16


def write_school(release: Release, scenes: int, size: int, seed: int, without: Sequence[str] = ()) -> None:
    """Write ``coco/train2017`` with its panoptic maps, and ``LLaVA/lessons.json``.

    Args:
        release: where.
        scenes: how many.
        size: side of an image in pixels.
        seed: of everything.
        without: kinds of facts that no question is about, of `assets.tiny.world.lessons.ABOUT`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    conversations: list[dict[str, Any]] = []
    for number in range(1, scenes + 1):
        rng = np.random.default_rng([TEACHING, seed, 1, number])
        scene = draw_scene(rng, size, bool(rng.random() < SIGN_CHANCE))
        stem = f"{number:012d}"
        release.file(f"coco/train2017/{stem}.jpg", encoded(scene.image, "JPEG"))
        segments = segments_file(release, f"coco/annotations/panoptic_train2017/{stem}.png", scene)
        images.append({"id": number, "file_name": f"{stem}.jpg", "height": size, "width": size})
        annotations.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": segments})
        found = lessons(scene, rng)
        shares = {**SHARES, **{one.kind: 0.0 for one in found if one.about in without}}
        chosen = choose(found, shares, _OTHERS, _QUESTIONS, rng)
        conversations += [_conversation(f"{stem}-{i}", f"{stem}.jpg", one) for i, one in enumerate(chosen)]
    categories = [{"id": i, "name": name, "isthing": int(name in THINGS)} for name, i in (THINGS | STUFF).items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    release.text("coco/annotations/panoptic_train2017.json", json.dumps(content))
    release.text("LLaVA/lessons.json", json.dumps(conversations))


def choose(
    found: Sequence[Lesson], shares: Mapping[str, float], others: float, num: int, rng: np.random.Generator
) -> list[Lesson]:
    """Draw questions, none twice.

    Args:
        found: of a scene.
        shares: kind -> how often it is asked; 0 for never.
        others: the same for kinds that are not listed.
        num: how many, as far as there are.
        rng: source of chance.
    """
    return [found[i] for i in draw_kinds([one.kind for one in found], shares, others, num, rng)]


def draw_kinds(
    kinds: Sequence[str], shares: Mapping[str, float], others: float, num: int, rng: np.random.Generator
) -> list[int]:
    """Places of up to ``num`` items, drawn without repetition by the shares of their kinds; see `choose`."""
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    weights = np.array([shares.get(kind, others) / counts[kind] for kind in kinds])
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + rng.gumbel(size=len(weights))
    return [int(i) for i in np.argsort(-keys)[: min(num, int((weights > 0).sum()))]]


def _conversation(name: str, image: str, lesson: Lesson) -> dict[str, Any]:
    said = [{"from": "human", "value": f"<image>\n{lesson.question}"}, {"from": "gpt", "value": lesson.answer}]
    return {"id": name, "image": image, "conversations": said}
