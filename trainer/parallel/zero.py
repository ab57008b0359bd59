"""A model under DeepSpeed's ZeRO: stage 2 shards gradients and optimizer state, stage 3 the weights as well.

ZeRO lays each group of parameters into a flat buffer, in which a missing gradient is zero; `FrozenAwareAdamW` says why
the frozen adapter does not move all the same. What is trained is float32 and computes under autocast, as everywhere
else here, so DeepSpeed's own half precision stays off.

Some of what is needed DeepSpeed keeps under names that may change (`PRIVATE`); they are used in this file alone, and a
version without them is refused by name. Tried with DeepSpeed 0.19.8, stages 2 and 3, on two CPU processes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from collavo.trainable_parts import IMAGES_ALONE
from pipeline.runtime.errors import RunError

from ..optimizer import FROZEN, FrozenAwareAdamW
from .sharding import Sharding
from .trainable import Parameters, distinct_groups, train_only

MOMENTS = ("exp_avg", "exp_avg_sq")
TRIED = "0.19.8"
PRIVATE = {
    2: ("single_partition_of_fp32_groups", "_lazy_init_hp_params_optimizer_state", "_global_grad_norm"),
    3: ("sub_group_to_group_id", "fp32_partitioned_groups_flat", "_global_grad_norm"),
}
"""Names of DeepSpeed's optimizer that are not part of its interface, by stage."""


def check_private_names(optimizer: object, stage: int, version: str) -> None:
    """Refuse a DeepSpeed that has other inner names than those that are used here.

    Args:
        optimizer: DeepSpeed's, around ours.
        stage: of ZeRO.
        version: of DeepSpeed.

    Raises:
        RunError: a name is missing; it is named, with a version that has it.
    """
    missing = [name for name in PRIVATE[stage] if not hasattr(optimizer, name)]
    if missing:
        raise RunError(
            f"DeepSpeed {version} has no {', '.join(missing)}, which ZeRO-{stage} needs here; {TRIED} has "
            f"(pip install deepspeed=={TRIED}), or train with configs/accel/fsdp2_accel.yaml"
        )


def keep_whole() -> None:
    """Let transformers and PEFT load whole weights: under a launch with ZeRO-3 they would cut them up while loading."""
    from transformers.integrations import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


class DeepSpeedPlacement:
    """See `trainer.parallel.placement.Placement`.

    Args:
        model: on this process's device; changed in place by stage 3.
        adapters: see `trainer.parallel.trainable.adapter_groups`.
        sharding: stage, and where the optimizer's state lies.
        lr: learning rate.
        weight_decay: of AdamW.
        clip: largest norm of the gradient; 0 for no limit.
    """

    alike = True

    def __init__(
        self,
        model: nn.Module,
        adapters: Mapping[str, Sequence[Parameters]],
        sharding: Sharding,
        *,
        lr: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        import deepspeed

        self._inner, self._adapters, self._groups = model, adapters, distinct_groups(adapters)
        self.optimizer: torch.optim.Optimizer = FrozenAwareAdamW(self._groups, lr=lr, weight_decay=weight_decay)
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), verbose=False)
        self.model, self._zero, _, _ = deepspeed.initialize(
            model=model, optimizer=self.optimizer, config=_settings(sharding, clip), dist_init_required=False
        )
        self._stage = sharding.stage
        check_private_names(self._zero, self._stage, deepspeed.__version__)
        self.inference_model = self.model
        self._drop = False
        self.optimizer.held = self._without_step
        self._fill()

    def _fill(self) -> None:
        """Make AdamW's state now: DeepSpeed finds it by parameter only where all of it is there at the first step."""
        for buffer, _ in self._buffers():
            moments = {part: torch.zeros_like(buffer, requires_grad=False) for part in MOMENTS}
            self.optimizer.state[buffer] = {"step": torch.tensor(0.0), **moments}
        if self._stage == 2:
            self._zero._lazy_init_hp_params_optimizer_state()

    def _buffers(self) -> list[tuple[Tensor, int]]:
        """This process's flat float32 buffers, and the number of the group of each."""
        if self._stage == 2:
            return [(buffer, group) for group, buffer in enumerate(self._zero.single_partition_of_fp32_groups)]
        of_group = self._zero.sub_group_to_group_id
        return [(buffer, of_group[n]) for n, buffer in enumerate(self._zero.fp32_partitioned_groups_flat)]

    def train(self, adapter: str, *, images: bool) -> None:
        """See `Placement.train`."""
        active = self._adapters[adapter]
        train_only(active, self._inner)
        names = [group.keys() for group in active]
        for group, settings in zip(self._groups, self.optimizer.param_groups, strict=True):
            prompt = any(name.startswith(IMAGES_ALONE) for name in group)
            settings[FROZEN] = group.keys() not in names or (prompt and not images)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """See `Placement.accumulating`."""
        self.model.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        """See `Placement.backward`."""
        self.model.backward(loss)

    def step(self, clip: float, *, drop: bool = False) -> float:
        """See `Placement.step`. ZeRO takes the norm while it steps, just before it asks whether anything may move."""
        self._drop = drop
        try:
            self.model.step()
        finally:
            self._drop = False
        return self._norm()

    def _norm(self) -> float:
        """Of the gradient; NaN where it is none, which DeepSpeed writes as -1."""
        norm = self.model.get_global_grad_norm()
        return math.nan if norm is None or float(norm) < 0 else float(norm)

    def _without_step(self) -> bool:
        """Whether ZeRO is about to step on a gradient that is to be forgotten."""
        return self._drop or not math.isfinite(float(self._zero._global_grad_norm)) or self._zero._global_grad_norm < 0

    def weights(self, parameters: Parameters) -> dict[str, Tensor]:
        """See `Placement.weights`."""
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_get_full_fp32_param

        moving = {name for group in self._groups for name in group}
        found: dict[str, Tensor] = {}
        with self._reachable():
            for name, parameter in parameters.items():
                if name in moving:
                    found[name] = safe_get_full_fp32_param(parameter).detach().cpu().clone()
                    continue
                with GatheredParameters([parameter], enabled=self._stage == 3):
                    found[name] = parameter.detach().cpu().clone()
        return found

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See `Placement.optimizer_tensors`. What was never trained has no state, as in AdamW itself."""
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = {group: self.optimizer.state[buffer]["step"] for buffer, group in self._buffers()}
        tensors: dict[str, Tensor] = {}
        with self._reachable():
            for number, group in enumerate(self._groups):
                for name, parameter in group.items():
                    held = {part: safe_get_full_optimizer_state(parameter, part) for part in MOMENTS}
                    if steps[number] > 0:
                        held["step"] = steps[number]
                        tensors |= {f"{name}/{part}": v.detach().cpu().clone() for part, v in held.items()}
        return tensors

    def load_optimizer(self, state: Mapping[str, Tensor]) -> None:
        """See `Placement.load_optimizer`. The parameters of a group are always stepped together, so share a count."""
        from deepspeed.utils import safe_set_full_optimizer_state

        with self._reachable():
            for group in self._groups:
                for name, parameter in group.items():
                    for part in MOMENTS:
                        if (value := state.get(f"{name}/{part}")) is not None:
                            safe_set_full_optimizer_state(parameter, value.to(parameter.device), part)
        for buffer, number in self._buffers():
            counts = [state[f"{name}/step"] for name in self._groups[number] if f"{name}/step" in state]
            if counts:
                self.optimizer.state[buffer]["step"] = counts[0].clone()

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        """Let DeepSpeed's accessors see all groups: they take a parameter that needs no gradient for a frozen one."""
        parameters = [parameter for group in self._groups for parameter in group.values()]
        before = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter, needed in zip(parameters, before, strict=True):
                parameter.requires_grad_(needed)


def _settings(sharding: Sharding, clip: float) -> dict[str, Any]:
    """DeepSpeed's configuration; batches and accumulation are the loop's."""
    zero: dict[str, Any] = {"stage": sharding.stage}
    if sharding.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
