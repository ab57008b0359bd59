"""Checkpoints of a training run: what it trained, and all that is needed to go on as if nothing had happened.

SAVE_DIR/checkpoints/step-00000500/
    optimizer.safetensors             AdamW's moments and counts, by the names of the parameters
    random.safetensors                state of every process's generators
    ...                               what was trained: of stages cpt and cit
    crayon.safetensors                the crayon prompt's parameters
    image_cit/, vl_cit/               the LoRA adapters, as PEFT writes them
    state.json                        step, the checkpoint it started from, what was trained and how
    ...                               of stage segmenter: an X-Decoder directory, see ``stages/segmenter_job.py``

A checkpoint appears whole or not at all, and goes the same way. The learning rate and the order of the data follow from
step and seed alone, so they have no state of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from collavo.adapters import Adapters
from collavo.checkpoint.finetuned_checkpoint import CRAYON, PARTS_FILE, TrainingState, read_file, write_state
from collavo.errors import CheckpointError
from configs.common.words import quoted
from datasets.writing import new_folder, write_error
from modeling.weight_files import save as save_tensors

from .checkpoint_folders import FOLDER, folder_of, whole

OPTIMIZER, RANDOM = "optimizer.safetensors", "random.safetensors"


def save(
    save_dir: Path,
    step: int,
    write: Callable[[Path], None],
    optimizer: Mapping[str, Tensor],
    random: Sequence[Mapping[str, Tensor]],
    keep: int,
    best: int | None = None,
) -> Path:
    """Write a checkpoint, then remove those that are no longer kept.

    Args:
        save_dir: of the training run.
        step: updates made.
        write: writes what was trained into a folder.
        optimizer: see `trainer.parallel.placement.Placement.optimizer_tensors`.
        random: see `random_state`, one of each process.
        keep: how many checkpoints remain, the new one included.
        best: the updates of one that remains besides; None for none.
    Returns: its folder.

    Raises:
        WriteError: the disk is full or gone; nothing is left of the checkpoint, and the earlier ones are there.
    """
    target = folder_of(save_dir, step)
    states = {f"{rank}.{name}": tensor for rank, held in enumerate(random) for name, tensor in held.items()}
    try:
        with new_folder(target) as partial:
            write(partial)
            save_tensors(optimizer, partial / OPTIMIZER)
            save_tensors(states, partial / RANDOM)
            _remove(target)
    except SafetensorError as error:
        raise write_error(target, error) from error
    for old in whole(save_dir)[:-keep]:
        if old.name != folder_of(save_dir, best or 0).name:
            _remove(old)
    remove_leftovers(save_dir)
    return target


def remove_leftovers(save_dir: Path) -> None:
    """Remove what a process that was killed in writing or removing a checkpoint left of it."""
    for left in (save_dir / FOLDER).glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def write_tuned(
    folder: Path,
    state: TrainingState,
    crayon: Mapping[str, Tensor],
    adapters: Adapters,
    weights: Mapping[str, Tensor],
    parts: Mapping[str, Tensor] | None = None,
) -> None:
    """Write what stages cpt and cit train.

    Args:
        folder: of the checkpoint.
        state: see `TrainingState`.
        crayon: the crayon prompt's parameters, whole.
        adapters: the LoRA adapters.
        weights: the adapters' parameters by name, whole.
        parts: parameters of the base checkpoint that were trained too, whole.
    """
    save_tensors({name: parameter.detach().contiguous().cpu() for name, parameter in crayon.items()}, folder / CRAYON)
    if parts:
        save_tensors({name: tensor.contiguous().cpu() for name, tensor in parts.items()}, folder / PARTS_FILE)
    adapters.save(folder, weights)
    write_state(folder, state)


def _remove(folder: Path) -> None:
    """Remove a checkpoint, if it is there: it, too, is whole or gone at every moment."""
    if folder.exists():
        gone = folder.with_name(f".{folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone)


def read_optimizer(folder: Path, trained: Mapping[str, Tensor], *, partly: bool = False) -> dict[str, Tensor]:
    """An optimizer's state, ``<parameter>/<part>``.

    Args:
        folder: of a checkpoint.
        trained: the parameters, by name, that it may be of.
        partly: leave out the state of parameters that are not trained any more.

    Raises:
        CheckpointError: the file is unreadable, has the state of a parameter that is not trained here, or one of
            another shape.
    """
    state: dict[str, Tensor] = read_file(folder / OPTIMIZER)
    if partly:
        state = {key: value for key, value in state.items() if key.rpartition("/")[0] in trained}
    for key, value in state.items():
        name, _, part = key.rpartition("/")
        if name not in trained:
            raise CheckpointError(f"{folder / OPTIMIZER}: {quoted(name)} is not trained here")
        # bitsandbytes keeps one scale for a block of 256 numbers
        shapes = (trained[name].shape, (-(-trained[name].numel() // 256),) if part.startswith("absmax") else ())
        if value.numel() != 1 and value.shape not in shapes:
            raise CheckpointError(
                f"{folder / OPTIMIZER}: {part} of {name} is {tuple(value.shape)}, not {tuple(trained[name].shape)}"
            )
    return state


def random_state() -> dict[str, Tensor]:
    """State of this process's generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def load_random(folder: Path, rank: int) -> bool:
    """Restore this process's generators.

    Returns: False where the checkpoint has no state for this process, since fewer ran then.

    Raises:
        CheckpointError: the file is unreadable, or holds something else.
    """
    states = read_file(folder / RANDOM)
    if f"{rank}.cpu" not in states:
        return False
    try:
        torch.set_rng_state(states[f"{rank}.cpu"])
        if torch.cuda.is_available() and f"{rank}.cuda" in states:
            torch.cuda.set_rng_state(states[f"{rank}.cuda"])
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{folder / RANDOM}: holds no state of a generator ({error})") from error
    return True
