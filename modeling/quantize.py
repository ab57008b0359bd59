"""4-bit and 8-bit weights through bitsandbytes, and the count of what a model's weights take.

What is large is quantised: every linear of the decoder with its low-rank pairs, and the projectors. Embeddings, output
layer, vision tower and norms stay in the compute type. (The reference lists its base weights among the modules to
skip, and so keeps 7 of its 9.3 billion parameters in 16 bit.)
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import nn
from transformers import BitsAndBytesConfig

NF4_BLOCK = 64
"""Weights per 4-bit block; each block has one scale."""

SCALE_BLOCK = 256
"""Scales per block of the second quantisation: 8 bit each, with one float32 per block."""


def modules_to_keep(model: nn.Module, prefixes: Sequence[str]) -> list[str]:
    """Names of the linears that are not quantised.

    Args:
        model: possibly on the meta device.
        prefixes: top-level modules that stay as they are.
    Returns: the linears below ``prefixes``, and those whose sides are no whole number of NF4 blocks (none at full
        size): bitsandbytes' CPU kernels take no partial blocks.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (name.split(".")[0] in prefixes or module.in_features % NF4_BLOCK or module.out_features % NF4_BLOCK)
    ]


def quantization_config(bits: int, dtype: torch.dtype, keep: Sequence[str]) -> BitsAndBytesConfig | None:
    """Settings for ``from_pretrained``.

    Args:
        bits: 4 (NF4 with double quantisation), 8 (LLM.int8), or 16 or 32 for none.
        dtype: the compute type.
        keep: names of modules that stay as they are, see `modules_to_keep`.
    """
    if bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(keep),
        )
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(keep))
    return None


def multiplies_int8(device: torch.device) -> bool:
    """Whether 8-bit products come out right on a device.

    On a CPU without VNNI, oneDNN adds pairs of products up in 16 bits, which do not hold two large ones. PyTorch goes
    round it where the processor has no VNNI, but not where ``ONEDNN_MAX_CPU_ISA`` forbids it: sums are wrong then, and
    nothing says so.
    """
    if device.type != "cpu":
        return True
    importlib.import_module("bitsandbytes")  # has the operator
    depth = 64
    largest = torch.full((32, depth), 127, dtype=torch.int8)
    product: torch.Tensor = torch.ops.bitsandbytes.int8_linear_matmul(largest, -largest)
    return bool((product == -127 * 127 * depth).all())


def weight_bytes(model: nn.Module, bits: int, dtype: torch.dtype, prefixes: Sequence[str]) -> int:
    """Bytes that a model's weights take when loaded with these settings; works on the meta device.

    Args:
        model: an unquantised model, possibly on the meta device.
        bits: see `quantization_config`.
        dtype: type of everything that is not quantised.
        prefixes: see `modules_to_keep`.
    """
    keep = set(modules_to_keep(model, prefixes))
    total = 0.0
    for name, module in model.named_modules():
        quantised = isinstance(module, nn.Linear) and bits in (4, 8) and name not in keep
        for parameter_name, parameter in module.named_parameters(recurse=False):
            per_weight = float(dtype.itemsize)
            if quantised and parameter_name == "weight":
                per_weight = _nf4_bytes() if bits == 4 else 1 + 4 / parameter.shape[1]
            total += per_weight * parameter.numel()
    return round(total)


def _nf4_bytes() -> float:
    """Bytes per weight of NF4 with double quantisation: 4 bits, an 8-bit scale a block, a float32 per scale block."""
    return 0.5 + 1 / NF4_BLOCK + 4 / (NF4_BLOCK * SCALE_BLOCK)
