"""Where a checkpoint lies: what ``RESUME_FROM`` names, before any file in it is read. Importing this loads no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modeling.files import is_file, is_folder, shown

from ..errors import CheckpointError
from .finetuned_checkpoint import STATE, use_base

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(name: str | Path, key: str = "RESUME_FROM") -> Path:
    """The directory of a checkpoint.

    Args:
        name: as users write it; ``~`` is their home.
        key: what named it, for messages.

    Raises:
        CheckpointError: it does not exist, looks like a name on the hub, is a file, or is no checkpoint.
    """
    path = Path(os.path.expanduser(name))
    text = shown(str(name))[1:-1]
    if is_file(path):
        raise CheckpointError(f"{key}: {text} is a file; a checkpoint is a directory, name the one that it lies in")
    if os.path.exists(path) and not is_folder(path):
        raise CheckpointError(f"{key}: {text} is neither a file nor a directory; a checkpoint is a directory")
    if not is_folder(path):
        raise CheckpointError(f"{key}: {text} {not_there(str(name))}")
    if is_file(path / STATE) or is_file(path / "config.json"):
        return path
    below = sorted(path.glob("checkpoints/step-*")) or sorted(path.glob("step-*"))
    hint = f"; it holds {below[-1].relative_to(path)}: name that" if below else ""
    raise CheckpointError(f"{key}: {text} is no checkpoint: it has neither config.json nor {STATE}{hint}")


def not_there(name: str) -> str:
    """What to say of a path that is not there, after its name; one whose first folder exists is no name on the hub."""
    if _HUB_NAME.fullmatch(name) and not is_folder(Path(name).parent):
        return (
            "does not exist here and looks like a name on the Hugging Face hub, from which nothing is loaded: download "
            f"it (hf download {name} --local-dir DIR) and name that directory"
        )
    return "does not exist"


def take_base(base: str, checkpoint: str) -> None:
    """Let ``BASE`` say where the base checkpoint lies; see `finetuned_checkpoint.use_base`.

    Args:
        base: "" for the place that the checkpoint says.
        checkpoint: RESUME_FROM.

    Raises:
        CheckpointError: the checkpoint is a whole one, which has no base.
    """
    use_base(Path(base) if base else None)
    folder = Path(os.path.expanduser(checkpoint))
    if base and checkpoint and is_folder(folder) and not is_file(folder / STATE):
        raise CheckpointError(f"BASE: RESUME_FROM {checkpoint} is a whole checkpoint and has no base; leave BASE out")
