"""Minis of RefCOCO, RefCOCO+ and RefCOCOg: expressions that fit one thing of a scene, with its box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .release import Release
from .scenes import Scene, Shape

_SPLITS = {"refcoco": ("val", "testA", "testB"), "refcoco+": ("val", "testA", "testB"), "refcocog": ("val", "test")}
_EACH = 4


def write_refcoco(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """The three sets, in JSON lines: by name and colour; RefCOCO also by side, which RefCOCO+ does not allow."""
    for name, splits in _SPLITS.items():
        known = [(index, *pair) for index, scene in enumerate(scenes) for pair in _expressions(scene, name)]
        chosen = [known[int(i)] for i in rng.permutation(len(known))]
        for split in splits:
            part, chosen = chosen[:_EACH], chosen[_EACH:]
            release.json_lines(f"RefCOCO/{name}_{split}.jsonl", [_line(release, scenes, *item) for item in part])


def _expressions(scene: Scene, name: str) -> Iterator[tuple[Shape, str]]:
    for thing in scene.single:
        yield thing, f"the {thing.colour} {thing.name}" if name == "refcocog" else f"{thing.colour} {thing.name}"
    for thing in scene.things:
        same = [other for other in scene.things if other.name == thing.name]
        places = sorted(other.centre[0] for other in same)
        if name == "refcoco" and len(same) > 1 and thing.centre[0] == places[0] < places[1]:
            yield thing, f"leftmost {thing.name}"


def _line(release: Release, scenes: Sequence[Scene], index: int, thing: Shape, sentence: str) -> dict[str, Any]:
    scene, image = scenes[index], f"train2014/COCO_train2014_{index + 1:012d}.jpg"
    release.image(f"RefCOCO/images/{image}", image, scene)
    height, width, _ = scene.image.shape
    return {"image": image, "sent": sentence, "bbox": list(thing.box), "height": height, "width": width}
