"""InternLM-XComposer2-VL, the base that CoLLaVO was trained on: what its parameters are called, and what they are here.

The names are those of its published code (arXiv 2401.16420; ``InternLMXComposer2ForCausalLM``, whose PLoRA layers are
linears with a low-rank pair inside). That code is never run. Importing this loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

ARCHITECTURE = "InternLMXComposer2ForCausalLM"
TITLE = "InternLM-XComposer2-VL"

_LAYER = "vision_tower.layers.{}.", "vit.vision_tower.vision_model.encoder.layers.{}."
_BOTH = ("weight", "bias")
KEYS: Mapping[str, str] = {
    "language_model.embed_tokens.weight": "model.tok_embeddings.weight",
    "language_model.layers.{}.attention.wqkv.base.weight": "model.layers.{}.attention.wqkv.weight",
    "language_model.layers.{}.attention.wqkv.image_a.weight": "model.layers.{}.attention.wqkv.Plora_A.weight",
    "language_model.layers.{}.attention.wqkv.image_b.weight": "model.layers.{}.attention.wqkv.Plora_B.weight",
    "language_model.layers.{}.attention.wo.base.weight": "model.layers.{}.attention.wo.weight",
    "language_model.layers.{}.attention.wo.image_a.weight": "model.layers.{}.attention.wo.Plora_A.weight",
    "language_model.layers.{}.attention.wo.image_b.weight": "model.layers.{}.attention.wo.Plora_B.weight",
    "language_model.layers.{}.mlp.w1.base.weight": "model.layers.{}.feed_forward.w1.weight",
    "language_model.layers.{}.mlp.w1.image_a.weight": "model.layers.{}.feed_forward.w1.Plora_A.weight",
    "language_model.layers.{}.mlp.w1.image_b.weight": "model.layers.{}.feed_forward.w1.Plora_B.weight",
    "language_model.layers.{}.mlp.w3.base.weight": "model.layers.{}.feed_forward.w3.weight",
    "language_model.layers.{}.mlp.w3.image_a.weight": "model.layers.{}.feed_forward.w3.Plora_A.weight",
    "language_model.layers.{}.mlp.w3.image_b.weight": "model.layers.{}.feed_forward.w3.Plora_B.weight",
    "language_model.layers.{}.mlp.w2.base.weight": "model.layers.{}.feed_forward.w2.weight",
    "language_model.layers.{}.mlp.w2.image_a.weight": "model.layers.{}.feed_forward.w2.Plora_A.weight",
    "language_model.layers.{}.mlp.w2.image_b.weight": "model.layers.{}.feed_forward.w2.Plora_B.weight",
    "language_model.layers.{}.attention_norm.weight": "model.layers.{}.attention_norm.weight",
    "language_model.layers.{}.mlp_norm.weight": "model.layers.{}.ffn_norm.weight",
    "language_model.norm.weight": "model.norm.weight",
    "output.weight": "output.weight",
    "vision_tower.class_embedding": "vit.vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.patch_embedding.weight": "vit.vision_tower.vision_model.embeddings.patch_embedding.weight",
    "vision_tower.position_embedding.weight": "vit.vision_tower.vision_model.embeddings.position_embedding.weight",
    **{f"vision_tower.pre_norm.{part}": f"vit.vision_tower.vision_model.pre_layrnorm.{part}" for part in _BOTH},
    **{f"vision_tower.post_norm.{part}": f"vit.vision_tower.vision_model.post_layernorm.{part}" for part in _BOTH},
    **{
        f"{_LAYER[0]}self_attn.{name}_proj.{part}": f"{_LAYER[1]}self_attn.{name}_proj.{part}"
        for name in ("q", "k", "v", "out")
        for part in _BOTH
    },
    **{f"{_LAYER[0]}fc{n}.{part}": f"{_LAYER[1]}mlp.fc{n}.{part}" for n in (1, 2) for part in _BOTH},
    **{f"{_LAYER[0]}layer_norm{n}.{part}": f"{_LAYER[1]}layer_norm{n}.{part}" for n in (1, 2) for part in _BOTH},
    **{f"projector.{n}.{part}": f"vision_proj.{n}.{part}" for n in (0, 2) for part in _BOTH},
}
"""Every parameter: our name -> the published one. ``{}`` stands for the number of a layer."""

_OURS = {published: ours for ours, published in KEYS.items()}
_UNUSED = "vit.vision_tower.vision_model.embeddings.position_ids"
"""A counter that CLIP's code saved among its weights before transformers 4.31."""
_LAYERS = "language_model.layers.", "vision_tower.layers."
_NUMBER = re.compile(r"(?<=\.layers\.)\d+(?=\.)")


def is_xcomposer2(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is of InternLM-XComposer2.

    Args:
        values: of the file; where it names no architecture, the classes of ``auto_map`` count.
    """
    named = values.get("architectures") or []
    if not named and isinstance(classes := values.get("auto_map"), Mapping):
        named = list(classes.values())
    return any(isinstance(name, str) and name.rpartition(".")[2] == ARCHITECTURE for name in named)


def from_xcomposer2(key: str) -> str | None:
    """Translate a published parameter name to ours; None for what is no parameter.

    Raises:
        KeyError: the published code has no such parameter.
    """
    return None if key == _UNUSED else _translated(key, _OURS)


def missing_keys(found: Iterable[str]) -> list[str]:
    """Parameters that are not there although others of their model, or of their layer, are; by their published names.

    Args:
        found: our names of those that are there.
    """
    kinds: dict[str, set[str]] = {}
    for key in found:
        number = _NUMBER.search(key)
        kinds.setdefault(_NUMBER.sub("{}", key, count=1), set()).add(number[0] if number else "")
    layers = {part: set().union(*(kinds.get(key, set()) for key in KEYS if key.startswith(part))) for part in _LAYERS}
    missing = []
    for ours, published in KEYS.items():
        part = next((part for part in _LAYERS if ours.startswith(part)), None)
        wanted = {""} if part is None else layers[part] or {"0"}
        missing += [published.format(number) for number in sorted(wanted - kinds.get(ours, set()))]
    return missing


def _translated(key: str, table: Mapping[str, str]) -> str:
    number = _NUMBER.search(key)
    name = table[_NUMBER.sub("{}", key, count=1)]
    return name.format(number[0]) if number else name
