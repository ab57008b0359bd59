"""What a CoLLaVO of given sizes consists of and costs, without its weights: parameters and FLOPs of every part.

    model = blank_model(sizes, "meta")
    rows = describe(model, Workload(text_tokens=64, crayon_vectors=8))

The sizes are those of a ``config.json``. On the meta device no number is stored or computed, and 7B take seconds; on
the CPU the same passes really run, and give the same counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from modeling.cost import Cost, count_parameters, measure
from modeling.plora import ImageTokens

from .adapters import Adapters
from .checkpoint.examine import describe_checkpoint
from .checkpoint.finetuned_checkpoint import TrainingState, is_trained, read_state
from .checkpoint.names import is_released_layout, read_json
from .checkpoint.sizes import Sizes, sizes_of_config
from .config import CoLLaVOConfig
from .errors import CheckpointError
from .model import CoLLaVOForConditionalGeneration
from .trainable_parts import TARGETS, is_crayon

WEIGHTS = ("*.safetensors", "*.bin")
_ADAPTER = re.compile(r"\.lora_[AB]\.([A-Za-z0-9_-]+)(\.weight)?$")
_PAIR = re.compile(r"\.(image|crayon)_[ab](\.weight)?$")
_PARTS = {
    "vision_tower": "vision tower",
    "projector": "projector",
    "crayon": "crayon prompt, queries and MLP",
    "language_model.embed_tokens": "token embeddings",
    "language_model": "decoder",
    "output": "output layer",
}
"""Beginnings of names -> parts; the first that fits."""
JOINING = "joining"
"""What the model computes outside of its parts: sums of crayon queries."""
CRAYON_PAIRS, IMAGE_PAIRS = "crayon prompt, PLoRA pairs", "PLoRA of image tokens"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The prompt whose cost is counted.

    Attributes:
        text_tokens: of the prompt, besides those of its image.
        crayon_vectors: distinct (class, number) pairs of the image.
    """

    text_tokens: int
    crayon_vectors: int


@dataclass(frozen=True, kw_only=True)
class PartDescription:
    """A part of the model.

    Attributes:
        name: of the part.
        parameters: how many it has.
        prompt: cost of reading the prompt.
        token: cost of one more token after it.
    """

    name: str
    parameters: int
    prompt: Cost
    token: Cost


def part_of(name: str) -> str:
    """The part of the model that a module or parameter belongs to, by its name in the model."""
    if match := _ADAPTER.search(name):
        return f"adapter {match.group(1)}"
    if _PAIR.search(name):
        return CRAYON_PAIRS if is_crayon(name) else IMAGE_PAIRS
    return next((part for start, part in _PARTS.items() if f"{name}.".startswith(f"{start}.")), JOINING)


def read_sizes(folder: Path | None) -> tuple[Sizes, TrainingState | None]:
    """Sizes of a model, with or without its weights.

    Args:
        folder: a checkpoint, or a directory with nothing but its ``config.json``; None for CoLLaVO-7B.
    Returns: the sizes, with those of a fresh crayon prompt where there is none; and what a fine-tuned checkpoint says
        of itself, None for others.

    Raises:
        CheckpointError: there is no readable configuration, or weights that do not fit it.
    """
    if folder is None:
        return Sizes(), None
    state = read_state(folder) if is_trained(folder) else None
    base = folder if state is None else Path(state.started_from)
    if any(next(base.glob(pattern), None) for pattern in WEIGHTS):
        return describe_checkpoint(folder, fresh_crayon=True).sizes, state
    values = read_json(base / "config.json")
    return sizes_of_config(values, released=is_released_layout(base), where=base), state


def blank_model(sizes: Sizes, device: str) -> CoLLaVOForConditionalGeneration:
    """A model of some sizes in evaluation mode.

    Args:
        sizes: see `read_sizes`.
        device: ``meta`` for one without storage, or ``cpu`` for random weights.

    Raises:
        CheckpointError: no model can have these sizes.
    """
    config = CoLLaVOConfig(**sizes.model_dump())
    try:
        with torch.device(device):
            model = CoLLaVOForConditionalGeneration(config)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"no model can be made of these sizes: {error}") from error
    return model.eval()  # type: ignore[no-any-return]


def add_adapters(
    model: CoLLaVOForConditionalGeneration,
    names: Sequence[str],
    rank: int,
    alpha: int,
    ranks: Mapping[str, int] | None = None,
    targets: Sequence[str] = TARGETS,
) -> Adapters:
    """Put LoRA adapters on a blank model; see `Adapters`."""
    with torch.device(model.device):
        adapters = Adapters(model, names, rank=rank, alpha=alpha, ranks=ranks, targets=targets)
    model.eval()
    return adapters


def describe(model: CoLLaVOForConditionalGeneration, workload: Workload) -> list[PartDescription]:
    """Parameters and FLOPs of every part.

    Args:
        model: see `blank_model`; its adapters are parts of their own.
        workload: what is read.
    """
    prompt = _measure(_Prompt(model), _prompt_inputs(model, workload))
    token = _measure(
        _Token(model, _length(model, workload)), (torch.zeros(1, 1, dtype=torch.long, device=model.device),)
    )
    numbers = count_parameters(model, part_of)
    names = dict.fromkeys((*_ordered(numbers), *prompt, *token))
    return [
        PartDescription(
            name=name, parameters=numbers.get(name, 0), prompt=prompt.get(name, Cost()), token=token.get(name, Cost())
        )
        for name in names
        if numbers.get(name) or prompt.get(name, Cost()) != Cost() or token.get(name, Cost()) != Cost()
    ]


def _ordered(numbers: Mapping[str, int]) -> list[str]:
    """The parts in the order that data runs through them."""
    order = [*_PARTS.values()]
    order[order.index("decoder") + 1 : order.index("decoder") + 1] = [IMAGE_PAIRS, CRAYON_PAIRS]
    return sorted(numbers, key=lambda name: order.index(name) if name in order else len(order))


def _measure(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Cost]:
    return measure(module, inputs, lambda name: part_of(name.removeprefix("model").removeprefix(".")))


def _length(model: CoLLaVOForConditionalGeneration, workload: Workload) -> int:
    """Tokens of the prompt, those of the image included."""
    return int(model.config.num_image_tokens) + workload.text_tokens


def _prompt_inputs(model: CoLLaVOForConditionalGeneration, workload: Workload) -> tuple[Tensor, ...]:
    config, device = model.config, model.device
    size, image = config.image_size, config.num_image_tokens
    ids, kinds, index = (
        torch.zeros(shape, dtype=torch.long, device=device)
        for shape in ((1, _length(model, workload)), (workload.crayon_vectors,), (image,))
    )
    return torch.zeros(1, 3, size, size, device=device), ids, kinds, torch.arange(image, device=device), index


class _Prompt(nn.Module):
    """Reads a prompt that begins with an image, without the steps of `forward` whose shapes depend on values.

    Args:
        model: that reads.
    """

    def __init__(self, model: CoLLaVOForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, ids: Tensor, kinds: Tensor, positions: Tensor, index: Tensor) -> Tensor:
        """Logits of the last position (1, 1, vocabulary).

        Args:
            pixels: (1, 3, H, W).
            ids: int64 (1, T).
            kinds: int64 (U,), the distinct classes and numbers.
            positions: int64 (P,), of the image tokens.
            index: int64 (P,), rows of ``kinds``.
        """
        model = self.model
        features = model.encode_images(pixels)
        embeds = model.get_input_embeddings()(ids)
        embeds = embeds.flatten(0, 1).index_copy(0, positions, features.flatten(0, 1)).view_as(embeds)
        image = ImageTokens(positions)
        if model.config.crayon_queries != "none":
            image = ImageTokens(positions, model.crayon.vectors(kinds, kinds), index)
        places = torch.arange(embeds.shape[1], device=embeds.device)[None]
        hidden = model.language_model(embeds, None, places, image=image).last_hidden_state
        return model.output(hidden[:, -1:])  # type: ignore[no-any-return]


class _Token(nn.Module):
    """Runs one more token after a prompt that lies in the cache.

    Args:
        model: that runs.
        length: tokens of the prompt.
    """

    def __init__(self, model: CoLLaVOForConditionalGeneration, length: int) -> None:
        super().__init__()
        self.model = model
        self._length = length

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (1, 1, vocabulary) after one token, int64 (1, 1)."""
        text, embeds = self.model.config.text, self.model.get_input_embeddings()(ids)
        cache = DynamicCache(config=text)
        for layer in range(text.num_hidden_layers):
            held = torch.zeros(1, text.num_key_value_heads, self._length, text.head_dim, device=ids.device)
            cache.update(held, held, layer)
        position = torch.full((1, 1), self._length, dtype=torch.long, device=ids.device)
        hidden = self.model.language_model(embeds, None, position, cache=cache).last_hidden_state
        return self.model.output(hidden)  # type: ignore[no-any-return]
