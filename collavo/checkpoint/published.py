"""Whether a checkpoint can be compared with what was published of CoLLaVO-7B. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modeling.files import FileError, read_object

from ..errors import CheckpointError
from .finetuned_checkpoint import base_checkpoint

SIZES = {"hidden_size": 4096, "num_hidden_layers": 32}
"""Of CoLLaVO-7B's language model, InternLM2-7B (arXiv 2402.11248); both layouts call them so."""


def has_published_sizes(checkpoint: Path) -> bool:
    """Whether a checkpoint, or the one that it was trained on, has CoLLaVO-7B's sizes.

    Args:
        checkpoint: directory in either layout, or what a training run left. Where its configuration cannot be read the
            answer is yes: loading it is what will say so.
    """
    try:
        values = read_object(base_checkpoint(checkpoint) / "config.json")
    except (FileError, CheckpointError):
        return True
    text = values.get("text_config", values)
    return not isinstance(text, Mapping) or all(text.get(name, size) == size for name, size in SIZES.items())
