"""A tiny world of drawn scenes, in the release formats of real datasets, made from a seed.

    python -m assets.tiny.world DIR --seed 0

writes images with their exact panoptic maps (COCO 2017's layout), conversations about them (LLaVA's JSON, to train
on), and a mini version of every benchmark that is declared, in its official format. Every answer is right by
construction. The same seed gives the same bytes. ``coco_panoptic`` holds the maps of all images of all benchmarks,
for the segmenter ``precomputed``: the true ones, and ones with errors. With ``--lessons`` it writes what to train on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datasets.types import DataError
from datasets.writing import OLD, PARTIAL, WriteError, new_folder, remove_partial

from . import choice, families, grounding, judged, short, yes_no
from .coco import corrupted, write_coco2017, write_panoptic
from .conversations import write_conversations
from .release import Release
from .scenes import COLOURS, STUFF, THINGS, Scene, draw_scene
from .school import write_school

__all__ = ["COLOURS", "MARKER", "STUFF", "THINGS", "VERSION", "Scene", "draw_scene", "write_lessons", "write_world"]

VERSION = 3
"""Raised when the same seed draws something else."""

MARKER = "made_from_seed.txt"
_FEWEST = 24
"""Scenes that are drawn at least, so that every kind of question finds one."""
_SIGN_EVERY = 4

_MINIS: tuple[Callable[[Release, Sequence[Scene], np.random.Generator], None], ...] = (
    short.write_gqa,
    choice.write_scienceqa,
    short.write_textvqa,
    yes_no.write_mme,
    choice.write_mmbench,
    judged.write_mmvet,
    choice.write_qbench,
    judged.write_mathvista,
    choice.write_ai2d,
    choice.write_seed,
    yes_no.write_hallusionbench,
    short.write_chartqa,
    choice.write_mmstar,
    grounding.write_refcoco,
    families.write_families,
)
CORRUPTED = 0.05
"""Share of things that the corrupted maps lack, and the same share that they call by another name."""


def write_world(directory: Path, seed: int, scenes: int, size: int, renew: bool = False) -> bool:
    """Write the world, or leave a complete one alone.

    Args:
        directory: made if absent.
        seed: of everything.
        scenes: images of POPE and COCO; the other benchmarks share them, and a few more where these are too few.
        size: side of an image in pixels.
        renew: whether a world of other settings in the directory is replaced.
    Returns: whether anything was written.

    Raises:
        DataError: the directory holds something else.
    """

    def write(release: Release) -> None:
        _write(release, scenes, size, seed)

    return _once(directory, f"world version {VERSION}, seed {seed}, {scenes} scenes of {size} px", renew, write)


def write_lessons(
    directory: Path, seed: int, scenes: int, size: int, renew: bool = False, *, without: Sequence[str] = ()
) -> bool:
    """Write scenes and questions to train on, or leave complete ones alone; see ``school``.

    Args:
        directory: made if absent.
        seed: of everything.
        scenes: how many.
        size: side of an image in pixels.
        renew: whether a world of other settings in the directory is replaced.
        without: what no question is about, of `assets.tiny.world.lessons.ABOUT`.
    Returns: whether anything was written.

    Raises:
        DataError: the directory holds something else.
    """

    def write(release: Release) -> None:
        write_school(release, scenes, size, seed, without)

    what = f"lessons version {VERSION}, seed {seed}, {scenes} scenes of {size} px"
    return _once(directory, f"{what}, without {', '.join(without)}" if without else what, renew, write)


def _once(directory: Path, what: str, renew: bool, write: Callable[[Release], None]) -> bool:
    """Write into a folder, which appears whole or not at all."""
    description, marker = f"tiny {what}\n", directory / MARKER
    found = marker.read_text(encoding="utf-8") if marker.is_file() else ""
    if found == description:
        return False
    if renew and found.startswith("tiny "):
        shutil.rmtree(directory)
    if directory.exists() and any(directory.iterdir()):
        raise DataError(f"{directory} is not the tiny {what}: remove it or choose another folder")
    remove_partial(directory.parent, OLD, f".{directory.name}.*{PARTIAL}")
    try:
        with new_folder(directory) as partial:
            write(Release(partial))
            (partial / MARKER).write_text(description, encoding="utf-8")
    except WriteError:
        if not marker.is_file() or marker.read_text(encoding="utf-8") != description:
            raise
        return False  # another process was faster; its world is the same
    return True


def _write(release: Release, num: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [draw_scene(rng, size, True if i % _SIGN_EVERY == 0 else None) for i in range(max(num, _FEWEST))]
    write_coco2017(release, drawn[:num])
    write_conversations(release, drawn[:num], np.random.default_rng([seed, len(_MINIS) + 1]))
    yes_no.write_pope(release, drawn[:num], np.random.default_rng([seed, 0]))
    for number, write in enumerate(_MINIS, start=1):
        write(release, drawn, np.random.default_rng([seed, number]))
    write_panoptic(release, "coco_panoptic/panoptic_val", release.shown)
    luck = np.random.default_rng([seed, len(_MINIS) + 2])
    doubles = {id(scene): corrupted(scene, CORRUPTED, luck) for scene in release.shown.values()}
    shown = {name: doubles[id(scene)] for name, scene in release.shown.items()}
    write_panoptic(release, "coco_panoptic/panoptic_spoiled", shown)
