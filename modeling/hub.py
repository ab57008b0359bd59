"""Where a checkpoint of the Hugging Face hub lies on this machine. Importing this loads no torch.

A directory is taken as it is, then the hub's cache is looked into, and only what is in neither is fetched: once, before
anything is computed, and with one short question first, so that a machine without a network is told so at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from .files import is_file, is_folder

logger = logging.getLogger(__name__)

SETTINGS = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Any of these will do."""
SECONDS = 10.0
"""Longest wait for the hub's first sign."""


class CheckpointNotFoundError(Exception):
    """A checkpoint that is not on this machine and cannot be fetched: why, in one line."""


def locate(name: str) -> Path:
    """Find a checkpoint on this machine, or fetch it.

    Args:
        name: directory, or name on the hub.
    Returns: the directory that holds its files.

    Raises:
        NotHereError: a directory lacks files, or the hub cannot be asked or does not have it.
    """
    folder = Path(name)
    if is_folder(folder):
        if lacking := missing(folder):
            raise CheckpointNotFoundError(f"the directory lacks {' and '.join(lacking)}")
        return folder
    return cached(name) or _fetch(name)


def missing(folder: Path) -> list[str]:
    """Files that a checkpoint's directory lacks."""
    lacking = [file for file in SETTINGS if not is_file(folder / file)]
    return lacking if any(is_file(folder / file) for file in WEIGHTS) else [*lacking, WEIGHTS[0]]


def cached(name: str) -> Path | None:
    """The directory of a whole checkpoint in the hub's cache; None if it holds none of that name.

    Raises:
        NotHereError: the hub cannot have such a name.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, SETTINGS[0])
    except HFValidationError:
        raise CheckpointNotFoundError("there is no such directory, and the hub cannot have such a name") from None
    folder = Path(found).parent if isinstance(found, str) else None
    return None if folder is None or missing(folder) else folder


def _fetch(name: str) -> Path:
    """Copy a checkpoint from the hub into its cache.

    Raises:
        NotHereError: it cannot be had.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    absent = "it is neither a directory nor in the hub's cache"
    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise CheckpointNotFoundError(f"{absent}, and HF_HUB_OFFLINE forbids to fetch it")
    try:
        files = [item.rfilename for item in HfApi().model_info(name, timeout=SECONDS).siblings or ()]
        logger.warning("%s is not on this machine; fetching it from the hub, once", name)
        return Path(snapshot_download(name, allow_patterns=[*SETTINGS, *_chosen(files)], etag_timeout=SECONDS))
    except Exception as error:  # noqa: BLE001 - the hub's library lets out those of its HTTP library, which it changes
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointNotFoundError(f"{absent}, and the hub cannot be asked: {reason}") from error


def _chosen(files: Sequence[str]) -> list[str]:
    """Patterns of the weights to fetch: one format, safetensors if it is there."""
    safe = any(file.endswith(".safetensors") for file in files)
    return ["model*.safetensors", WEIGHTS[1]] if safe else ["pytorch_model*.bin", WEIGHTS[3]]
