"""PLoRA: a linear layer whose low-rank paths act on image tokens only.

Source: InternLM-XComposer2 (arXiv 2401.16420, partial low-rank adaptation) as the released CoLLaVO weights use it, with
a second pair for the crayon vector (CoLLaVO, arXiv 2402.11248, section 3; the released code injects the crayon prompt
through this pair rather than by addition to the hidden state).

Shape legend: B batch, T sequence, N image tokens in the batch, U distinct crayon vectors, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ImageTokens:
    """Which tokens of a batch are image tokens, and the crayon vector of each.

    A crayon vector depends on its token's (class, number) pair alone, so an image has a few dozen distinct ones:
    they are kept once each, and every layer computes its low-rank path once per distinct vector.

    Attributes:
        positions: int64 (N,), flat positions b * T + t.
        crayon: (U, hidden) distinct crayon vectors, or None where there is no crayon prompt.
        crayon_index: int64 (N,), the row of ``crayon`` that belongs to each position; None with ``crayon``.
    """

    positions: Tensor
    crayon: Tensor | None = None
    crayon_index: Tensor | None = None


class PLoRALinear(nn.Module):
    """``W x``, plus ``scale * B A x`` and ``scale * B' A' c`` at image positions.

    Args:
        in_features: width of the input and, with ``crayon``, of the crayon vector.
        out_features: width of the output.
        rank: R of both low-rank pairs.
        alpha: ``scale = alpha / rank``.
        dropout: probability, applied before the A matrices in training.
        bias: whether the base layer has a bias.
        crayon: whether the layer has the pair for the crayon vector.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        bias: bool = False,
        crayon: bool = True,
    ) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.base = nn.Linear(in_features, out_features, bias=bias)
        self.image_a = nn.Linear(in_features, rank, bias=False)
        self.image_b = nn.Linear(rank, out_features, bias=False)
        self.crayon_a = nn.Linear(in_features, rank, bias=False) if crayon else None
        self.crayon_b = nn.Linear(rank, out_features, bias=False) if crayon else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, image: ImageTokens | None) -> Tensor:
        """Apply the layer.

        Args:
            x: (B, T, in_features).
            image: the image tokens among them; None (text only, or a decoding step) gives the base layer alone.
        Returns: (B, T, out_features).
        """
        y: Tensor = self.base(x)
        if image is None:
            return y
        image_rows = x.flatten(0, 1).index_select(0, image.positions)  # (N, in)
        delta = self.image_b(self.image_a(self.dropout(image_rows)))  # (N, out)
        if self.crayon_a is not None and image.crayon is not None:
            delta = delta + self._crayon_path(image)
        delta = (delta * self.scale).to(y.dtype)
        return y.flatten(0, 1).index_add(0, image.positions, delta).view_as(y)

    def _crayon_path(self, image: ImageTokens) -> Tensor:
        """Low-rank image of the crayon vectors, (N, out)."""
        if self.crayon_a is None or self.crayon_b is None or image.crayon is None or image.crayon_index is None:
            raise ValueError("the crayon path needs its weights, the crayon vectors and their index")
        if self.training and self.dropout.p > 0:  # dropout draws per token, so the tokens cannot share a vector
            return self.crayon_b(self.crayon_a(self.dropout(image.crayon[image.crayon_index])))  # type: ignore[no-any-return]
        return self.crayon_b(self.crayon_a(image.crayon)).index_select(0, image.crayon_index)  # type: ignore[no-any-return]
