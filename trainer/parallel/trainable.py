"""Which parameters a step trains; all others are frozen, and nothing moves them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from collavo.adapters import IMAGE_CIT, VL_CIT, Adapters, base_parameters, crayon_parameters
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.trainable_parts import PARTS

from ..config import SHARED

Parameters = dict[str, nn.Parameter]

CRAYON = "crayon"
"""The adapter of stage ``cpt``."""


def adapter_groups(
    model: CoLLaVOForConditionalGeneration, adapters: Adapters, crayon: str, parts: Sequence[str] = ("queries",)
) -> dict[str, Sequence[Parameters]]:
    """What the steps of each adapter train.

    Args:
        model: carries the adapters.
        adapters: of LoRA; none for stage ``cpt``.
        crayon: TRAIN.CRAYON; without a crayon prompt its parameters are frozen.
        parts: TRAIN.PARTS: what every step trains besides.
    Returns: adapter -> groups of parameters, by name.
    """
    prompt = without_adapters(model, crayon, parts)
    if not adapters.names:
        return {CRAYON: prompt}
    if adapters.names == (SHARED,):
        shared = [*prompt, adapters.parameters(SHARED)]
        return {IMAGE_CIT: shared, VL_CIT: shared}
    return {name: [*prompt, adapters.parameters(name)] for name in adapters.names}


def without_adapters(model: CoLLaVOForConditionalGeneration, crayon: str, parts: Sequence[str]) -> list[Parameters]:
    """What every step trains besides its adapter; see `adapter_groups`."""
    prompt: list[Parameters] = [crayon_parameters(model)] if crayon != "none" and "queries" in parts else []
    return prompt + [base_parameters(model, [part]) for part in PARTS if part in parts]


def trainable_parameters(adapters: Mapping[str, Sequence[Parameters]]) -> Parameters:
    """All parameters that any adapter trains, by name."""
    return {name: parameter for groups in adapters.values() for group in groups for name, parameter in group.items()}


def num_weights(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers parameters hold, those of packed 4-bit weights and of ZeRO-3's shards counted in full."""
    return sum(_num(parameter) for parameter in parameters)


def _num(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    if state is not None and getattr(state, "shape", None) is not None:
        return math.prod(state.shape)
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def distinct_groups(adapters: Mapping[str, Sequence[Parameters]]) -> list[Parameters]:
    """The groups of all adapters, each once, in a fixed order."""
    found: dict[tuple[str, ...], Parameters] = {}
    for groups in adapters.values():
        for group in groups:
            found.setdefault(tuple(group), group)
    return list(found.values())


def train_only(trained: Sequence[dict[str, nn.Parameter]], model: nn.Module, *, keep_gradients: bool = False) -> None:
    """Let a step train these parameters and nothing else; all others get no gradient.

    Args:
        trained: groups of parameters.
        model: that they are of.
        keep_gradients: leave the gradients of all others where they are, which are zero.
    """
    wanted = {id(parameter) for group in trained for parameter in group.values()}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(id(parameter) in wanted)
        if id(parameter) not in wanted and not keep_gradients:
            parameter.grad = None
