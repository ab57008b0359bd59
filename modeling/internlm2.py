"""InternLM2's decoder with PLoRA linears.

Source: InternLM2 technical report (arXiv 2403.17297): RMSNorm, rotary positions, grouped-query attention with one fused
projection, SwiGLU. PLoRA: see ``modeling/plora.py``.

Shape legend: B batch, T new tokens, S cached and new tokens, D width, H query heads, K key-value heads, d head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import eager_attention
from .plora import ImageTokens, PLoRALinear
from .precision import at_least_float32
from .shared_prefix import SharedPrefixCache

CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
"""What transformers calls a cache: in `generate`, in the outputs of models and for masks; renamed in 5.24."""


class InternLM2Config(PreTrainedConfig):
    """Sizes of the decoder; the defaults are InternLM2-7B with CoLLaVO's PLoRA.

    Attributes:
        vocab_size: rows of the output layer.
        embedding_rows: rows of the embedding table (one more than the output: the image token).
        hidden_size: width D.
        intermediate_size: width of the MLP.
        num_hidden_layers: number of layers.
        num_attention_heads: query heads H.
        num_key_value_heads: key-value heads K; H is a multiple of it.
        hidden_act: activation of the MLP's gate, by its transformers name.
        rms_norm_eps: epsilon of every RMSNorm.
        rope_theta: base of the rotary frequencies.
        bias: whether the base linears have biases.
        plora_rank: rank of both low-rank pairs.
        plora_alpha: numerator of their scale.
        plora_dropout: dropout before them, in training.
    """

    model_type = "collavo_internlm2"
    keys_to_ignore_at_inference = [CACHE]

    vocab_size: int = 92544
    embedding_rows: int = 92545
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1e6
    max_position_embeddings: int = 32768
    bias: bool = False
    plora_rank: int = 256
    plora_alpha: float = 256.0
    plora_dropout: float = 0.05
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    use_cache: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 2
    tie_word_embeddings: bool = False

    @property
    def head_dim(self) -> int:
        """Width d of a head."""
        return self.hidden_size // self.num_attention_heads


class RMSNorm(nn.Module):
    """Root mean square norm, computed in float32 (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        if x.dtype in (torch.float32, torch.float64):
            return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        return self.weight * F.rms_norm(at_least_float32(x), x.shape[-1:], eps=self.eps).to(x.dtype)


def rotary_tables(position_ids: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (Su et al. 2021, arXiv 2104.09864).

    Args:
        position_ids: int64 (B, T).
        head_dim: d.
        theta: base of the frequencies.
    Returns: two float32 tensors (B, T, 1, 1, d): the half-width table of cosines repeated side by side, and that of
        sines, its first half negated, as `rotate` takes them.
    """
    exponents = torch.arange(0, -head_dim, -2, device=position_ids.device, dtype=torch.float32) / head_dim
    angles = (position_ids[..., None].float() * theta**exponents)[:, :, None, None]  # (B, T, 1, 1, d / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + d/2) of the last dimension by its angle; tables as `rotary_tables` makes them."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin


class DecoderAttention(nn.Module):
    """Grouped-query attention over one fused projection.

    ``wqkv`` packs, per key-value head, its H / K query heads, then its key, then its value.
    """

    is_causal = True

    def __init__(self, config: InternLM2Config, layer_index: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_index  # the name that transformers' attention backends look for
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        packed = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        self.wqkv = _plora(config, config.hidden_size, packed)
        self.wo = _plora(config, config.num_attention_heads * config.head_dim, config.hidden_size)

    def forward(
        self,
        x: Tensor,
        image: ImageTokens | None,
        rotary: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: Cache | SharedPrefixCache | None,
        **backend: Any,
    ) -> Tensor:
        """Attend to the cache and to earlier new tokens; (B, T, D) to the same shape."""
        batch, length = x.shape[:2]
        groups, head_dim = self.num_key_value_groups, self.config.head_dim
        packed = self.wqkv(x, image).view(batch, length, -1, groups + 2, head_dim)  # (B, T, K, H/K + 2, d)
        rotated = rotate(packed[..., :-1, :], *rotary)  # queries and keys together
        query = rotated[..., :-1, :].flatten(2, 3).transpose(1, 2)  # (B, H, T, d)
        key, value = rotated[..., -1, :].transpose(1, 2), packed[..., -1, :].transpose(1, 2)  # (B, K, T, d)
        name = self.config._attn_implementation
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)  # (B, K, S, d)
        if isinstance(cache, SharedPrefixCache):
            name, backend = cache.attention, {"shared": cache}
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            name, eager_attention
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        out, _ = attend(self, query, key, value, attention_mask, scaling=head_dim**-0.5, dropout=dropout, **backend)
        return self.wo(out.reshape(batch, length, -1), image)  # type: ignore[no-any-return]


class DecoderMLP(nn.Module):
    """SwiGLU: ``w2(act(w1 x) * w3 x)``. ``w2`` has no crayon path: the released weights hold one and never use it."""

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__()
        self.w1 = _plora(config, config.hidden_size, config.intermediate_size)
        self.w3 = _plora(config, config.hidden_size, config.intermediate_size)
        self.w2 = _plora(config, config.intermediate_size, config.hidden_size, crayon=False)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor, image: ImageTokens | None) -> Tensor:
        """Apply; (B, T, D) to the same shape."""
        return self.w2(self.act(self.w1(x, image)) * self.w3(x, image), image)  # type: ignore[no-any-return]


def _plora(config: InternLM2Config, in_features: int, out_features: int, *, crayon: bool = True) -> PLoRALinear:
    return PLoRALinear(
        in_features,
        out_features,
        rank=config.plora_rank,
        alpha=config.plora_alpha,
        dropout=config.plora_dropout,
        bias=config.bias,
        crayon=crayon,
    )


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer."""

    def __init__(self, config: InternLM2Config, layer_index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = DecoderAttention(config, layer_index)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = DecoderMLP(config)

    def forward(
        self,
        x: Tensor,
        image: ImageTokens | None,
        rotary: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: Cache | SharedPrefixCache | None,
        **backend: Any,
    ) -> Tensor:
        """Apply; (B, T, D) to the same shape."""
        x = x + self.attention(self.attention_norm(x), image, rotary, attention_mask, cache, **backend)
        return x + self.mlp(self.mlp_norm(x), image)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class DecoderOutput:
    """What the decoder returns.

    Attributes:
        last_hidden_state: (B, T, D), after the final norm.
        cache: keys and values of all tokens so far, or None.
        hidden_states: layers + 1 tensors (input; after every layer but the last; after the final norm), or None.
    """

    last_hidden_state: Tensor
    cache: Cache | SharedPrefixCache | None
    hidden_states: tuple[Tensor, ...] | None


class InternLM2Decoder(PreTrainedModel):
    """Embedding table, layers and final norm; the output layer belongs to the model that uses it."""

    config_class = InternLM2Config
    base_model_prefix = "language_model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["DecoderLayer"]
    _skip_keys_device_placement = ["cache"]

    def __init__(self, config: InternLM2Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.embedding_rows, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def is_custom_code(self) -> bool:
        """False, since `_init_weights` leaves loaded weights alone by itself.

        For code outside of its own, transformers takes a module without parameters of its own for initialised, and
        would never let `_init_weights` see one that consists of other modules.
        """
        return False

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PLoRALinear):  # a fresh low-rank pair adds nothing, as in LoRA
            for pair_end in (module.image_b, module.crayon_b):
                if pair_end is not None:
                    init.zeros_(pair_end.weight)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        image: ImageTokens | None = None,
        cache: Cache | SharedPrefixCache | None = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
        **backend: Any,
    ) -> DecoderOutput:
        """Run the layers.

        Args:
            inputs_embeds: (B, T, D), text and image tokens merged.
            attention_mask: (B, S), 1 for real tokens; None if all are.
            position_ids: int64 (B, T).
            image: the image tokens among the new ones.
            cache: keys and values of earlier tokens; extended in place.
            use_cache: make a cache where none is given.
            output_hidden_states: keep every layer's input.
            **backend: passed to the attention backend.
        """
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        mask = None  # a SharedPrefixCache knows what may be seen
        if not isinstance(cache, SharedPrefixCache):
            # without the positions, which transformers would wait for the device to look through for packed rows
            mask = create_causal_mask(
                config=self.config, inputs_embeds=inputs_embeds, attention_mask=attention_mask, **{CACHE: cache}
            )
        cos, sin = rotary_tables(position_ids, self.config.head_dim, self.config.rope_theta)
        rotary = cos.to(inputs_embeds.dtype), sin.to(inputs_embeds.dtype)
        x, kept = inputs_embeds, []
        for layer in self.layers:
            kept.append(x)
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(layer.__call__, x, image, rotary, mask, cache)
            else:
                x = layer(x, image, rotary, mask, cache, **backend)
        x = self.norm(x)
        return DecoderOutput(x, cache, (*kept, x) if output_hidden_states else None)
