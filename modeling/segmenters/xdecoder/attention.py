"""Multi-head attention with packed projections, as pixel decoder and query decoder use it.

Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.

Shapes: B images, Q queries, N keys, C width, A heads.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention whose queries, keys and values may differ.

    Args:
        width: of all of them (C).
        num_heads: a divisor of it (A).
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)  # query, key, value, in this order
        self.output = nn.Linear(width, width)
        for linear in (self.qkv, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, C).
            key: (B, N, C).
            value: (B, N, C).
            allowed: bool, true where a query may look, broadcast to (B, A, Q, N); each query needs one true entry.

        Returns:
            (B, Q, C).
        """
        q, k, v = (self._heads(x, part) for part, x in enumerate((query, key, value)))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined

    def _heads(self, x: Tensor, part: int) -> Tensor:
        """Project (B, N, C) by one part of the packed projection, to (B, A, N, C/A)."""
        projected = F.linear(x, self.qkv.weight.chunk(3)[part], self.qkv.bias.chunk(3)[part])
        return projected.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)
