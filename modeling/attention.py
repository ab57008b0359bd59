"""Plain attention, for the ``eager`` choice; every other backend comes from transformers' attention interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .precision import at_least_float32


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention by explicit softmax, computed in float32.

    Args:
        module: the calling attention; ``num_key_value_groups`` query heads share a key-value head.
        query: (B, heads, T, head_dim).
        key: (B, key-value heads, S, head_dim).
        value: like ``key``.
        attention_mask: additive, broadcastable to (B, heads, T, S), or None.
        scaling: factor of the scores.
        dropout: probability on the weights, in training.
    Returns: output (B, T, heads, head_dim) and weights (B, heads, T, S).
    """
    groups = int(module.num_key_value_groups)  # type: ignore[arg-type]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    weights = torch.softmax(at_least_float32(scores), dim=-1).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
