"""How a model and its optimizer lie on the processes: whole on each (DDP), or in shards (FSDP2; `.zero` for ZeRO).

Every way keeps the rule of Dual QLoRA: an update moves the adapter that it trains, and nothing of the other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from collavo.trainable_parts import IMAGES_ALONE
from modeling.internlm2 import DecoderLayer
from modeling.vit import VisionBlock

from ..optimizer import (
    CONSTANT,
    FROZEN,
    PARTS,
    FrozenAwareAdamW,
    GroupSettings,
    all_alike,
    load_bitsandbytes,
    make_optimizer,
)
from .trainable import Parameters, distinct_groups, train_only

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .sharding import Sharding

LAYERS = (DecoderLayer, VisionBlock)
"""What is gathered at a time under FSDP2."""
AdapterGroups = Mapping[str, Sequence[Parameters]]


class Placement(Protocol):
    """What the loop and the checkpoints need to know.

    Attributes:
        model: to call.
        optimizer: over all that any adapter trains.
        inference_model: to call without gradients, on any number of rows where not ``alike``.
        alike: whether all processes must run through equally many microbatches, each of which reaches every parameter:
            shards are gathered and gradients scattered by all processes together.
    """

    model: nn.Module
    inference_model: nn.Module
    optimizer: torch.optim.Optimizer
    alike: bool

    def train(self, adapter: str, *, images: bool) -> None:
        """Let the next update train an adapter; without images in its batch the crayon prompt is frozen as well."""

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around a microbatch of an update; gradients are averaged over the processes in the last one."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a microbatch's gradients; they are averaged over the processes, not summed."""

    def step(self, clip: float, *, drop: bool = False) -> float:
        """Update what is trained, unless the gradient is no number; its norm before it is clipped (0: no limit).

        Args:
            clip: largest norm.
            drop: forget the gradient instead.
        """

    def weights(self, parameters: Parameters) -> dict[str, Tensor]:
        """Whole tensors on the CPU. All processes must call it."""

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """AdamW's state as whole tensors on the CPU, ``<parameter>/<part>``. All processes must call it."""

    def load_optimizer(self, state: Mapping[str, Tensor]) -> None:
        """Give AdamW the state that `optimizer_tensors` took. All processes must call it."""


class ReplicatedPlacement:
    """The whole model on every process; gradients are averaged by DDP where there are several.

    Args:
        accelerator: joins the processes.
        model: carries the adapters' parameters.
        adapters: see `trainer.parallel.trainable.adapter_groups`.
        lr: learning rate.
        weight_decay: of AdamW.
        own: what groups of parameters have of their own.
        kind: of AdamW, see `trainer.optimizer.make_optimizer`.
    """

    alike = False

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        adapters: AdapterGroups,
        *,
        lr: float,
        weight_decay: float,
        own: GroupSettings = all_alike,
        kind: str = "adamw",
    ) -> None:
        self._accelerator, self._inner, self._adapters = accelerator, model, adapters
        self._groups = distinct_groups(adapters)
        self.model = self._placed(model)
        self.inference_model = model
        # DDP's buckets hold the gradients of all that is trained: they stay there, zero between two updates
        self._in_buckets = isinstance(self.model, DistributedDataParallel)
        self.optimizer: torch.optim.Optimizer = make_optimizer(
            kind, self._groups, lr=lr, weight_decay=weight_decay, own=own
        )

    def _placed(self, model: nn.Module) -> nn.Module:
        placed: nn.Module = self._accelerator.prepare_model(model, device_placement=False)
        return placed

    def train(self, adapter: str, *, images: bool) -> None:
        """See `Placement.train`."""
        active = self._adapters[adapter]
        train_only(active, self._inner, keep_gradients=self._in_buckets)
        shared = {id(group) for group in self._shared()}
        for group, settings in zip(self._groups, self.optimizer.param_groups, strict=True):
            among = any(group.keys() == other.keys() for other in active)
            settings[FROZEN] = not among or (not images and id(group) in shared)

    def _shared(self) -> list[Parameters]:
        """The crayon prompt: what is reached through images alone."""
        return [group for group in self._groups if any(name.startswith(IMAGES_ALONE) for name in group)]

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """See `Placement.accumulating`."""
        return contextlib.nullcontext() if last else self._accelerator.no_sync(self.model)

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Placement.backward`."""
        self._accelerator.backward(loss)

    def step(self, clip: float, *, drop: bool = False) -> float:
        """See `Placement.step`."""
        moving = [p for g in self.optimizer.param_groups if not g[FROZEN] for p in g["params"]]
        norm = float(whole_tensor(nn.utils.clip_grad_norm_(moving, clip or math.inf)))
        if math.isfinite(norm) and not drop:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not self._in_buckets)
        return norm

    def weights(self, parameters: Parameters) -> dict[str, Tensor]:
        """See `Placement.weights`."""
        return {name: whole_tensor(parameter.detach()).cpu().contiguous() for name, parameter in parameters.items()}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See `Placement.optimizer_tensors`."""
        state = self.optimizer.state
        return {
            f"{name}/{part}": whole_tensor(torch.as_tensor(value).detach()).cpu().contiguous().clone()
            for name, parameter in self._named()
            if parameter in state
            for part, value in state[parameter].items()
            if part not in CONSTANT
        }

    def load_optimizer(self, state: Mapping[str, Tensor]) -> None:
        """See `Placement.load_optimizer`."""
        if not isinstance(self.optimizer, FrozenAwareAdamW):
            load_bitsandbytes(self.optimizer, {parameter: name for name, parameter in self._named()}, state)
            return
        for name, parameter in self._named():
            if all(f"{name}/{part}" in state for part in PARTS):
                for part in PARTS:
                    value = state[f"{name}/{part}"]
                    # AdamW keeps its count on the CPU, and everything else next to the parameter
                    kept = value.cpu() if part == "step" else laid_out_like(value, parameter)
                    self.optimizer.state[parameter][part] = kept

    def _named(self) -> Iterable[tuple[str, nn.Parameter]]:
        return (item for group in self._groups for item in group.items())


class FullyShardedPlacement(ReplicatedPlacement):
    """Weights, gradients and optimizer state in shards, by torch's `fully_shard` (FSDP2).

    Every parameter stays a tensor of its own, so one without a gradient is passed by as ever. 4-bit and 8-bit weights
    stay whole on every process (4 GB at full size): they do not train, and gathering them twice in every pass would
    cost more than the memory is worth.

    Args:
        accelerator: joins the processes.
        model: changed in place.
        adapters: of the model before it is sharded.
        sharding: see there.
        lr: learning rate.
        weight_decay: of AdamW.
    """

    alike = True

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        adapters: AdapterGroups,
        sharding: Sharding,
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        _shard(model, sharding, accelerator.num_processes)
        now = dict(model.named_parameters())
        sharded = {
            adapter: [{name: now[name] for name in group} for group in groups] for adapter, groups in adapters.items()
        }
        super().__init__(accelerator, model, sharded, lr=lr, weight_decay=weight_decay)

    def _placed(self, model: nn.Module) -> nn.Module:
        return model

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """See `Placement.accumulating`. Gradients are scattered after every microbatch: whole ones are never kept."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Placement.backward`."""
        loss.backward()  # type: ignore[no-untyped-call]


def _shard(model: nn.Module, sharding: Sharding, num: int) -> None:
    """Shard a model layer by layer, in place."""
    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (num,))
    kept = {p for p in model.parameters() if not p.is_floating_point() or hasattr(p, "quant_state")}
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=sharding.reshard, ignored_params=kept)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all its shards. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor laid out as a parameter is: on its device, or in its shards. All processes must call it."""
    moved = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return moved
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements)


def place_model(
    accelerator: Accelerator,
    model: nn.Module,
    adapters: AdapterGroups,
    sharding: Sharding | None,
    *,
    lr: float,
    weight_decay: float,
    clip: float,
    own: GroupSettings = all_alike,
    kind: str = "adamw",
) -> Placement:
    """Lay a model and its optimizer out on the processes.

    Args:
        accelerator: joins the processes.
        model: loaded on this process's device; what is trained is float32.
        adapters: see `trainer.parallel.trainable.adapter_groups`.
        sharding: see there; None for the whole model everywhere.
        lr: learning rate.
        weight_decay: of AdamW.
        clip: largest norm of the gradient; 0 for no limit.
        own: what groups of parameters have of their own; only where the whole model is everywhere.
        kind: of AdamW; one of bitsandbytes only where the whole model is everywhere.
    """
    if sharding is not None and kind != "adamw":
        raise ValueError(f"{kind} cannot be sharded")
    if sharding is None:
        return ReplicatedPlacement(accelerator, model, adapters, lr=lr, weight_decay=weight_decay, own=own, kind=kind)
    if sharding.kind == "fsdp2":
        return FullyShardedPlacement(accelerator, model, adapters, sharding, lr=lr, weight_decay=weight_decay)
    from .zero import DeepSpeedPlacement

    return DeepSpeedPlacement(model, adapters, sharding, lr=lr, weight_decay=weight_decay, clip=clip)
