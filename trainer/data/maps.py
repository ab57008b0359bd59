"""Panoptic maps of training images: computed once, kept on disk, and corrupted where training asks for it."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.writing import OLD, PARTIAL
from modeling.segmenters.base import DecodedImage, PanopticMap, Segment, Segmenter
from pipeline.runtime.files import make_folder, remove_partial, write_bytes


class MapCache:
    """A segmenter whose maps are kept.

    Args:
        segmenter: makes the maps.
        grid: side of the maps, in image tokens.
        folder: where they are kept; None to keep none, for a segmenter that only reads files.
    """

    def __init__(self, segmenter: Segmenter, grid: int, folder: Path | None) -> None:
        self._segmenter, self._grid = segmenter, grid
        self._folder = None if folder is None else folder / f"{segmenter.fingerprint[:40]}-{grid}"
        if self._folder is not None:
            remove_partial(self._folder, OLD, f"*/.*{PARTIAL}")
        self._lock = threading.Lock()

    def of(self, image: DecodedImage) -> PanopticMap:
        """The map of an image, (grid, grid).

        Raises:
            SegmenterError: the segmenter has none for it.
        """
        if self._folder is None:
            return self._segment(image)
        digest = hashlib.sha256(repr(image.pixels.shape).encode() + np.ascontiguousarray(image.pixels).tobytes())
        name = digest.hexdigest()[:32]
        file = self._folder / name[:2] / f"{name}.npz"
        kept = _read(file, self._grid)
        if kept is None:
            kept = self._segment(image)
            _write(file, kept)
        return kept

    def _segment(self, image: DecodedImage) -> PanopticMap:
        with self._lock:  # one model, and several threads that prepare samples
            return self._segmenter.segment([image], (self._grid, self._grid))[0]


def _read(file: Path, grid: int) -> PanopticMap | None:
    """A kept map; None if there is none, or a damaged one."""
    try:
        with np.load(file, allow_pickle=False) as content:
            ids, segments = content["ids"].astype(np.int32), content["segments"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if ids.shape != (grid, grid) or segments.ndim != 2 or segments.shape[1] != 3:
        return None
    return PanopticMap(ids, tuple(Segment(id=int(i), category_id=int(c), score=float(s)) for i, c, s in segments))


def _write(file: Path, panoptic: PanopticMap) -> None:
    """Keep a map; several processes may do so at once."""
    make_folder(file.parent)
    rows = [(s.id, s.category_id, s.score) for s in panoptic.segments]
    content = io.BytesIO()
    np.savez_compressed(content, ids=panoptic.id_map, segments=np.array(rows, np.float64).reshape(-1, 3))
    write_bytes(file, content.getvalue(), sync=False)


def corrupt_map(panoptic: PanopticMap, share: float, classes: Sequence[int], rng: np.random.Generator) -> PanopticMap:
    """A map with errors like a segmenter's: some objects are missing, some are taken for something else.

    Args:
        panoptic: the ground-truth map.
        share: probability that an object is dropped, and the same again that it is renamed.
        classes: what a renamed object may become.
        rng: source of chance.
    """
    if not share or not panoptic.segments:
        return panoptic
    drawn = rng.random(len(panoptic.segments))
    others = rng.choice(np.asarray(classes), len(panoptic.segments))
    segments = []
    for segment, luck, other in zip(panoptic.segments, drawn, others, strict=True):
        if luck >= share:
            category_id = int(other) if luck < 2 * share else segment.category_id
            segments.append(replace(segment, category_id=category_id))
    kept = np.isin(panoptic.id_map, [segment.id for segment in segments])
    return PanopticMap(np.where(kept, panoptic.id_map, 0).astype(np.int32), tuple(segments))
