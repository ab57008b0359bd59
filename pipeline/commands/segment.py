"""``segment``: panoptic maps of images, by any backend: overlays to look at, id maps, and COCO's panoptic JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.common.words import shown as inline
from datasets.types import DataError, ImageFile
from datasets.writing import OLD
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segmenter
from modeling.segmenters.coco import Category
from modeling.segmenters.coco_format import at_own_size, panoptic_png, segments_info, unique_stems
from modeling.segmenters.errors import SegmenterError

from ..images import decode_image
from ..models.map_cache import cached_segmenter
from ..runtime.console import say, tell
from ..runtime.errors import RunError
from ..runtime.files import remove_partial, write_bytes, write_image, write_json
from ..runtime.libraries import quiet_libraries
from .drawing import class_colour, overlay

if TYPE_CHECKING:
    from ..config import EvalConfig

JSON, PNG, OVERLAY = "panoptic.json", ".png", "_overlay.png"
"""Name of the JSON, and what an image's files have after its stem."""


def segment(config: EvalConfig, files: Sequence[Path], out: Path) -> int:
    """Segment images one after another, and write overlay and id map of each, and one JSON.

    Args:
        config: resolved; its ``SEGMENTER`` counts.
        files: the images.
        out: folder of what is written.
    Returns: the exit code: 1 where an image could not be segmented; it is named, and the others are done.

    Raises:
        SegmenterError: the segmenter cannot be built.
        RunError: the folder cannot be written to, or an image would be overwritten.
    """
    import torch

    stems = unique_stems([file.name for file in files], (PNG, OVERLAY))
    _check(files, stems, out)
    quiet_libraries()
    segmenter = cached_segmenter(config.SEGMENTER, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    categories = segmenter.categories
    names = _names(files)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    failed = 0
    for number, (file, stem) in enumerate(zip(files, stems, strict=True), start=1):
        try:
            image, panoptic = _segmented(segmenter, file)
        except (DataError, SegmenterError) as error:
            say(f"error: {inline(str(file))}: {error}")
            failed += 1
            continue
        _write(out, stem, image, panoptic, categories)
        height, width = panoptic.id_map.shape
        images.append({"id": number, "file_name": names[number - 1], "height": height, "width": width})
        segments = segments_info(panoptic, {index: category.id for index, category in categories.items()})
        annotations.append({"image_id": number, "file_name": f"{stem}{PNG}", "segments_info": segments})
        tell(f"{inline(str(file))}: {len(segments)} segments; {inline(str(out / stem))}{OVERLAY}\n")
    content = {"images": images, "annotations": annotations, "categories": _listed(categories)}
    write_json(out / JSON, content)
    tell(f"{len(images)} of {len(files)} images: {out / JSON}\n")
    return 1 if failed else 0


def _segmented(segmenter: Segmenter, file: Path) -> tuple[DecodedImage, PanopticMap]:
    """An image and its map, both at the image's own size.

    Raises:
        DataError: the image cannot be read.
        SegmenterError: it cannot be segmented.
    """
    image = decode_image(ImageFile(file, file.name), None)
    return image, at_own_size(segmenter, [image])[0]


def _write(
    out: Path, stem: str, image: DecodedImage, panoptic: PanopticMap, categories: Mapping[int, Category]
) -> None:
    """Write an image's id map and its overlay."""
    write_bytes(out / f"{stem}{PNG}", panoptic_png(panoptic.id_map))
    # a light compression: the default takes many times as long for a large image
    write_image(out / f"{stem}{OVERLAY}", overlay(image.pixels, panoptic, categories), compress_level=3)


def _check(files: Sequence[Path], stems: Sequence[str], out: Path) -> None:
    """Make the folder, and see that nothing that is read will be overwritten.

    Raises:
        RunError: see `segment`.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out: {out} is no folder that can be written to: {error.strerror}") from error
    remove_partial(out, OLD)
    read = {file.resolve() for file in files}
    for place in (out / f"{stem}{ending}" for stem in stems for ending in (PNG, OVERLAY)):
        if place.resolve() in read:
            raise RunError(f"--out: {place} is one of the images and would be overwritten; choose another folder")


def _names(files: Sequence[Path]) -> list[str]:
    """What the JSON calls the images: by their file's name, or by the path as given where several share one."""
    counts = Counter(file.name for file in files)
    return [file.name if counts[file.name] == 1 else str(file) for file in files]


def _listed(categories: Mapping[int, Category]) -> list[dict[str, Any]]:
    """The classes, each with the colour of the overlays."""
    return [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(class_colour(index))}
        for index, c in sorted(categories.items())
    ]
