"""Names of the parts of the model that training changes. Importing this loads no torch."""

from __future__ import annotations

import re

IMAGE_CIT, VL_CIT = "image_cit", "vl_cit"
"""Names of the two LoRA adapters: object-level crayon instructions, and visual instructions."""
LINEARS = r"language_model\.layers\.\d+\.(attention|mlp)\.(wqkv|wo|w1|w2|w3)\.base"
"""The linears that carry LoRA, as a pattern over module names: every linear of the decoder."""
CRAYON_PAIR = (".crayon_a", ".crayon_b")
"""Ends of the names of the low-rank pairs that bring the crayon prompt into the decoder."""

_WEIGHT = re.compile(rf"({LINEARS})\.weight")


def is_crayon(parameter: str) -> bool:
    """Whether a parameter belongs to the crayon prompt: queries, their MLP, and the pairs that bring it in."""
    return parameter.startswith("crayon.") or parameter.removesuffix(".weight").endswith(CRAYON_PAIR)


def lora_shapes(name: str, shape: tuple[int, ...], rank: int) -> dict[str, tuple[int, ...]]:
    """What PEFT saves for a parameter of the model.

    Args:
        name: of the parameter.
        shape: of it.
        rank: of the LoRA adapter.
    Returns: names and shapes of its low-rank pair; {} for a parameter that carries none.
    """
    match = _WEIGHT.fullmatch(name)
    if match is None or len(shape) != 2:
        return {}
    key = f"base_model.model.{match.group(1)}"
    return {f"{key}.lora_A.weight": (rank, shape[1]), f"{key}.lora_B.weight": (shape[0], rank)}
