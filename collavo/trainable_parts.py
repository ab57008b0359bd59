"""Names of the parts of the model that training changes. Importing this loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

IMAGE_CIT, VL_CIT = "image_cit", "vl_cit"
"""Names of the two LoRA adapters: object-level crayon instructions, and visual instructions."""
TARGETS = ("wqkv", "wo", "w1", "w2", "w3")
"""The decoder's linears, which may carry LoRA."""


def lora_linear_pattern(targets: Sequence[str] = TARGETS) -> str:
    """The linears that carry LoRA, as a pattern over module names.

    Args:
        targets: names of `TARGETS`.
    """
    return rf"language_model\.layers\.\d+\.(attention|mlp)\.({'|'.join(targets)})\.base"


LINEARS = lora_linear_pattern()
"""Every linear of the decoder."""
CRAYON_PAIR = (".crayon_a", ".crayon_b")
"""Ends of the names of the low-rank pairs that bring the crayon prompt into the decoder."""

_WEIGHT = re.compile(rf"({LINEARS})\.weight")


PARTS = {"projector": "projector.", "tower": "vision_tower."}
"""Parts of the base checkpoint that may be trained too, by how the names of their parameters begin."""
IMAGES_ALONE = ("crayon.", *PARTS.values())
"""What is reached through images alone."""


def part_of(parameter: str) -> str | None:
    """Which of `PARTS` a parameter is of; None for another one."""
    return next((part for part, start in PARTS.items() if parameter.startswith(start)), None)


def is_crayon(parameter: str) -> bool:
    """Whether a parameter belongs to the crayon prompt: queries, their MLP, and the pairs that bring it in."""
    return parameter.startswith("crayon.") or parameter.removesuffix(".weight").endswith(CRAYON_PAIR)


def lora_shapes(
    name: str, shape: tuple[int, ...], rank: int, targets: Sequence[str] = TARGETS
) -> dict[str, tuple[int, ...]]:
    """What PEFT saves for a parameter of the model.

    Args:
        name: of the parameter.
        shape: of it.
        rank: of the LoRA adapter.
        targets: the linears that carry it.
    Returns: names and shapes of its low-rank pair; {} for a parameter that carries none.
    """
    match = _WEIGHT.fullmatch(name)
    if match is None or len(shape) != 2 or match.group(3) not in targets:
        return {}
    key = f"base_model.model.{match.group(1)}"
    return {f"{key}.lora_A.weight": (rank, shape[1]), f"{key}.lora_B.weight": (shape[0], rank)}
