"""COCO's images and panoptic maps: PNGs whose colour is the segment's id (R + 256 G + 65536 B), and a JSON.

``coco`` is the release of COCO 2017 val. ``coco_panoptic`` has the same maps under the names that all images of all
benchmarks go by, for the segmenter that reads maps from disk; images of one scene share one PNG.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from .release import Release
from .scenes import STUFF, THINGS, Scene, Shape


def write_coco2017(release: Release, scenes: Sequence[Scene]) -> None:
    """Write ``coco/val2017`` and its panoptic annotations."""
    named = {f"{number:012d}.jpg": scene for number, scene in enumerate(scenes, start=1)}
    for name, scene in named.items():
        release.image(f"coco/val2017/{name}", name, scene)
    write_panoptic(release, "coco/annotations/panoptic_val2017", named)


def corrupted(scene: Scene, share: float, rng: np.random.Generator) -> Scene:
    """A scene as a careless segmenter sees it: some things are missing, some are taken for others.

    Args:
        scene: its image stays as it is.
        share: probability that a thing is missed, and the same again that it gets another name.
        rng: source of chance.
    """
    shapes: list[Shape] = []
    for shape in scene.shapes:
        luck, other = rng.random(), str(rng.choice([name for name in THINGS if name != shape.name]))
        if not shape.is_thing or luck >= 2 * share:
            shapes.append(shape)
        elif luck >= share:
            shapes.append(replace(shape, name=other))
    return replace(scene, shapes=tuple(shapes))


def write_panoptic(release: Release, path: str, named: Mapping[str, Scene]) -> None:
    """Write the maps of images: ``<path>.json``, and ``<path>/`` with one PNG per scene.

    Args:
        release: where.
        path: of the JSON without its suffix, and of the folder.
        named: file name of an image -> what it shows.
    """
    files: dict[int, tuple[str, list[dict[str, Any]]]] = {}
    images, annotations = [], []
    for number, (name, scene) in enumerate(named.items(), start=1):
        if id(scene.shapes) not in files:
            # A table's images are called by a digest: their map must not look like a file of another suffix.
            png = f"{name.rpartition('.')[0] or name}.png".replace("/", "_")
            files[id(scene.shapes)] = png, segments_file(release, f"{path}/{png}", scene)
        png, segments = files[id(scene.shapes)]
        height, width, _ = scene.image.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations.append({"image_id": number, "file_name": png, "segments_info": segments})
    categories = [{"id": i, "name": name, "isthing": int(name in THINGS)} for name, i in (THINGS | STUFF).items()]
    release.json(f"{path}.json", {"images": images, "annotations": annotations, "categories": categories})


def segments_file(release: Release, path: str, scene: Scene) -> list[dict[str, Any]]:
    """Write a scene's PNG; returns its entries of ``segments_info``."""
    ids = np.zeros(scene.image.shape[:2], np.int64)
    for number, shape in enumerate(scene.shapes, start=1):
        ids[shape.pixels] = number
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG")
    release.file(path, buffer.getvalue())
    return [_segment_info(number, shape) for number, shape in enumerate(scene.shapes, start=1)]


def _segment_info(segment_id: int, shape: Shape) -> dict[str, Any]:
    """An entry of ``segments_info``; the box is x, y, width, height in pixels."""
    left, top, right, bottom = shape.box
    return {
        "id": segment_id,
        "category_id": (THINGS | STUFF)[shape.name],
        "area": int(shape.pixels.sum()),
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }
