"""What is shipped of a training: its recipe, half precision, no optimiser, the checkpoint below by a relative path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from collavo.trained import CRAYON, STATE, read_state
from pipeline.about import git_commit, versions

_WEIGHTS = "model.safetensors"


def ship(trained: Path, target: Path) -> None:
    """Copy a checkpoint and the one that it started from.

    Args:
        trained: what a training left.
        target: gets ``base`` and ``collavo``; what is there is replaced.

    Raises:
        CheckpointError: ``trained`` is no such checkpoint.
    """
    state = read_state(trained)
    base, model = target / "base", target / "collavo"
    for folder in (base, model):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(state.started_from, base)
    _halve(base / _WEIGHTS, base / _WEIGHTS)
    model.mkdir(parents=True)
    _halve(trained / CRAYON, model / CRAYON)
    for name in state.adapters:
        (model / name).mkdir()
        shutil.copy(trained / name / "adapter_config.json", model / name)
        _halve(trained / name / "adapter_model.safetensors", model / name / "adapter_model.safetensors")
    content = json.loads((trained / STATE).read_text(encoding="utf-8"))
    content["started_from"] = "../base"
    (model / STATE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_recipe(target: Path, command: str, settings: Mapping[str, Any], logs: Mapping[str, Path]) -> None:
    """Write how something shipped was made: command, settings, code, versions and logs.

    Args:
        target: gets ``recipe.json`` and the logs.
        command: that makes it.
        settings: of the command.
        logs: name there -> file.
    """
    made = {"command": command, "settings": settings, "commit": git_commit(), "versions": versions()}
    (target / "recipe.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    for name, log in logs.items():
        shutil.copy(log, target / name)


def _halve(source: Path, target: Path) -> None:
    tensors: dict[str, Tensor] = load_file(source)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, target, metadata={"format": "pt"})
