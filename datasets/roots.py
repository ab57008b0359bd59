"""Where datasets lie on this machine: one configured root, or the four environment variables users of this code set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.common.paths import user_path

from .types import DataError

ROOT_VARIABLES = ("DATASET", "DATASET2", "VLDATASET", "DETECTRON2_DATASETS")


def data_roots(configured: str | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """List the folders to search for dataset files, in order, without repeats.

    Args:
        configured: ``DATASETS.ROOT``; if set, it alone counts.
        environ: the process environment; `ROOT_VARIABLES` are read from it otherwise.

    Raises:
        DataError: neither is set, or one is no path.
    """
    if configured:
        return (_folder("DATASETS.ROOT", configured),)
    named = [_folder(name, environ[name]) for name in ROOT_VARIABLES if environ.get(name)]
    roots: dict[str, Path] = {}
    for root in named:
        roots.setdefault(os.path.realpath(root), root)
    if not roots:
        raise DataError(
            "no dataset folder is known: set DATASETS.ROOT, or one of the environment variables "
            f"{', '.join(ROOT_VARIABLES)}, to the folder that holds POPE, coco2014, ..."
        )
    return tuple(roots.values())


def candidate_paths(roots: Sequence[Path], *candidates: str) -> list[Path]:
    """Where a file may be: the candidates in order, each under every root; no place twice."""
    return list(dict.fromkeys(root / candidate for candidate in candidates for root in roots))


def first_existing(roots: Sequence[Path], *candidates: str) -> Path | None:
    """The first of `candidate_paths` that exists; None if none does, or none may be looked at."""
    return next((place for place in candidate_paths(roots, *candidates) if os.path.exists(place)), None)


def _folder(name: str, path: str) -> Path:
    try:
        return user_path(path)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None


def find(roots: Sequence[Path], *candidates: str) -> Path:
    """First existing file or folder among the candidates, tried in order, each under every root.

    Args:
        roots: see `data_roots`.
        candidates: paths relative to a root.

    Raises:
        DataError: none exists; the message lists every place that was looked at. Or a device or a pipe is in the place.
    """
    found = first_existing(roots, *candidates)
    if found is not None and not (found.is_file() or found.is_dir()):
        raise DataError(f"{found}: is neither a file nor a folder")
    if found is not None:
        return found
    listed = "\n  ".join(str(place) for place in candidate_paths(roots, *candidates))
    raise DataError(f"not found; looked for\n  {listed}\nPut it there, or set DATASETS.ROOT to the folder that has it.")
