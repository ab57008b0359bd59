"""The pixel decoder: a feature pyramid with a transformer encoder on its coarsest map.

It turns the backbone's maps into three maps for the queries to look at and one whose inner products with mask
embeddings are mask logits. Source: Cheng et al. 2021 (arXiv 2107.06278), section 3.2; the form with a
transformer on the coarsest map is the one that X-Decoder (arXiv 2212.11270) uses with its Focal and DaViT backbones.

Shapes: B images, H and W the padded input's sides, C pyramid channels, M mask channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .config import NORM_GROUPS, PixelDecoderConfig
from .position import sine_position


@dataclass(frozen=True, kw_only=True)
class PixelFeatures:
    """What the pixel decoder gives.

    Attributes:
        levels: three maps, coarse to fine: (B, C, H/32, W/32), (B, C, H/16, W/16), (B, C, H/8, W/8).
        mask_features: (B, M, H/4, W/4).
    """

    levels: tuple[Tensor, ...]
    mask_features: Tensor


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each followed by a norm of the sum.

    Args:
        config: sizes.
    """

    def __init__(self, config: PixelDecoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config.conv_dim, config.num_heads)
        self.norm1 = nn.LayerNorm(config.conv_dim)
        self.fc1 = nn.Linear(config.conv_dim, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.conv_dim)
        self.norm2 = nn.LayerNorm(config.conv_dim)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.xavier_uniform_(self.fc2.weight)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C); the position encoding (N, C) is added to queries and keys, not to values."""
        placed = x + position
        x = self.norm1(x + self.attention(placed, placed, x))
        normed: Tensor = self.norm2(x + self.fc2(F.relu(self.fc1(x))))
        return normed


class ConvNorm(nn.Module):
    """Convolution without bias that keeps the map's size, and group norm.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel_size: of the convolution; odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.GroupNorm(NORM_GROUPS, out_channels)
        nn.init.kaiming_uniform_(self.convolution.weight, a=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        normed: Tensor = self.norm(self.convolution(x))
        return normed


class PixelDecoder(nn.Module):
    """Backbone features to maps for the queries and mask features.

    Args:
        config: sizes.
        in_channels: of the backbone's four maps, fine to coarse.
    """

    def __init__(self, config: PixelDecoderConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        width = config.conv_dim
        names = [f"res{stage}" for stage in range(2, 2 + len(in_channels))]
        self.input_projection = nn.Conv2d(in_channels[-1], width, 1)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.lateral = nn.ModuleDict(
            {name: ConvNorm(channels, width, 1) for name, channels in zip(names[:-1], in_channels[:-1], strict=True)}
        )
        self.merge = nn.ModuleDict({name: ConvNorm(width, width, 3) for name in names})
        self.mask_features = nn.Conv2d(width, config.mask_dim, 3, padding=1)
        for convolution in (self.input_projection, self.mask_features):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> PixelFeatures:
        """Decode the backbone's four maps, fine to coarse, each (B, its channels, its sides)."""
        *finer, coarsest = features
        x = F.relu(self.merge["res5"](self.encode(coarsest)))
        levels = [x]
        for name, feature in zip(("res4", "res3", "res2"), reversed(finer), strict=True):
            lateral = self.lateral[name](feature)
            x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            x = F.relu(self.merge[name](x))
            levels.append(x)
        return PixelFeatures(levels=tuple(levels[:-1]), mask_features=self.mask_features(x))

    def encode(self, coarsest: Tensor) -> Tensor:
        """The coarsest map (B, its channels, h, w) after the transformer, (B, C, h, w)."""
        x = self.input_projection(coarsest)
        height, width = x.shape[-2:]
        position = sine_position(height, width, x.shape[1] // 2, x.device).to(x.dtype).flatten(1).T  # (hw, C)
        x = x.flatten(2).transpose(1, 2)  # (B, hw, C)
        for layer in self.encoder:
            x = layer(x, position)
        encoded: Tensor = x.transpose(1, 2).reshape(len(x), -1, height, width)
        return encoded
