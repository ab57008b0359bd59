"""What is shipped of a training run: its recipe and half-precision weights, without optimizer; paths are relative."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from collavo.checkpoint.finetuned_checkpoint import CRAYON, read_state, write_state
from collavo.checkpoint.recorded import SegmenterRecord
from configs.load import find_file, read_yaml
from modeling.weight_files import load, save
from pipeline.runtime.provenance import git_commit, versions

_WEIGHTS = "model.safetensors"


def ship(trained: Path, target: Path) -> None:
    """Copy a checkpoint and the one that it started from.

    Args:
        trained: what a training run left.
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
    write_state(model, replace(state, started_from="../base", segmenter=shipped_segmenter()))


def shipped_segmenter() -> dict[str, Any]:
    """The X-Decoder that is shipped next to the model and evaluates it, as a checkpoint records it."""
    evaluated = read_yaml(find_file("configs/collavo_tiny.yaml"))["SEGMENTER"]
    known = {key: value for key, value in evaluated.items() if key in SegmenterRecord.model_fields}
    return {**known, "PATH": "../segmenter"}


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
    tensors: dict[str, Tensor] = load(source)
    save({name: tensor.half() for name, tensor in tensors.items()}, target, {"format": "pt"})
