"""What a training leaves: the crayon prompt's parameters and LoRA sets, above the checkpoint that it started from.

    crayon.safetensors        the crayon prompt's parameters, under our names
    image_cit/, vl_cit/       the LoRA sets, as PEFT writes them
    state.json                what was trained, and on what

A directory like this loads wherever a whole checkpoint does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint import fingerprint
from .errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

    from .model import CoLLaVOForConditionalGeneration

STATE, CRAYON = "state.json", "crayon.safetensors"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a training stands.

    Attributes:
        step: updates made.
        started_from: checkpoint directory whose weights are frozen below: absolute, or, in a file, from the directory
            that the file is in.
        stage: see ``trainer/stages``.
        adapters: names of the LoRA sets.
        rank: of the sets.
        alpha: of the sets.
        crayon: which queries act: both, semantic or none.
        settings: what a continuation must have in common: seed, batch size, data; by name.
        version: of this layout.
    """

    step: int
    started_from: str
    stage: str
    adapters: tuple[str, ...]
    rank: int
    alpha: int
    crayon: str
    settings: Mapping[str, Any]
    version: int = VERSION


def is_trained(folder: Path) -> bool:
    """Whether a directory is what a training left, rather than a whole checkpoint."""
    return (folder / STATE).is_file()


def write_state(folder: Path, state: State) -> None:
    """Write ``state.json``."""
    (folder / STATE).write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")


def read_state(folder: Path) -> State:
    """Read ``state.json``.

    Raises:
        CheckpointError: it is missing or unreadable, of another version, or the checkpoint below is gone.
    """
    try:
        values = json.loads((folder / STATE).read_text(encoding="utf-8"))
        below = str((folder / values["started_from"]).resolve())
        state = State(**{**values, "adapters": tuple(values["adapters"]), "started_from": below})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: not what a training left ({error})") from error
    if state.version != VERSION:
        raise CheckpointError(f"{folder}: left by a training of version {state.version}, this code reads {VERSION}")
    if not Path(state.started_from).is_dir():
        raise CheckpointError(f"{folder}: was trained on {state.started_from}, which is not there ({STATE} names it)")
    return state


def foundation(folder: Path) -> Path:
    """The whole checkpoint at the bottom: the directory itself, or the one that a training started from.

    Raises:
        CheckpointError: see `read_state`.
    """
    while is_trained(folder):
        folder = Path(read_state(folder).started_from)
    return folder


def identity_of(folder: Path) -> str:
    """Identity of a checkpoint's weights, be it whole or what a training left.

    Raises:
        CheckpointError: see `checkpoint.fingerprint` and `read_state`.
    """
    if not is_trained(folder):
        return fingerprint(folder)
    state = read_state(folder)
    digest = hashlib.sha256(identity_of(Path(state.started_from)).encode())
    digest.update(repr((state.adapters, state.rank, state.alpha, state.crayon)).encode())
    for file in (folder / CRAYON, *(folder / name / "adapter_model.safetensors" for name in state.adapters)):
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{file}: not readable ({error.strerror})") from error
    return digest.hexdigest()[:16]


def load_crayon(folder: Path, crayon: Mapping[str, nn.Parameter]) -> None:
    """Read the crayon prompt's parameters.

    Args:
        folder: see the top of the file.
        crayon: see `adapters.crayon_parameters`.

    Raises:
        CheckpointError: they are missing, or do not fit.
    """
    tensors = read_file(folder / CRAYON)
    odd = sorted(set(tensors) ^ set(crayon))
    odd += [name for name in crayon if name in tensors and crayon[name].shape != tensors[name].shape]
    if odd:
        raise CheckpointError(f"{folder / CRAYON}: does not fit this model at {', '.join(odd[:3])}")
    for name, parameter in crayon.items():
        parameter.data.copy_(tensors[name])


def read_file(file: Path) -> dict[str, Any]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: not readable ({error})") from error


def apply(folder: Path, model: CoLLaVOForConditionalGeneration) -> Any:
    """Put what a training left onto the model that it started from.

    Args:
        folder: see the top of the file.
        model: of the checkpoint below; its crayon parameters are not quantised.
    Returns: the `Adapters`, which act from now on.

    Raises:
        CheckpointError: something is missing, or does not fit.
    """
    from .adapters import Adapters, crayon_parameters

    state = read_state(folder)
    model.config.crayon_queries = state.crayon
    load_crayon(folder, crayon_parameters(model))
    adapters = Adapters(model, state.adapters, rank=state.rank, alpha=state.alpha)
    adapters.load(folder)
    return adapters
