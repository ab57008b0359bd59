"""GPU memory of step 2 (Dual QLoRA on NF4 weights), counted without a GPU and without weights.

    python -m tests.benchmark.memory [--tokens 4096] [--labels 512] [--rank 64] [--processes 2] [--segmenter]
        [--optimizer adamw_8bit] [--device cuda]

Weights, gradients and optimizer state are counted parameter by parameter on the model as the trainer sets it up.
Activations are not estimated: the model's own forward and backward pass (gradient checkpointing, autocast, PEFT's and
bitsandbytes' own functions) and AdamW's step run on tensors without storage, and a dispatch mode adds up what would be
alive. What only a real GPU shows (CUDA's context, kernels' workspace, fragmentation) is listed as an allowance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.autograd._functions import MatMul4Bit
from bitsandbytes.functional import QuantState
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from collavo.adapters import CRAYON_PAIR, IMAGE_CIT, VL_CIT, Adapters
from collavo.config import CoLLaVOConfig
from collavo.load_collavo import NOT_QUANTISED
from collavo.model import CoLLaVOForConditionalGeneration
from modeling.live_bytes import LiveBytes
from modeling.quantize import NF4_BLOCK, SCALE_BLOCK, modules_to_keep
from trainer.memory import (
    CONTEXT,
    SEGMENTER,
    SEGMENTER_PASS,
    all_tensors,
    default_dtype,
    optimizer_state_bytes,
    prepare_for_update,
    run_row,
    without_storage,
)
from trainer.parallel.trainable import adapter_groups, trainable_parameters

CARD = 24e9
"""Bytes of the card that step 2 should fit: 24 GB."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A line of the count.

    Attributes:
        name: what it is.
        numbers: weights or values; 0 where it is no number of values.
        bytes: it takes.
    """

    name: str
    numbers: int
    bytes: int


class _Packed(bnb.nn.Linear4bit):
    """A 4-bit linear whose packed weight has no storage; runs bitsandbytes' own function."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = MatMul4Bit.apply(x.to(self.compute_dtype), self.weight, None, self.bias, self.state)
        return out.to(x.dtype)


def nf4_bytes(numbers: int) -> int:
    """Bytes of a weight in NF4 with double quantisation, its tables included."""
    blocks = -(-numbers // NF4_BLOCK)
    tables = 4 * (16 + 256 + 1)  # the 16 levels, the levels of the scales, and the scales' offset
    return -(-numbers // 2) + blocks + 4 * -(-blocks // SCALE_BLOCK) + tables


def set_up(config: CoLLaVOConfig, rank: int) -> tuple[CoLLaVOForConditionalGeneration, Adapters]:
    """The model of step 2 on the meta device, with its 4-bit linears and LoRA adapters.

    Args:
        config: sizes.
        rank: of both LoRA adapters.
    """
    with torch.device("meta"), default_dtype(torch.bfloat16):
        model = CoLLaVOForConditionalGeneration(config)
        for name in _packed_names(model):
            old, (parent, _, child) = model.get_submodule(name), name.rpartition(".")
            sizes = (old.in_features, old.out_features, old.bias is not None)
            setattr(model.get_submodule(parent), child, _Packed(*sizes, torch.bfloat16, quant_type="nf4"))
        model.is_loaded_in_4bit = True  # PEFT then takes its own class for 4-bit linears
        return model, Adapters(model, (IMAGE_CIT, VL_CIT), rank=rank, alpha=rank)


def _packed_names(model: nn.Module) -> list[str]:
    """Linears that are quantised in training, as `collavo.load_collavo.load_model` chooses them."""
    keep = set(modules_to_keep(model, NOT_QUANTISED))
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in keep]
    return [name for name in linears if not (name.startswith("crayon.") or name.endswith(CRAYON_PAIR))]


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What a training run is launched with.

    Attributes:
        processes: over which DDP averages gradients; it then holds those of all that is trained, in buckets.
        optimizer: TRAIN.OPTIMIZER.
        segmenter: whether maps are made during the training run, on the same GPU, rather than beforehand.
    """

    processes: int = 1
    optimizer: str = "adamw"
    segmenter: bool = False


def lasting(config: CoLLaVOConfig, rank: int, launch: SetUp = SetUp()) -> list[Item]:  # noqa: B008 - it is frozen
    """What is there throughout an update: weights, gradients, optimizer state.

    Args:
        config: sizes.
        rank: of both LoRA adapters.
        launch: see `SetUp`.
    """
    model, lora = set_up(config, rank)
    adapters = adapter_groups(model, lora, "both")
    moving = trainable_parameters(adapters)
    packed = [module.weight.numel() for module in model.modules() if isinstance(module, _Packed)]
    prompt = _numbers(adapters[VL_CIT][0].values())
    both_adapters = _numbers(moving.values()) - prompt
    one = max(sum(_numbers(group.values()) for group in adapter) for adapter in adapters.values())
    rest = _numbers(model.parameters()) - _numbers(moving.values()) - sum(packed)
    everything = prompt + both_adapters
    gradients = Item(name="gradients of the crayon prompt and one adapter, float32", numbers=one, bytes=4 * one)
    if launch.processes > 1:
        name = "DDP's buckets, which the gradients lie in, float32"
        gradients = Item(name=name, numbers=everything, bytes=4 * everything)
    more = [Item(name="segmenter (Mask2Former, Swin-L), float32", numbers=int(SEGMENTER), bytes=int(4 * SEGMENTER))]
    return [
        Item(name="frozen weights, NF4, double quantisation", numbers=sum(packed), bytes=sum(map(nf4_bytes, packed))),
        Item(name="frozen weights, bf16 (embeddings, head, norms, vision tower)", numbers=rest, bytes=2 * rest),
        Item(name="crayon prompt, float32", numbers=prompt, bytes=4 * prompt),
        Item(name=f"both LoRA adapters (rank {rank}), float32", numbers=both_adapters, bytes=4 * both_adapters),
        gradients,
        Item(
            name=f"two moments of all that is trained, {launch.optimizer}",
            numbers=2 * everything,
            bytes=optimizer_state_bytes(moving.values(), launch.optimizer),
        ),
        *(more if launch.segmenter else []),
    ]


def _numbers(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@dataclass(frozen=True, kw_only=True)
class Passing:
    """What comes and goes within an update, in bytes.

    Attributes:
        backward: most that is alive at once in a forward and backward pass.
        step: most that AdamW's step takes next to its state.
        workspace: the largest frozen weight in bf16, which a 4-bit kernel may write out.
    """

    backward: int
    step: int
    workspace: int


def passing(config: CoLLaVOConfig, rank: int, tokens: int, labels: int) -> Passing:
    """Run one update of one row on tensors without storage.

    Args:
        config: sizes.
        rank: of both LoRA adapters.
        tokens: of the row, those of the image included.
        labels: tokens that are learned.
    """
    model, lora = set_up(config, rank)
    with FakeTensorMode():
        _fill(model)
        adapter = prepare_for_update(model, adapter_groups(model, lora, "both"))
        largest = max(m.in_features * m.out_features for m in model.modules() if isinstance(m, _Packed))
        pixels = torch.zeros(1, 3, config.image_size, config.image_size, dtype=torch.bfloat16)
        with LiveBytes(all_tensors(model)) as live:
            run_row(model, pixels, tokens, labels, torch.bfloat16)
        optimizer = torch.optim.AdamW(adapter, lr=1e-5, weight_decay=0.0, foreach=True)  # as CUDA's default
        optimizer.step()
        state = [value for held in optimizer.state.values() for value in held.values()]
        with LiveBytes([*all_tensors(model), *state]) as step:
            optimizer.step()
    return Passing(backward=live.peak, step=step.peak, workspace=2 * largest)


def _fill(model: nn.Module) -> None:
    """Replace tensors of the meta device: by ones without storage within a `FakeTensorMode`, else by real ones."""
    for module in model.modules():
        if isinstance(module, _Packed):
            module.state = _quant_state(module.weight)
            packed = torch.empty((-(-module.weight.numel() // 2), 1), dtype=torch.uint8)
            module.weight = nn.Parameter(packed, requires_grad=False)
    without_storage(model)


def _quant_state(weight: Tensor) -> QuantState:
    """What bitsandbytes keeps next to a packed weight."""
    blocks = -(-weight.numel() // NF4_BLOCK)
    scales = QuantState(torch.empty(-(-blocks // SCALE_BLOCK)), None, torch.empty(256), SCALE_BLOCK, dtype=torch.float)
    absmax, code, offset = torch.empty(blocks, dtype=torch.uint8), torch.empty(16), torch.empty(())
    return QuantState(absmax, weight.shape, code, NF4_BLOCK, "nf4", torch.bfloat16, offset, scales)


def count(
    config: CoLLaVOConfig,
    rank: int,
    tokens: int,
    labels: int,
    launch: SetUp = SetUp(),  # noqa: B008 - it is frozen
) -> list[Item]:
    """All of step 2's memory; the last item is the total."""
    items = lasting(config, rank, launch)
    more = passing(config, rank, tokens, labels)
    backward = f"activations, {tokens} tokens, gradient checkpointing, {labels} labelled"
    items.append(Item(name=f"{backward} (peak)", numbers=0, bytes=more.backward + more.workspace))
    over = max(0, more.step - more.backward - more.workspace)
    items.append(Item(name="AdamW's step, beyond the activations that are gone by then", numbers=0, bytes=over))
    if launch.segmenter:
        items.append(Item(name="allowance for a pass of the segmenter", numbers=0, bytes=int(SEGMENTER_PASS)))
    items.append(Item(name="allowance for CUDA's context and libraries", numbers=0, bytes=round(CONTEXT)))
    total = sum(item.bytes for item in items)
    return [*items, Item(name="total", numbers=0, bytes=total)]


def measured(config: CoLLaVOConfig, rank: int, tokens: int, labels: int, device: torch.device) -> int:
    """Most bytes that PyTorch takes on a CUDA device in two updates of one row, with weights of no meaning."""
    return max(peak for _, peak in updates(config, rank, tokens, labels, device, 2))


def updates(
    config: CoLLaVOConfig, rank: int, tokens: int, labels: int, device: torch.device, number: int
) -> list[tuple[float, int]]:
    """Take updates of one row, with weights of no meaning.

    Args:
        config: sizes.
        rank: of both LoRA adapters.
        tokens: of the row.
        labels: of them learned.
        device: where.
        number: of updates.
    Returns: seconds of each, and the most bytes that PyTorch took until then (0 on the CPU, which does not count them).
    """
    on_cuda, taken = device.type == "cuda", []
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    model, lora = set_up(config, rank)
    with device:
        _fill(model)
        moving = trainable_parameters(adapter_groups(model, lora, "both"))
        optimizer: torch.optim.Optimizer | None = None
        for _ in range(number):
            begun = time.perf_counter()
            adapter = prepare_for_update(model, adapter_groups(model, lora, "both"))
            pixels = torch.zeros(1, 3, config.image_size, config.image_size, dtype=torch.bfloat16)
            run_row(model, pixels, tokens, labels, torch.bfloat16)
            optimizer = optimizer or _with_state(list(moving.values()))
            optimizer.step()
            for parameter in adapter:
                parameter.grad = None
            if on_cuda:
                torch.cuda.synchronize(device)
            peak = torch.cuda.max_memory_allocated(device) if on_cuda else 0
            taken.append((time.perf_counter() - begun, peak))
    return taken


def _with_state(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW whose moments are all there, as after some updates of either set."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0)
    for parameter in parameters:
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(1.0, device="cpu"), **moments}
    return optimizer


def main(write: Callable[[str], Any] = sys.stdout.write) -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Count the GPU memory of step 2 at full size.")
    parser.add_argument("--tokens", type=int, default=4096, help="of the row, image included (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=512, help="of them learned (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=64, help="of both LoRA adapters (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="more than one: DDP's buckets (default: %(default)s)")
    kinds = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
    parser.add_argument("--optimizer", choices=kinds, default="adamw_8bit", help="TRAIN.OPTIMIZER (%(default)s)")
    parser.add_argument("--segmenter", action="store_true", help="maps are made on the same GPU, not beforehand")
    parser.add_argument("--device", help="a CUDA device to measure on as well, with weights of no meaning")
    args = parser.parse_args()
    launch = SetUp(processes=args.processes, optimizer=args.optimizer, segmenter=args.segmenter)
    items = count(CoLLaVOConfig(), args.rank, args.tokens, args.labels, launch)
    write(f"step 2 of CoLLaVO-7B, one row at a time\n{'':<68}{'million':>9}{'GB':>8}\n")
    for item in items:
        write(f"{item.name:<68}{item.numbers / 1e6 or '':>9.8}{item.bytes / 1e9:>8.2f}\n")
    total = items[-1].bytes
    write(f"{'fits' if total < CARD else 'does not fit'} in 24 GB\n")
    if args.device:
        device = torch.device(args.device)
        peak = measured(CoLLaVOConfig(), args.rank, args.tokens, args.labels, device)
        write(f"measured on {torch.cuda.get_device_name(device)}: {peak / 1e9:.2f} GB, without CUDA's context\n")
    return 0 if total < CARD else 1


if __name__ == "__main__":
    sys.exit(main())
