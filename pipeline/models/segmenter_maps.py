"""A benchmark of the segmenter itself: its maps of images, kept in COCO's format and compared with the true ones.

It goes through the same loop as a benchmark of the language model: what a model would say of an image is here what the
segmenter found in it, as JSON for ``datasets/evaluation/panoptic_quality.py``. Maps lie as PNGs in `FOLDER` of the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from configs.common.pillow_errors import UNREADABLE
from datasets.types import DataError, ImageFile, Record
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segmenter
from modeling.segmenters.coco import Category
from modeling.segmenters.coco_format import (
    at_own_size,
    ids_of,
    panoptic_png,
    segments_info,
    unique_stems,
)

from ..runtime.files import make_folder, write_bytes

if TYPE_CHECKING:
    from collavo.engine import Generation, Query, Reply

    from ..base import Answerer, EngineSource

FOLDER = "panoptic"
"""Folder of a run's maps; ``panoptic.json`` next to it lists them."""


class MapSource:
    """A run's segmenter as what answers, see `EngineSource`.

    Args:
        source: has the segmenter.
        records: of the benchmark, all of them.
        folder: of the benchmark's results.
    """

    def __init__(self, source: EngineSource, records: Sequence[Record], folder: Path) -> None:
        self._source, self._records, self._folder = source, records, folder / FOLDER

    def parts(self) -> Mapping[str, Any]:
        """The segmenter's identity; nothing else shapes a map."""
        return {"segmenter": self.segmenter().fingerprint}

    def weights(self) -> str:
        """The segmenter is there as soon as its identity is known."""
        return ""

    def engine(self) -> Answerer:
        """The segmenter, which keeps its maps in the run's folder."""
        make_folder(self._folder)
        return MapAnswerer(self.segmenter(), self._records, self._folder)

    def segmenter(self) -> Segmenter:
        """See `EngineSource.segmenter`."""
        return self._source.segmenter()


class MapAnswerer:
    """Segments images, writes their maps, and compares them; see `Answerer`.

    Args:
        segmenter: makes the maps.
        records: of the benchmark.
        folder: of the PNGs.
    """

    image_size = None

    def __init__(self, segmenter: Segmenter, records: Sequence[Record], folder: Path) -> None:
        self._segmenter, self._folder = segmenter, folder
        names = [record.id for record in records]
        self._records = dict(zip(names, records, strict=True))
        self._files = {name: f"{stem}.png" for name, stem in zip(names, unique_stems(names), strict=True)}

    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
        """Segment and compare, in order.

        Raises:
            DataError: a ground-truth map is unreadable, or not of its image's size.
            SegmenterError: an image cannot be segmented.
        """
        from collavo.engine import Reply

        images = [query.image for query in queries if isinstance(query.image, DecodedImage)]
        truths = [_true_map(self._records[image.name], image) for image in images]
        maps = at_own_size(self._segmenter, images)
        texts = [self._described(*each) for each in zip(images, truths, maps, strict=True)]
        return [Reply(text=text, prompt="", num_tokens=0, finished=True) for text in texts]

    def _described(self, image: DecodedImage, true: npt.NDArray[np.int32], panoptic: PanopticMap) -> str:
        """Write a map, and say what is in it and how well it fits."""
        from ..results.panoptic_matching import TrueSegment, compare

        record = self._records[image.name]
        listed = class_ids(self._segmenter.categories, record.meta["categories"])
        kept = [segment for segment in panoptic.segments if segment.category_id in listed]
        if len(kept) < len(panoptic.segments):
            shown = np.isin(panoptic.id_map, [segment.id for segment in kept])
            panoptic = replace(panoptic, id_map=np.where(shown, panoptic.id_map, 0).astype(np.int32))
        segments = [
            TrueSegment(id=s["id"], category_id=s["category_id"], crowd=bool(s["iscrowd"])) for s in record.target
        ]
        classes = {segment.id: listed[segment.category_id] for segment in kept}
        tallies = compare(panoptic.id_map, classes, true, segments)
        write_bytes(self._folder / self._files[record.id], panoptic_png(panoptic.id_map))
        content = {
            "file_name": self._files[record.id],
            "segments_info": segments_info(panoptic, listed),
            "unlisted": len(panoptic.segments) - len(kept),
            "quality": {str(category): [t.iou, t.tp, t.fp, t.fn] for category, t in tallies.items()},
        }
        return json.dumps(content)


def class_ids(categories: Mapping[int, Category], known: Mapping[int, tuple[str, bool]]) -> dict[int, int]:
    """The annotations' id of each class of a segmenter, by name or else by COCO's id; unknown ones are left out.

    Args:
        categories: class number -> class.
        known: the annotations' id -> name, and whether it is a thing.
    """
    by_name = {name: number for number, (name, _) in known.items()}
    found = {index: by_name.get(c.name, c.id if c.id in known else None) for index, c in categories.items()}
    return {index: number for index, number in found.items() if number is not None}


def _true_map(record: Record, image: DecodedImage) -> npt.NDArray[np.int32]:
    """The annotated ids of an image, int32 (height, width).

    Raises:
        DataError: the PNG is unreadable, or has another size than the image.
    """
    source: ImageFile = record.meta["map"]
    try:
        with Image.open(source.path) as opened:
            ids = ids_of(opened)
    except UNREADABLE as error:
        raise DataError(f"image {record.id}: its ground-truth map {source.path} cannot be read: {error}") from error
    if ids.shape != image.pixels.shape[:2]:
        (height, width), (rows, columns) = image.pixels.shape[:2], ids.shape
        raise DataError(
            f"image {record.id}: {width} x {height} pixels, but its map {source.path} has {columns} x {rows}"
        )
    return ids
