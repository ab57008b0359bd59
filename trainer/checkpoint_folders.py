"""Where the checkpoints of a training run lie; needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8})")


def folder_of(save_dir: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return save_dir / FOLDER / f"step-{step:08d}"


def whole(save_dir: Path) -> list[Path]:
    """All whole checkpoints of a training run, oldest first."""
    return sorted(path for path in (save_dir / FOLDER).glob("step-*") if _NAME.fullmatch(path.name))


def newest(save_dir: Path) -> Path | None:
    """The newest whole checkpoint of a training run; None if there is none."""
    return next(reversed(whole(save_dir)), None)


def in_use(save_dir: Path, folder: Path) -> str:
    """Words on a folder of results that an earlier training run has filled.

    Args:
        save_dir: the folder.
        folder: of its newest checkpoint.
    """
    return (
        f"SAVE_DIR: {save_dir} holds checkpoints of an earlier training ({folder.name}): RESUME True goes on from "
        "there, another SAVE_DIR starts anew"
    )
