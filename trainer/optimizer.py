"""AdamW that leaves alone what is frozen, whatever holds its parameters: tensors, shards, or ZeRO's flat buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .parallel.trainable import Parameters

FROZEN = "rests"
"""Key of a parameter group: True while nothing of it may move."""
FACTOR = "factor"
"""Key of a parameter group: its learning rate over that of the others."""
GroupSettings = Callable[[Parameters], Mapping[str, Any]]
"""What a parameter group has of its own: `FACTOR`, ``weight_decay``."""


def all_alike(group: Parameters) -> Mapping[str, Any]:
    """Nothing: all groups are trained in the same way."""
    return {}


class FrozenAwareAdamW(torch.optim.AdamW):
    """AdamW over groups of which some rest.

    Plain AdamW passes by parameters without a gradient. ZeRO lays a group's parameters into one flat buffer whose
    missing gradients are zeros, and a zero gradient still moves weights (by momentum and weight decay) and state. A
    resting group is therefore not stepped at all. ZeRO steps group by group with this very method, so this holds there
    too: it then copies the unchanged buffer back onto the weights. All groups rest until told otherwise, which also
    keeps DeepSpeed's own first step, on zero gradients, from moving anything.

    Args:
        groups: parameters by name; each becomes a parameter group, in this order.
        lr: learning rate.
        weight_decay: as in AdamW.
        own: what groups have of their own.
    """

    def __init__(
        self, groups: Sequence[Parameters], *, lr: float, weight_decay: float, own: GroupSettings = all_alike
    ) -> None:
        listed = [{"params": list(group.values()), FROZEN: True, FACTOR: 1.0, **own(group)} for group in groups]
        super().__init__(listed, lr=lr, weight_decay=weight_decay)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update what does not rest."""
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group[FROZEN]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = everything
