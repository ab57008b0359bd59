"""CLIP's vision transformer, as a feature extractor: last layer's tokens, without class token and without final norm.

Source: Radford et al. 2021 (arXiv 2103.00020); weights of CLIP ViT-L/14-336. CoLLaVO reads images of 490 px, so the
position table is interpolated from 24x24 to 35x35 (bicubic), once at conversion or at every call of another size.

Shape legend: B images, H and W pixels, G tokens a side (or rows and columns), P = G * G tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import eager_attention


class VisionTowerConfig(PreTrainedConfig):
    """Sizes of the tower; the defaults are CLIP ViT-L/14 at 490 px.

    Attributes:
        hidden_size: width D.
        intermediate_size: width of the MLP.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads per block.
        patch_size: side of a patch in pixels.
        image_size: side in pixels that the stored position table is for.
        hidden_act: activation of the MLP, by its transformers name.
        layer_norm_eps: epsilon of every LayerNorm.
    """

    model_type = "collavo_vision"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 490
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    attention_dropout: float = 0.0


def interpolate_positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """Resize a position table to another grid (bicubic; the class row is kept as it is).

    Args:
        table: (1 + G * G, D), class row first.
        rows: tokens from top to bottom of the new grid.
        columns: tokens from left to right.
    Returns: (1 + rows * columns, D), in the dtype of ``table``; computed in float32.
    Raises: ValueError if the table is not that of a square grid.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if side * side + 1 != table.shape[0]:
        raise ValueError(f"a position table of {table.shape[0]} rows is not a class row and a square grid")
    if (rows, columns) == (side, side):
        return table
    grid = table[1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, G, G)
    grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([table[:1], grid.permute(0, 2, 3, 1).reshape(rows * columns, -1).to(table.dtype)])


class VisionAttention(nn.Module):
    """Multi-head self-attention over all tokens."""

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, 1 + P, D) to the same shape."""
        heads = (*x.shape[:-1], -1, self.head_dim)
        query, key, value = (proj(x).view(heads).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj))
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        out, _ = attend(self, query, key, value, None, scaling=self.head_dim**-0.5, dropout=0.0)
        return self.out_proj(out.reshape(x.shape))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; (B, 1 + P, D) to the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.fc2(self.act(self.fc1(self.layer_norm2(x))))  # type: ignore[no-any-return]


class VisionTower(PreTrainedModel):
    """Images in, one feature per patch out.

    ``post_norm`` is part of CLIP's weights and is kept so that a checkpoint can be written back whole; the features
    that a language model reads are taken before it.
    """

    config_class = VisionTowerConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["VisionBlock"]

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__(config)
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, kernel_size=patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(1 + (config.image_size // patch) ** 2, width)
        self.pre_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(VisionBlock(config) for _ in range(config.num_hidden_layers))
        self.post_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Extract patch features.

        Args:
            pixel_values: normalised, (B, 3, H, W); H and W multiples of the patch size.
        Returns: (B, P, D), row-major.
        Raises: ValueError if the image is not a whole number of patches.
        """
        patch = self.config.patch_size
        if pixel_values.shape[-1] % patch or pixel_values.shape[-2] % patch:
            raise ValueError(f"images of {tuple(pixel_values.shape[-2:])} px are no whole number of {patch} px patches")
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))  # (B, D, rows, columns)
        rows, columns = patches.shape[-2:]
        x = patches.flatten(2).transpose(1, 2)  # (B, P, D)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1)  # (B, 1 + P, D)
        x = x + interpolate_positions(self.position_embedding.weight, rows, columns)
        x = self.pre_norm(x)
        for layer in self.layers:
            x = layer(x)
        features: Tensor = x[:, 1:]
        return features
