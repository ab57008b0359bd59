"""FocalNet, the backbone: a convolutional hierarchy whose blocks mix positions by focal modulation.

Source: Yang et al. 2022 (arXiv 2203.11926), section 3. Two variants, as X-Decoder's public models use them:
``depthwise`` (Focal-T) has 3x3 depth-wise convolutions in its blocks and norms the sum of input and branch; the other
(Focal-L) norms the branch before it is added.

Shapes: B images, H and W the current map's sides, C its channels, L focal levels. Blocks work with channels last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import NUM_STAGES, BackboneConfig

PATCH_SIZE = 4  # pixels of a token's side in the first stage


class PatchEmbedding(nn.Module):
    """Strided convolution and layer norm that begin a stage; the map is first padded to a multiple of the stride.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        kernel_size: of the convolution.
        stride: of the convolution.
        padding: zeros that the convolution adds on each side.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, H/stride, W/stride, out_channels), sides rounded up."""
        x = F.pad(x, (0, -x.shape[-1] % self.stride, 0, -x.shape[-2] % self.stride))
        normed: Tensor = self.norm(self.convolution(x).permute(0, 2, 3, 1))
        return normed

    @classmethod
    def stem(cls, out_channels: int, depthwise: bool) -> PatchEmbedding:
        """The first stage's, from RGB; the variants pad by different amounts."""
        return cls(3, out_channels, kernel_size=7, stride=PATCH_SIZE, padding=3 if depthwise else 2)

    @classmethod
    def between(cls, in_channels: int, out_channels: int) -> PatchEmbedding:
        """That of every later stage, which halves the map's sides."""
        return cls(in_channels, out_channels, kernel_size=3, stride=2, padding=1)


class FocalModulation(nn.Module):
    """Modulates each position's query with a gated sum of ever wider contexts.

    Args:
        channels: of the map (C).
        num_levels: convolved contexts (L); the mean of the whole map is one more.
        window: side of the first one's kernel; each further one's is wider by 2.
    """

    def __init__(self, channels: int, num_levels: int, window: int) -> None:
        super().__init__()
        self.input = nn.Linear(channels, 2 * channels + num_levels + 1)  # query, context, gates
        self.contexts = nn.ModuleList(
            nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, bias=False)
            for side in range(window, window + 2 * num_levels, 2)
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        channels, num_gates = x.shape[-1], len(self.contexts) + 1
        projected = self.input(x).permute(0, 3, 1, 2)  # (B, 2C + L + 1, H, W)
        query, context, gates = torch.split(projected, [channels, channels, num_gates], dim=1)
        total = torch.zeros_like(context)
        for level, convolution in enumerate(self.contexts):
            context = F.gelu(convolution(context))
            total = total + context * gates[:, level : level + 1]
        whole = F.gelu(context.mean(dim=(2, 3), keepdim=True))
        total = (total + whole * gates[:, -1:]) / num_gates
        modulated: Tensor = self.output((query * self.mix(total)).permute(0, 2, 3, 1))
        return modulated


class FocalBlock(nn.Module):
    """Focal modulation, then an MLP, each a residual branch scaled by channel.

    Args:
        channels: of the map (C).
        num_levels: see `FocalModulation`.
        window: see `FocalModulation`.
        config: the backbone's, for what all blocks share.
    """

    def __init__(self, channels: int, num_levels: int, window: int, config: BackboneConfig) -> None:
        super().__init__()
        self.depthwise = config.depthwise
        if config.depthwise:
            self.local1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            self.local2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.modulation = FocalModulation(channels, num_levels, window)
        self.norm1 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, int(channels * config.mlp_ratio))
        self.fc2 = nn.Linear(int(channels * config.mlp_ratio), channels)
        self.norm2 = nn.LayerNorm(channels)
        self.scale1 = nn.Parameter(torch.full((channels,), config.layer_scale))
        self.scale2 = nn.Parameter(torch.full((channels,), config.layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        return self._norm_of_sum(x) if self.depthwise else self._sum_of_norm(x)

    def _norm_of_sum(self, x: Tensor) -> Tensor:
        x = x + _channels_last(self.local1, x)
        x = self.norm1(x + self.scale1 * self.modulation(x))
        x = x + _channels_last(self.local2, x)
        normed: Tensor = self.norm2(x + self.scale2 * self._mlp(x))
        return normed

    def _sum_of_norm(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.norm1(self.modulation(x))
        total: Tensor = x + self.scale2 * self.norm2(self._mlp(x))
        return total

    def _mlp(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


class FocalStage(nn.Module):
    """Patch embedding, blocks, and the norm of what is given out as a feature map.

    Args:
        config: the backbone's.
        index: of the stage, 0 = finest.
    """

    def __init__(self, config: BackboneConfig, index: int) -> None:
        super().__init__()
        channels, levels, window = config.widths[index], config.focal_levels[index], config.focal_windows[index]
        self.embed = (
            PatchEmbedding.between(config.widths[index - 1], channels)
            if index
            else PatchEmbedding.stem(channels, config.depthwise)
        )
        self.blocks = nn.ModuleList(FocalBlock(channels, levels, window, config) for _ in range(config.depths[index]))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From the map before, (B, channels before, H, W), to the map for the next stage and the feature map.

        Both are (B, C, H/stride, W/stride); the next stage goes on from the one that is not normed.
        """
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2), self.norm(x).permute(0, 3, 1, 2)


class FocalNet(nn.Module):
    """The backbone.

    Args:
        config: sizes and variant.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(FocalStage(config, index) for index in range(NUM_STAGES))
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps of strides 4, 8, 16 and 32.

        Args:
            pixels: normalised RGB, (B, 3, H, W).

        Returns:
            four maps, fine to coarse: (B, e, H/4, W/4) to (B, 8e, H/32, W/32), e the embedding's width.
        """
        x, features = pixels.to(next(self.parameters()).dtype), []
        for stage in self.stages:
            x, feature = stage(x)
            features.append(feature)
        return features


def _channels_last(convolution: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to a map (B, H, W, C)."""
    convolved: Tensor = convolution(x.permute(0, 3, 1, 2))
    return convolved.permute(0, 2, 3, 1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
