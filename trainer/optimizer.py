"""AdamW that leaves alone what is frozen, whatever holds its parameters: tensors, shards, or ZeRO's flat buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .parallel.trainable import Parameters

PARTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter."""
CONSTANT = ("qmap1", "qmap2")
"""Tables that bitsandbytes keeps in every parameter's state and that never change; checkpoints leave them out."""
FROZEN = "frozen"
"""Key of a parameter group: True while nothing of it may move."""
FACTOR = "factor"
"""Key of a parameter group: its learning rate over that of the others."""
GroupSettings = Callable[[Parameters], Mapping[str, Any]]
"""What a parameter group has of its own: `FACTOR`, ``weight_decay``."""


def all_alike(group: Parameters) -> Mapping[str, Any]:
    """Nothing: all groups are trained in the same way."""
    return {}


class _FrozenAware(torch.optim.Optimizer):
    """Steps the groups that are not frozen, and those alone.

    Plain AdamW passes by parameters without a gradient. ZeRO lays a group's parameters into one flat buffer whose
    missing gradients are zeros, and a zero gradient still moves weights (by momentum and weight decay) and state. A
    frozen group is therefore not stepped at all. ZeRO steps group by group with this very method, so this holds there
    too: it then copies the unchanged buffer back onto the weights. All groups are frozen until an update names its own,
    which also keeps DeepSpeed's own first step, on zero gradients, from moving anything.

    Attributes:
        held: says whether nothing may move at all: the gradient is no number.
    """

    held: Callable[[], bool] = staticmethod(lambda: False)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update what is not frozen."""
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group[FROZEN]] if not self.held() else []
        try:
            return super().step(closure)
        finally:
            self.param_groups = everything


class FrozenAwareAdamW(_FrozenAware, torch.optim.AdamW):
    """AdamW over groups of which some are frozen; see `_FrozenAware`.

    Args:
        groups: parameters by name; each becomes a parameter group, in this order.
        lr: learning rate.
        weight_decay: as in AdamW.
        own: what groups have of their own.
    """

    def __init__(
        self, groups: Sequence[Parameters], *, lr: float, weight_decay: float, own: GroupSettings = all_alike
    ) -> None:
        super().__init__(frozen_param_groups(groups, own), lr=lr, weight_decay=weight_decay)


def frozen_param_groups(groups: Sequence[Parameters], own: GroupSettings) -> list[dict[str, Any]]:
    """Parameter groups, all frozen."""
    return [{"params": list(group.values()), FROZEN: True, FACTOR: 1.0, **own(group)} for group in groups]


def make_optimizer(
    kind: str, groups: Sequence[Parameters], *, lr: float, weight_decay: float, own: GroupSettings = all_alike
) -> torch.optim.Optimizer:
    """AdamW of torch or of bitsandbytes, over groups of which some are frozen.

    Args:
        kind: adamw, adamw_8bit, paged_adamw or paged_adamw_8bit.
        groups: see `FrozenAwareAdamW`.
        lr: learning rate.
        weight_decay: as in AdamW.
        own: what groups have of their own.
    """
    if kind == "adamw":
        return FrozenAwareAdamW(groups, lr=lr, weight_decay=weight_decay, own=own)
    from bitsandbytes import optim

    base = {"adamw_8bit": optim.AdamW8bit, "paged_adamw": optim.PagedAdamW, "paged_adamw_8bit": optim.PagedAdamW8bit}
    cls = type(f"FrozenAware{base[kind].__name__}", (_FrozenAware, base[kind]), {})
    optimizer: torch.optim.Optimizer = cls(frozen_param_groups(groups, own), lr=lr, weight_decay=weight_decay)
    return optimizer


def load_bitsandbytes(
    optimizer: Any, names: Mapping[torch.nn.Parameter, str], state: Mapping[str, torch.Tensor]
) -> None:
    """Give an optimizer of bitsandbytes the state of a checkpoint, in buffers of its own, which may be paged.

    Args:
        optimizer: of `make_optimizer`.
        names: of its parameters.
        state: ``<parameter>/<part>``; parameters without a state keep none.
    """
    for number, group in enumerate(optimizer.param_groups):
        for place, parameter in enumerate(group["params"]):
            name = names[parameter]
            if f"{name}/state1" not in state:
                continue
            optimizer.init_state(group, parameter, number, place)
            for part, buffer in optimizer.state[parameter].items():
                if part == "step":
                    optimizer.state[parameter]["step"] = int(state[f"{name}/step"])
                elif part not in CONSTANT:
                    buffer.copy_(state[f"{name}/{part}"])
