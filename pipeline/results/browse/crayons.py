"""Panoptic maps as the model saw them, kept next to a run's journal, so that the report can show them.

Each process appends one line per image to ``crayons/process-N.jsonl``: the map at a size to look at (run lengths of
object indices, 0 for none) and the objects with their numbers and boxes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from configs.common.safe_json import parse_json

from ...runtime.files import append, json_line, make_folder, naming_write_errors

if TYPE_CHECKING:
    from collavo.crayon import CrayonPrompt
    from collavo.images import MapWatcher
    from modeling.segmenters.base import PanopticMap

FOLDER = "crayons"
LONGEST_SIDE = 64
"""Cells a side of a kept map; finer maps are sampled."""


@dataclass(frozen=True, kw_only=True)
class KeptMap:
    """A map to look at.

    Attributes:
        side: cells a side.
        runs: object index and how many cells in a row have it, alternating, row-major; 0 is no object.
        objects: class, number in its class, and box (x1, y1, x2, y2 as fractions of the sides), by index from 1.
    """

    side: int
    runs: Sequence[int]
    objects: Sequence[tuple[str, int, Sequence[float]]]

    @property
    def words(self) -> str:
        """Classes with how many objects of each: ``3 dog, 1 sky``."""
        counts: dict[str, int] = {}
        for name, _, _ in self.objects:
            counts[name] = counts.get(name, 0) + 1
        return ", ".join(f"{number} {name}" for name, number in counts.items())

    def cells(self) -> npt.NDArray[np.int64]:
        """Object indices, int64 (side, side)."""
        index, length = self.runs[::2], self.runs[1::2]
        return np.repeat(np.array(index, np.int64), length).reshape(self.side, self.side)


def kept_map(panoptic: PanopticMap, crayon: CrayonPrompt) -> KeptMap:
    """Reduce a map to what is shown of it.

    Args:
        panoptic: square.
        crayon: made from it; says which segments the model is shown, and their numbers.
    """
    side = panoptic.id_map.shape[0]
    places = np.linspace(0, side, min(side, LONGEST_SIDE), endpoint=False).astype(int)
    ids = panoptic.id_map[places][:, places]
    cells = np.zeros(ids.shape, np.int64)
    for index, item in enumerate(crayon.objects, start=1):
        cells[ids == item.segment_id] = index
    objects = [(o.category, o.number, [round(float(edge), 4) for edge in o.box]) for o in crayon.objects]
    return KeptMap(side=len(places), runs=_runs(cells.ravel()), objects=objects)


def _runs(cells: npt.NDArray[np.int64]) -> list[int]:
    starts = np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))
    lengths = np.diff(np.append(starts, len(cells)))
    return [int(value) for pair in zip(cells[starts], lengths, strict=True) for value in pair]


class CrayonLog:
    """Appends maps to one file; each process has its own.

    Args:
        folder: of the benchmark's results.
        rank: of the process.

    Raises:
        WriteError: the file cannot be made.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = make_folder(folder / FOLDER) / f"process-{rank}.jsonl"
        self._written: set[str] = set()
        with naming_write_errors(self._file):
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, name: str, panoptic: PanopticMap, crayon: CrayonPrompt) -> None:
        """Keep the map of an image, unless it is kept already.

        Raises:
            WriteError: the disk is full or gone.
        """
        if name in self._written:
            return
        self._written.add(name)
        kept = kept_map(panoptic, crayon)
        line = {"image": name, "side": kept.side, "runs": kept.runs, "objects": kept.objects}
        append(self._descriptor, self._file, b"\n" + json_line(line))  # a line that a kill cut off ends before it

    def __enter__(self) -> CrayonLog:
        """The log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._descriptor)


def remove_crayons(folder: Path) -> None:
    """Remove the maps of an earlier run, so that they are not shown as those of the run that starts."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def read_crayons(folder: Path) -> dict[str, KeptMap]:
    """Read the maps of a run by image name; those that a kill cut off are skipped.

    Args:
        folder: of a benchmark's results, or one below it that ``score`` wrote.
    """
    place = next((f / FOLDER for f in (folder, *list(folder.parents)[:3]) if (f / FOLDER).is_dir()), None)
    found: dict[str, KeptMap] = {}
    for file in sorted(place.glob("process-*.jsonl")) if place else ():
        for line in file.read_bytes().split(b"\n"):
            kept = _parsed(line)
            if kept is not None:
                found[kept[0]] = kept[1]
    return found


def _parsed(line: bytes) -> tuple[str, KeptMap] | None:
    """A line's image and map; None for one that is torn or holds no map."""
    try:
        item: Any = parse_json(line)
    except ValueError:
        return None
    if not isinstance(item, Mapping) or not isinstance(item.get("image"), str):
        return None
    side: Any = item.get("side")
    runs: Any = item.get("runs")
    objects: Any = item.get("objects")
    if not isinstance(side, int) or not 0 < side <= LONGEST_SIDE or not _whole_numbers(runs) or len(runs) % 2:
        return None
    if sum(runs[1::2]) != side * side or not isinstance(objects, list):
        return None
    if not all(isinstance(o, list) and len(o) == 3 and _is_object(*o) for o in objects):
        return None
    if max(runs[::2], default=0) > len(objects):
        return None
    return item["image"], KeptMap(side=side, runs=runs, objects=[(name, n, box) for name, n, box in objects])


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _is_object(name: Any, number: Any, box: Any) -> bool:
    edges = isinstance(box, list) and len(box) == 4 and all(isinstance(e, (int, float)) and abs(e) <= 1 for e in box)
    return isinstance(name, str) and type(number) is int and edges


@runtime_checkable
class MakesMaps(Protocol):
    """An engine that makes panoptic maps, and shows each to who asks for it."""

    on_map: MapWatcher | None


@contextmanager
def kept_maps(engine: object, folder: Path, rank: int) -> Iterator[None]:
    """Keep the maps that an engine makes meanwhile; one that makes none is left alone.

    Args:
        engine: see `collavo.engine.Engine`, ``on_map``.
        folder: of the benchmark's results.
        rank: of this process.

    Raises:
        WriteError: they cannot be written.
    """
    if not isinstance(engine, MakesMaps):
        yield
        return
    with CrayonLog(folder, rank) as log:
        engine.on_map = log.add
        try:
            yield
        finally:
            engine.on_map = None
