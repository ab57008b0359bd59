"""The text encoder of X-Decoder: a causal transformer in CLIP's manner, from token ids to one vector per prompt.

Source: Zou et al. 2022 (arXiv 2212.11270), section 3.1; architecture of Radford et al. 2021 (arXiv 2103.00020), but the
layer norms' epsilon is 1e-12. Padding is not masked: attention is causal and the vector is read at the first end token,
which padding follows.

Shapes: N prompts, L positions, W width, D output width, A heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TextConfig

LAYER_NORM_EPS = 1e-12
MLP_RATIO = 4


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU, x * sigmoid(1.702 x); any shape."""
    return x * torch.sigmoid(1.702 * x)


class CausalAttention(nn.Module):
    """Multi-head self-attention in which a position sees itself and those before it.

    Args:
        width: of the states (W).
        num_heads: a divisor of it (A).
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)  # query, key, value, in this order
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, W) to (N, L, W)."""
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (N, L, 3, A, W/A)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (N, A, L, W/A)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined


class TextBlock(nn.Module):
    """One pre-norm transformer block: attention, then an MLP of four times the width.

    Args:
        width: of the states (W).
        num_heads: of the attention (A).
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = CausalAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, W) to (N, L, W)."""
        x = x + self.attention(self.norm1(x))
        widened: Tensor = self.fc2(quick_gelu(self.fc1(self.norm2(x))))
        return x + widened


class TextEncoder(nn.Module):
    """Prompts' token ids to vectors.

    Args:
        config: sizes.
        output_dim: width of the vectors (D); that of the class embeddings.
    """

    def __init__(self, config: TextConfig, output_dim: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.blocks = nn.ModuleList(TextBlock(config.width, config.num_heads) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.projection = nn.Parameter(torch.empty(config.width, output_dim))
        for table in (self.token_embedding.weight, self.position_embedding, self.projection):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Encode prompts.

        Args:
            ids: token ids, integers (N, L), L at most the context length; the largest id in a row is the end token.

        Returns:
            vectors, not normed (N, D).
        """
        return self.select(self.hidden(ids), ids) @ self.projection

    def hidden(self, ids: Tensor) -> Tensor:
        """States after the final norm, (N, L, W), of ids (N, L)."""
        normed: Tensor = self.final_norm(self.states(ids)[-1])
        return normed

    def states(self, ids: Tensor) -> list[Tensor]:
        """States after every block, each (N, L, W), of ids (N, L).

        Raises:
            ValueError: more positions than the context length, or an id outside the vocabulary.
        """
        config = self.config
        if ids.shape[1] > config.context_length:
            raise ValueError(f"prompts of {ids.shape[1]} tokens; the text encoder reads {config.context_length}")
        if ids.numel() and not ids.is_meta and not 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size:
            raise ValueError(f"token id {int(ids.max())}, but the text encoder knows {config.vocab_size} tokens")
        x = self.token_embedding(ids.long()) + self.position_embedding[: ids.shape[1]]
        states = []
        for block in self.blocks:
            x = block(x)
            states.append(x)
        return states

    @staticmethod
    def select(hidden: Tensor, ids: Tensor) -> Tensor:
        """The state (N, W) at each row's first largest token id, of states (N, L, W) and ids (N, L)."""
        # argmax promises no order among equal ids, and padding has the end token's id
        largest = ids == ids.amax(dim=1, keepdim=True)
        first = largest.int().cumsum(dim=1).eq(1) & largest
        return hidden[first]
