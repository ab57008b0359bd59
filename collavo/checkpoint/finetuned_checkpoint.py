"""A fine-tuned checkpoint: crayon prompt parameters and LoRA adapters, on top of the base checkpoint.

    crayon.safetensors        the crayon prompt's parameters, under our names
    parts.safetensors         projector and vision tower, if they were trained too
    image_cit/, vl_cit/       the LoRA adapters, as PEFT writes them
    state.json                what was trained, and on what

A directory like this loads wherever a whole checkpoint does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from configs.common.words import quoted, shown
from modeling.files import FileError, is_file, is_folder
from modeling.stored_tensor import FLOATS, check_range
from modeling.weight_files import describe, load

from ..errors import CheckpointError
from ..trainable_parts import TARGETS, is_crayon, lora_shapes, part_of
from .names import check_fit, fingerprint, read_json
from .recorded import CrayonRecord, SegmenterRecord
from .sizes import HasShape, Queries, StrictJson, validated

if TYPE_CHECKING:
    from torch import nn

    from ..model import CoLLaVOForConditionalGeneration

STATE, CRAYON, PARTS_FILE = "state.json", "crayon.safetensors", "parts.safetensors"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
VERSION = 2
_READ_VERSIONS = (1, 2)
"""Version 1 has no template and no segmenter, and lists the crayon settings without their names."""


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a training run stands.

    Attributes:
        step: updates made.
        started_from: checkpoint directory whose weights are frozen below: absolute, or, in a file, from the directory
            that the file is in.
        stage: see ``trainer/stages``.
        adapters: names of the LoRA adapters.
        rank: of the adapters.
        alpha: of the adapters.
        crayon: which queries act: both, semantic or none.
        settings: what a continuation must have in common: seed, batch size, data; by name.
        template: name of the conversation's wrapper.
        parts: of the base checkpoint that were trained too, see `trainable_parts.PARTS`.
        ranks: of adapters that have another one than ``rank``.
        targets: the decoder's linears that carry the adapters.
        segmenter: that made the maps of visual instructions, by the keys of ``SEGMENTER``; None for none that could
            make others.
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
    template: str = "chat"
    segmenter: Mapping[str, Any] | None = None
    parts: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    targets: tuple[str, ...] = TARGETS
    version: int = VERSION

    def rank_of(self, adapter: str) -> int:
        """Rank of an adapter."""
        return self.ranks.get(adapter, self.rank)


_Target = Literal["wqkv", "wo", "w1", "w2", "w3"]


class _StateFile(StrictJson):
    """``state.json``."""

    step: Annotated[int, Field(ge=0, le=2**40)]
    started_from: Annotated[str, Field(min_length=1)]
    stage: str
    adapters: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]], Field(max_length=16)]
    rank: Annotated[int, Field(ge=1, le=2**16)]
    alpha: Annotated[int, Field(ge=1, le=2**20)]
    crayon: Queries
    settings: dict[str, Any]
    parts: list[Literal["projector", "tower"]] = []
    ranks: dict[str, Annotated[int, Field(ge=1, le=2**16)]] = {}
    targets: Annotated[list[_Target], Field(min_length=1)] = ["wqkv", "wo", "w1", "w2", "w3"]
    template: Literal["chat", "demo"] = "chat"
    segmenter: SegmenterRecord | None = None
    version: int


class _AdapterFile(StrictJson):
    """``adapter_config.json``, as far as it says what a LoRA adapter does: only plain LoRA is read."""

    peft_type: Literal["LORA"]
    r: int
    lora_alpha: int
    target_modules: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    bias: Literal["none"] = "none"
    fan_in_fan_out: Literal[False] = False
    lora_bias: Literal[False] = False
    use_rslora: Literal[False] = False
    use_dora: Literal[False] = False
    rank_pattern: Annotated[dict[str, Any], Field(max_length=0)] = {}
    alpha_pattern: Annotated[dict[str, Any], Field(max_length=0)] = {}
    layers_to_transform: None = None
    modules_to_save: None = None
    layer_replication: None = None
    target_parameters: None = None
    trainable_token_indices: None = None
    use_qalora: Literal[False] = False
    use_bdlora: Literal[False] | None = None


_base: ContextVar[Path | None] = ContextVar("base", default=None)
"""Where the base checkpoint of what a training run left lies now; None for where it says itself."""


def use_base(base: Path | None) -> None:
    """Look for the base checkpoint of what a training run left in another place than it says, from now on.

    Args:
        base: a whole checkpoint with the same weights; None for the place that it says.
    """
    _base.set(base)


def is_trained(folder: Path) -> bool:
    """Whether a directory is what a training run left, rather than a whole checkpoint."""
    return is_file(folder / STATE)


def write_state(folder: Path, state: TrainingState) -> None:
    """Write ``state.json``."""
    values = asdict(state)
    for key, usual in (("parts", ()), ("ranks", {}), ("targets", TARGETS)):
        if values[key] == usual:
            del values[key]  # earlier versions of this code read it too
    (folder / STATE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_state(folder: Path) -> TrainingState:
    """Read ``state.json``.

    Raises:
        CheckpointError: it is missing, unreadable or malformed, of another version, or the checkpoint below is gone or
            no whole one.
    """
    file = folder / STATE
    try:
        values = read_json(file)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: not what a training run left ({error})") from error
    version = values.get("version")
    if version not in _READ_VERSIONS or isinstance(version, bool):
        raise CheckpointError(
            f"{file}: not what a training run left (its version is {quoted(version)}; this code reads 1 and 2)"
        )
    said = validated(_StateFile, values, f"{file}: not what a training run left")
    if len(set(said.adapters)) < len(said.adapters):
        raise CheckpointError(f"{file}: adapters: a name stands there twice")
    settings = dict(said.settings)
    if "CRAYON" in settings:
        settings["CRAYON"] = validated(CrayonRecord, settings["CRAYON"], f"{file}: settings.CRAYON").model_dump()
    base = _base.get()
    below = _below(folder, said.started_from) if base is None else _moved(folder, settings, base)
    segmenter = None if said.segmenter is None else said.segmenter.model_dump(exclude_defaults=True)
    return TrainingState(
        **{
            **dict(said),
            "settings": settings,
            "segmenter": segmenter,
            "started_from": str(below),
            "adapters": tuple(said.adapters),
            "targets": tuple(said.targets),
            "parts": tuple(said.parts),
        }
    )


def _below(folder: Path, started_from: str) -> Path:
    """The checkpoint that a training run started from, which must be whole: training runs name the one at the bottom.

    Raises:
        CheckpointError: it is missing, or is what a training run left.
    """
    file = folder / STATE
    try:
        below = Path(os.path.realpath(folder / started_from))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: started_from: {quoted(started_from)} is no path ({error})") from error
    if not is_folder(below):
        raise CheckpointError(
            f"{folder}: was trained on {shown(str(below))}, which is not there ({STATE} names it). If it has "
            "moved, BASE (merge: --base) says where it is"
        )
    if is_trained(below):
        raise CheckpointError(
            f"{file}: started_from: {below} is itself what a training run left, not a whole checkpoint"
        )
    return below


def _moved(folder: Path, settings: Mapping[str, Any], base: Path) -> Path:
    """The checkpoint that a training run started from, in the place that ``BASE`` names.

    Raises:
        CheckpointError: it is none, or another one.
    """
    below = Path(os.path.realpath(os.path.expanduser(base)))
    if not is_folder(below) or is_trained(below):
        raise CheckpointError(f"BASE: {shown(str(base))} is no directory of a whole checkpoint")
    known = settings.get("foundation")
    if isinstance(known, str) and fingerprint(below) != known:
        raise CheckpointError(
            f"BASE: {shown(str(base))} is not the checkpoint that {folder} was trained on: its files differ"
        )
    return below


def base_checkpoint(folder: Path) -> Path:
    """The whole checkpoint at the bottom: the directory itself, or the one that a training run started from.

    Raises:
        CheckpointError: see `read_state`.
    """
    return Path(read_state(folder).started_from) if is_trained(folder) else folder


def check_trained(folder: Path, state: TrainingState, below: Mapping[str, HasShape]) -> None:
    """Compare the files of what a training run left with the checkpoint below, without reading their tensors.

    Args:
        folder: see the top of the file.
        state: of it.
        below: the tensors of the checkpoint below, or their descriptions, by our names.

    Raises:
        CheckpointError: a file is missing, unreadable or of other settings, or a tensor is missing, unknown or misfits.
    """
    _check_shapes(folder / CRAYON, {name: tuple(tensor.shape) for name, tensor in below.items() if is_crayon(name)})
    if state.parts:
        chosen = {name: tuple(tensor.shape) for name, tensor in below.items() if part_of(name) in state.parts}
        _check_shapes(folder / PARTS_FILE, chosen)
    for adapter in state.adapters:
        rank = state.rank_of(adapter)
        wanted: dict[str, tuple[int, ...]] = {}
        for name, tensor in below.items():
            wanted |= lora_shapes(name, tuple(tensor.shape), rank, state.targets)
        file = folder / adapter / ADAPTER_CONFIG
        said = validated(_AdapterFile, read_json(file), file)
        if (said.r, said.lora_alpha) != (rank, state.alpha):
            raise CheckpointError(
                f"{file}: r and lora_alpha are {said.r} and {said.lora_alpha}, {STATE} says {rank} and {state.alpha}"
            )
        _check_shapes(folder / adapter / ADAPTER, wanted)


def _check_shapes(file: Path, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file's tensors with those that it must hold."""
    try:
        found = describe(file)
    except FileError as error:
        raise CheckpointError(str(error)) from error
    check_fit(file, found, wanted)
    for name, stored in found.items():
        if stored.dtype not in FLOATS:
            raise CheckpointError(f"{file}: {name} is of the type {stored.dtype}; weights are {', '.join(FLOATS)}")


def identity_of(folder: Path) -> str:
    """Identity of a checkpoint's weights, be it whole or what a training run left.

    Raises:
        CheckpointError: see `names.fingerprint` and `read_state`.
    """
    if not is_trained(folder):
        return fingerprint(folder)
    state = read_state(folder)
    digest = hashlib.sha256(identity_of(Path(state.started_from)).encode())
    digest.update(repr((state.adapters, state.rank, state.alpha, state.crayon)).encode())
    if state.ranks:
        digest.update(repr(sorted(state.ranks.items())).encode())  # ranks scale what the adapters add
    parts = [folder / PARTS_FILE] if state.parts else []
    for file in (folder / CRAYON, *parts, *(folder / name / ADAPTER for name in state.adapters)):
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{file}: not readable ({error.strerror})") from error
    return digest.hexdigest()[:16]


def load_parts(folder: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Read the parts of the base checkpoint that were trained too.

    Args:
        folder: see the top of the file.
        parameters: of those parts, by name; none where none was trained.

    Raises:
        CheckpointError: they are missing, or do not fit.
    """
    if parameters:
        _fill(folder / PARTS_FILE, parameters)


def load_crayon(folder: Path, crayon: Mapping[str, nn.Parameter]) -> None:
    """Read the crayon prompt's parameters.

    Args:
        folder: see the top of the file.
        crayon: see `adapters.crayon_parameters`.

    Raises:
        CheckpointError: they are missing, or do not fit.
    """
    _fill(folder / CRAYON, crayon)


def _fill(file: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Give parameters the values of a file that holds them and no others."""
    tensors = read_file(file)
    check_fit(file, tensors, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])


def read_file(file: Path) -> dict[str, Any]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: it is missing or damaged, or a tensor holds NaN or infinity.
    """
    try:
        tensors = load(file)
        check_range(tensors, file)
    except FileError as error:
        raise CheckpointError(str(error)) from error
    return tensors


def apply(folder: Path, model: CoLLaVOForConditionalGeneration) -> Any:
    """Put what a training run left onto the model that it started from.

    Args:
        folder: see the top of the file.
        model: of the checkpoint below; its crayon parameters are not quantised.
    Returns: the `Adapters`, which act from now on.

    Raises:
        CheckpointError: something is missing, or does not fit.
    """
    from ..adapters import Adapters, base_parameters, crayon_parameters

    state = read_state(folder)
    model.config.crayon_queries = state.crayon
    load_crayon(folder, crayon_parameters(model))
    load_parts(folder, base_parameters(model, state.parts))
    adapters = Adapters(
        model, state.adapters, rank=state.rank, alpha=state.alpha, ranks=state.ranks, targets=state.targets
    )
    adapters.load(folder)
    return adapters
