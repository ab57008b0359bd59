"""What memory answering takes next to the weights, counted before anything is loaded.

The engine's own steps (image, prefix, prompts' ends, decoding) run on the model's sizes, on tensors without storage,
and what would be alive is added up. Weights in 4 bit are unpacked one at a time, so the largest is counted on top.
Attention over the prefix is counted with PyTorch's fused kernels, which make no table of scores.

Shape legend: P prefix tokens, H query heads, d head width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from modeling.live_bytes import LiveBytes
from modeling.quantize import modules_to_keep
from modeling.shared_prefix import Prefix, SharedPrefixCache, StaticPrefixCache

from .block_rows import FULL, most_rows
from .decoding import PREFIX_SLOTS, BlockDecoder, last_logits
from .engine import MOST_PADDING
from .model import CoLLaVOForConditionalGeneration
from .search import Generation

TEXT_TOKENS = 193
"""Tokens of a prefix next to its image: system text and a list of a dozen objects, as on COCO."""

_FUSED = "counted_fused"


@dataclass(frozen=True, kw_only=True)
class AnsweringMemory:
    """Bytes that answering takes next to the weights.

    Attributes:
        prefixes: keys and values of all prefixes.
        block: those of a block's suffixes, and what a CUDA graph reads instead of the prefixes.
        activations: the most that operators hold next to that, an unpacked weight included.
    """

    prefixes: int
    block: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.prefixes + self.block + self.activations


def count_memory(
    model: CoLLaVOForConditionalGeneration,
    *,
    dtype: torch.dtype,
    bits: int = 16,
    kept: tuple[str, ...] = (),
    device: str = "cuda",
    questions: int = 18,
    images: int = 1,
    generation: Generation,
    text_tokens: int = TEXT_TOKENS,
) -> AnsweringMemory:
    """Count what answering questions takes, without storage.

    Args:
        model: on the meta device, not quantised; not changed.
        dtype: compute type.
        bits: of the large weights, see `modeling.quantize.quantization_config`.
        kept: see `modeling.quantize.modules_to_keep`.
        device: ``cuda`` or ``cpu``: how many rows a block has, and whether graphs are used.
        questions: on all images together.
        images: that the questions are about, in equal parts.
        generation: how to search.
        text_tokens: of a prefix next to its image.
    """
    unpacked = _largest_weight(model, kept, dtype) if bits in (4, 8) else 0
    model = copy.deepcopy(model).to(dtype).eval()
    model.set_attn_implementation(_FUSED)
    room = max(1, most_rows(device) // generation.num_beams)
    each = min(-(-questions // images), room)
    together = min(images, room // each)
    needed = (room if device == "cuda" else each * together) * generation.num_beams
    rows = -(-needed // FULL[device]) * FULL[device]
    with torch.inference_mode(), LiveBytes(_tensors(model)) as live:
        prefix = _prefix(model, text_tokens)
        cache = _cache(prefix, rows, each, together, generation, device)
        decoder = BlockDecoder(model, cache, generation, [2])
        logits = [_prompt_end(model, cache)] * len(cache.prefixes)  # each alone, so one shows what all take
        decoder.start(torch.stack(logits), [prefix.length] * len(logits), range(len(logits)))
        del logits
        if generation.max_new_tokens > 1:
            decoder.step(0)
    held = prefix.num_bytes * together
    return AnsweringMemory(
        prefixes=held,
        block=cache.num_bytes,
        activations=live.peak - prefix.num_bytes - cache.num_bytes + unpacked,
    )


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _largest_weight(model: nn.Module, kept: tuple[str, ...], dtype: torch.dtype) -> int:
    """Bytes of the largest weight that is quantised, unpacked."""
    keep = set(modules_to_keep(model, kept))
    linears = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name not in keep]
    return max((linear.weight.numel() * dtype.itemsize for linear in linears), default=0)


def _prefix(model: CoLLaVOForConditionalGeneration, text_tokens: int) -> Prefix:
    """An image's prefix, as `Engine._run_prefix` makes it."""
    config = model.config
    pixels = torch.empty(1, 3, config.image_size, config.image_size, dtype=model.dtype, device="meta")
    features = model.encode_images(pixels)
    side = np.arange(features.shape[1]) % 20
    ids = [1] * (text_tokens // 2) + [config.image_token_id] + [1] * (text_tokens - text_tokens // 2)
    embeds, image = model.embed_prompt(ids, features, side + 1, side)
    cache = DynamicCache(config=config.text)
    last_logits(model, embeds, torch.arange(embeds.shape[1], device="meta"), cache, image)
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers))


def _cache(
    prefix: Prefix, rows: int, each: int, together: int, generation: Generation, device: str
) -> SharedPrefixCache:
    """The cache of a block of questions, ``each`` about one of ``together`` images."""
    named = [one for one in (Prefix(prefix.layers) for _ in range(together)) for _ in range(each)]
    sizes = {"num_rows": rows, "num_beams": generation.num_beams, "prompt_slots": MOST_PADDING}
    if device == "cpu" or generation.temperature > 0:
        return SharedPrefixCache(named, new_slots=generation.max_new_tokens, **sizes)
    cache = StaticPrefixCache(
        prefix,
        new_slots=generation.max_new_tokens,
        num_prefixes=together,
        questions_each=each,
        prefix_slots=-(-prefix.length // PREFIX_SLOTS) * PREFIX_SLOTS,
        **sizes,
    )
    cache.restart(named)
    return cache


def _prompt_end(model: CoLLaVOForConditionalGeneration, cache: SharedPrefixCache) -> Tensor:
    cache.read_prompt(0, MOST_PADDING)
    ids = torch.zeros(1, MOST_PADDING, dtype=torch.long, device="meta")
    positions = torch.arange(MOST_PADDING, device="meta") + cache.prefixes[0].length
    return last_logits(model, model.get_input_embeddings()(ids), positions, cache)


def _fused_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """What a fused kernel makes: the output (1, P, H, d), and log-sum-exps."""
    query.new_empty(query.shape[:3], dtype=torch.float32)
    return torch.empty_like(query).transpose(1, 2), None


AttentionInterface.register(_FUSED, _fused_attention)
