"""Memory that an update takes on a GPU, counted before the first one.

Weights, gradients and the optimizer's state are counted parameter by parameter. Activations are not estimated: the
model's own forward and backward pass runs on tensors without storage, and what is alive at once is added up. What only
a real GPU shows (CUDA's context, kernels' workspace, fragmentation) is an allowance.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F

from collavo.adapters import Adapters
from collavo.model import CoLLaVOForConditionalGeneration
from modeling.live_bytes import LiveBytes
from modeling.plora import ImageTokens

from .config import TrainConfig
from .parallel.trainable import Parameters, adapter_groups, trainable_parameters

CONTEXT = 0.6e9
"""Allowance for CUDA's context and the libraries' handles, in bytes; 0.3 to 0.6 GB are usual."""
SEGMENTER = 216e6
"""Parameters of Mask2Former with Swin-L (arXiv 2112.01527, table 2), which makes the maps in float32."""
SEGMENTER_PASS = 1.5e9
"""Allowance for a forward pass of it, in bytes."""
BLOCK, SMALLEST = 256, 4096
"""Numbers of a block of bitsandbytes' 8-bit state, which has a float32 scale; smaller parameters keep 32 bits."""
DISTINCT = 60
"""Distinct (class, number) pairs of an image; COCO's images have a few dozen segments at most."""
LEARNED = 8
"""One of so many tokens of a row is taken for an answer's."""
MADE_BEFORE = ("precomputed", "none")
"""Segmenters that take no memory of the GPU."""


@dataclass(frozen=True, kw_only=True)
class UpdateMemory:
    """What an update takes, in bytes.

    Attributes:
        weights: of the whole model.
        gradients: of what an update trains; with DDP, its buckets with those of all that is trained.
        moments: the optimizer's state on the GPU.
        activations: the most that is alive at once of the longest row, or of as many as run at a time.
        segmenter: where maps are made on the same GPU.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    segmenter: int

    @property
    def total(self) -> int:
        """All of it, with the allowance for CUDA."""
        return self.weights + self.gradients + self.moments + self.activations + self.segmenter + round(CONTEXT)

    def in_words(self, config: TrainConfig, there: int) -> str:
        """A line for the user; where it may not fit, with what would make it.

        Args:
            config: resolved.
            there: bytes of the GPU.
        """
        named = {
            "weights": self.weights,
            "gradients": self.gradients,
            f"moments ({config.TRAIN.OPTIMIZER})": self.moments,
            f"activations of {config.TRAIN.MAX_LENGTH} tokens": self.activations,
            "segmenter": self.segmenter,
            "CUDA": round(CONTEXT),
        }
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in named.items() if size)
        line = f"memory of an update, counted: {self.total / 1e9:.1f} GB ({parts}); the GPU has {there / 1e9:.1f} GB"
        if self.total <= there:
            return line
        ways = ["a lower TRAIN.MAX_LENGTH"]
        if config.TRAIN.BATCH_SIZE > 1:
            ways.insert(0, "TRAIN.BATCH_SIZE 1")
        if config.TRAIN.OPTIMIZER == "adamw":
            ways.insert(0, f"TRAIN.OPTIMIZER adamw_8bit (about {0.75 * self.moments / 1e9:.1f} GB)")
        if self.segmenter:
            ways.insert(0, f"maps made beforehand by lbk_entry.py maps train ({self.segmenter / 1e9:.1f} GB)")
        return f"{line}: it may not fit. What saves memory: {', '.join(ways)}"


def count_update_memory(
    model: CoLLaVOForConditionalGeneration,
    adapters: Mapping[str, Sequence[Parameters]],
    config: TrainConfig,
    *,
    names: Sequence[str],
    processes: int,
) -> UpdateMemory:
    """Count what an update takes.

    Args:
        model: as it is trained.
        adapters: see `trainer.parallel.trainable.adapter_groups`.
        config: resolved.
        names: of the LoRA adapters.
        processes: over which DDP averages gradients.
    """
    moving = trainable_parameters(adapters).values()
    everything = sum(p.numel() for p in moving)
    one = max(sum(p.numel() for group in adapter for p in group.values()) for adapter in adapters.values())
    made_here = bool(names) and config.SEGMENTER.resolved().NAME not in MADE_BEFORE  # step 1 has COCO's own maps
    return UpdateMemory(
        weights=sum(tensor.numel() * tensor.element_size() for tensor in _held(model)),
        gradients=4 * (everything if processes > 1 else one),
        moments=optimizer_state_bytes(moving, config.TRAIN.OPTIMIZER),
        activations=config.TRAIN.BATCH_SIZE * _activations(model, config, names) + _unpacked(model),
        segmenter=int(4 * SEGMENTER + SEGMENTER_PASS) if made_here else 0,
    )


def _held(model: nn.Module) -> Iterator[Tensor]:
    """Every tensor of a model, the tables of 4-bit weights included; gradients are not."""
    yield from model.parameters()
    yield from model.buffers()
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code)
            if getattr(state, "state2", None) is not None:
                yield from (state.offset, state.state2.absmax, state.state2.code)


def _unpacked(model: nn.Module) -> int:
    """Bytes of the largest 4-bit weight in half precision, which a kernel may write out."""
    states = (getattr(parameter, "quant_state", None) for parameter in model.parameters())
    return max((2 * state.shape.numel() for state in states if state is not None), default=0)


def _activations(model: CoLLaVOForConditionalGeneration, config: TrainConfig, names: Sequence[str]) -> int:
    """Most bytes that are alive at once in the forward and backward pass of the longest row."""
    lora, train = config.LORA, config.TRAIN
    dtype = model.output.weight.dtype
    size = model.config.image_size
    sizes = copy.deepcopy(model.config)
    sizes._attn_implementation = "sdpa"  # flash attention takes no more, and needs a GPU
    with torch.device("meta"), default_dtype(dtype):
        blank = CoLLaVOForConditionalGeneration(sizes)
        adapters = Adapters(blank, names, rank=lora.R, alpha=lora.ALPHA, ranks=lora.RANKS, targets=lora.targets)
    with FakeTensorMode():
        without_storage(blank)
        prepare_for_update(blank, adapter_groups(blank, adapters, train.CRAYON, train.PARTS))
        if not train.GRADIENT_CHECKPOINTING:
            blank.gradient_checkpointing_disable()
        pixels = torch.zeros(1, 3, size, size, dtype=dtype)
        tokens = max(train.MAX_LENGTH, blank.config.num_image_tokens + 2)
        with LiveBytes(all_tensors(blank)) as live:
            run_row(blank, pixels, tokens, tokens // LEARNED, None if dtype == torch.float32 else torch.bfloat16)
    return int(live.peak)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """While this lasts, tensors are made in a type unless another one is named."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def without_storage(model: nn.Module) -> None:
    """Replace tensors of the meta device: by ones without storage within a `FakeTensorMode`, else by real ones."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_meta and not isinstance(tensor, FakeTensor):
                    new = torch.empty(tensor.shape, dtype=tensor.dtype)
                    held[name] = nn.Parameter(new, False) if isinstance(tensor, nn.Parameter) else new  # type: ignore[assignment]


def prepare_for_update(
    model: CoLLaVOForConditionalGeneration, adapters: Mapping[str, Sequence[Parameters]]
) -> list[nn.Parameter]:
    """Make the model as the trainer has it before the second of several microbatches: gradients are there already.

    Args:
        model: with its LoRA adapters; changed in place.
        adapters: see `trainer.parallel.trainable.adapter_groups`; an update of the last one is prepared.
    Returns: the parameters that the update trains.
    """
    moving = [parameter for group in adapters[list(adapters)[-1]] for parameter in group.values()]
    model.requires_grad_(False)
    for parameter in trainable_parameters(adapters).values():
        parameter.data = parameter.data.float()
    for parameter in moving:
        parameter.requires_grad_(True)
        parameter.grad = torch.zeros_like(parameter)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train().vision_tower.eval()
    return moving


def optimizer_state_bytes(parameters: Iterable[Tensor], optimizer: str) -> int:
    """Bytes of the optimizer's state on the GPU; those of a paged one may all move to the host's memory."""
    if optimizer == "adamw":
        return sum(8 * p.numel() + 4 for p in parameters)  # AdamW counts its steps for each parameter, in float32
    if optimizer == "paged_adamw":
        return sum(8 * p.numel() for p in parameters)
    return sum(
        8 * p.numel() if p.numel() < SMALLEST else 2 * p.numel() + 8 * -(-p.numel() // BLOCK) for p in parameters
    )


def all_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Every tensor that belongs to a model, gradients and the tables of 4-bit weights included."""
    for tensor in (*model.parameters(), *model.buffers()):
        yield tensor
        if tensor.grad is not None:
            yield tensor.grad
    for module in model.modules():
        state = getattr(module, "state", None) or getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)


def run_row(
    model: CoLLaVOForConditionalGeneration, pixels: Tensor, tokens: int, labels: int, autocast: torch.dtype | None
) -> None:
    """The forward and backward pass of a row, without the parts of `forward` whose shapes hang on values.

    Args:
        model: in training mode.
        pixels: (1, 3, H, W).
        tokens: of the row, those of the image included; the image's are the first.
        labels: the last tokens are learned.
        autocast: compute type, if it is not the weights'.
    """
    config = model.config
    size, kinds = config.num_image_tokens, min(DISTINCT, config.num_image_tokens)
    with torch.autocast(pixels.device.type, dtype=autocast, enabled=autocast is not None):
        features = model.encode_images(pixels)
        embedded = model.get_input_embeddings()(torch.zeros(1, tokens, dtype=torch.long))
        places, index = torch.arange(size), torch.zeros(size, dtype=torch.long)
        merged = embedded.flatten(0, 1).index_copy(0, places, features.flatten(0, 1).to(embedded.dtype))
        classes = torch.zeros(kinds, dtype=torch.long)
        crayon = model.crayon.vectors(classes, classes)
        image = ImageTokens(places, crayon, index)
        positions = torch.arange(tokens)[None]
        hidden = model.language_model(merged.view_as(embedded), None, positions, image=image).last_hidden_state
        logits = model.output(hidden[0, -labels - 1 : -1])
        loss = F.cross_entropy(logits.float(), torch.zeros(labels, dtype=torch.long), reduction="sum") / labels
        del features, embedded, merged, hidden, logits
    loss.backward()  # type: ignore[no-untyped-call]
