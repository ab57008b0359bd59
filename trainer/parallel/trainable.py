"""Which parameters a step trains; all others are frozen, and nothing moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from collavo.adapters import IMAGE_CIT, VL_CIT, Adapters, crayon_parameters
from collavo.model import CoLLaVOForConditionalGeneration

Parameters = dict[str, nn.Parameter]

CRAYON, SHARED = "crayon", "shared"
"""The adapter of stage ``cpt``; and the one set of the ablation that trains both kinds of data with it."""

SETS = {"dual": (IMAGE_CIT, VL_CIT), "shared": (SHARED,), "vl_only": (VL_CIT,)}
"""TRAIN.ADAPTERS -> the LoRA adapters."""


def groups(model: CoLLaVOForConditionalGeneration, adapters: Adapters, crayon: str) -> dict[str, Sequence[Parameters]]:
    """What the steps of each adapter train.

    Args:
        model: carries the sets.
        adapters: the sets; none for stage ``cpt``.
        crayon: TRAIN.CRAYON; without a crayon prompt its parameters rest.
    Returns: adapter -> groups of parameters, by name.
    """
    prompt: list[Parameters] = [] if crayon == "none" else [crayon_parameters(model)]
    if not adapters.names:
        return {CRAYON: prompt}
    if adapters.names == (SHARED,):
        shared = [*prompt, adapters.parameters(SHARED)]
        return {IMAGE_CIT: shared, VL_CIT: shared}
    return {name: [*prompt, adapters.parameters(name)] for name in adapters.names}


def trained(adapters: Mapping[str, Sequence[Parameters]]) -> Parameters:
    """All parameters that any adapter trains, by name."""
    return {name: parameter for groups in adapters.values() for group in groups for name, parameter in group.items()}


def separate(adapters: Mapping[str, Sequence[Parameters]]) -> list[Parameters]:
    """The groups of all adapters, each once, in a fixed order."""
    found: dict[tuple[str, ...], Parameters] = {}
    for groups in adapters.values():
        for group in groups:
            found.setdefault(tuple(group), group)
    return list(found.values())


def only(trained: Sequence[dict[str, nn.Parameter]], model: nn.Module) -> None:
    """Let a step train these parameters and nothing else; all others get no gradient."""
    wanted = {id(parameter) for group in trained for parameter in group.values()}
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(id(parameter) in wanted)
        if id(parameter) not in wanted:
            parameter.grad = None
