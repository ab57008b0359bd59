"""From prepared samples to tensors: padded on the left, with the images and crayon indices of the rows that have one.

Shape legend: B rows, L tokens (an image counts as one), N images in the batch, P image tokens of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from collavo.crayon import CrayonPrompt
from collavo.model import IGNORE_INDEX
from collavo.processing import CoLLaVOProcessor
from collavo.template import IMAGE_TAG

from ..loop import Totals

IDLE = "none"
"""Id of a row that teaches nothing: it is there for the process to take part in an update."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A sample, ready to run.

    Attributes:
        id: names it in messages.
        input_ids: tokens; one image token if it has an image.
        labels: of the same length, -100 where nothing is learned.
        pixels: RGB, uint8 (image size, image size, 3); None for a text-only sample.
        crayon: what the model is told of the image; None without image.
        parts: of independent turns, see `collavo.training_inputs.TrainingInputs`.
    """

    id: str
    input_ids: Sequence[int]
    labels: Sequence[int]
    pixels: npt.NDArray[np.uint8] | None = None
    crayon: CrayonPrompt | None = None
    parts: Sequence[int] | None = None

    @property
    def num_labels(self) -> int:
        """Tokens that are learned: those whose label is read, the first never being one."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What runs through the model at a time.

    Attributes:
        ids: of the samples; idle rows, which come last, have none.
        input_ids: int64 (B, L); where rows have independent turns (B, T), all image tokens written out.
        attention_mask: int64 (B, L), or bool (B, 1, T, T).
        labels: int64 (B, L) or (B, T).
        num_tokens: text tokens of the samples, padding left out; an image counts as one.
        num_images: of the samples.
        position_ids: int64 (B, T) where rows have independent turns, else None.
        pixel_values: float32 (N, 3, H, W), or None.
        semantic: int64 (N, P), or None where there is no image.
        numbering: int64 (N, P), or None.
    """

    ids: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    num_tokens: int
    num_images: int
    pixel_values: Tensor | None
    semantic: Tensor | None
    numbering: Tensor | None
    position_ids: Tensor | None = None

    def inputs(self) -> dict[str, Tensor | None]:
        """Arguments of the model's forward pass."""
        names = ("input_ids", "attention_mask", "labels", "position_ids", "pixel_values", "semantic", "numbering")
        return {name: getattr(self, name) for name in names}

    @property
    def num_labels(self) -> int:
        """Tokens that are learned."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())

    def loss(self, model: nn.Module, totals: Totals) -> Tensor:
        """See `trainer.loop.Piece.loss`."""
        loss: Tensor = model(**self.inputs(), num_items_in_batch=totals.labels, use_cache=False).loss
        return loss

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        moved: dict[str, Any] = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def collate(examples: Sequence[Example], processor: CoLLaVOProcessor) -> Batch:
    """Lay examples side by side.

    Args:
        examples: at least one.
        processor: of the model.
    """
    samples, positions = [example for example in examples if example.id != IDLE], None
    packed = any(example.parts is not None for example in examples)
    rows = [_written_out(example, processor) for example in examples] if packed else examples
    input_ids, mask = processor.pad_left([row.input_ids for row in rows])
    labels = _padded_left([row.labels for row in rows], IGNORE_INDEX)
    if packed:
        parts = _padded_left([row.parts or [0] * len(row.input_ids) for row in rows], -1)
        mask, positions = seen_within(parts), positions_within(parts)
    images = [example.pixels for example in examples if example.pixels is not None]
    prompts = [example.crayon for example in examples if example.crayon is not None]
    semantic = numbering = None
    if prompts:
        semantic = torch.from_numpy(np.stack([prompt.semantic.reshape(-1) for prompt in prompts]))
        numbering = torch.from_numpy(np.stack([prompt.numbering.reshape(-1) for prompt in prompts]))
    return Batch(
        ids=tuple(example.id for example in samples),
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        num_tokens=sum(len(example.input_ids) for example in samples),
        num_images=sum(example.pixels is not None for example in samples),
        position_ids=positions,
        pixel_values=processor.pixel_values(np.stack(images)) if images else None,
        semantic=semantic,
        numbering=numbering,
    )


def _padded_left(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Stack rows, filled on the left, int64 (rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([[fill] * (longest - len(row)) + list(row) for row in rows])


def _written_out(example: Example, processor: CoLLaVOProcessor) -> Example:
    """An example with its image token repeated for all that it stands for."""
    image = processor.tokenizer.convert_tokens_to_ids(IMAGE_TAG)
    if image not in example.input_ids:
        return example
    place, num = list(example.input_ids).index(image), processor.grid**2
    lists = (example.input_ids, example.labels, example.parts or [0] * len(example.input_ids))
    ids, labels, parts = ([*row[:place], *[row[place]] * num, *row[place + 1 :]] for row in lists)
    return replace(example, input_ids=ids, labels=labels, parts=parts)


def seen_within(parts: Tensor) -> Tensor:
    """What each token sees: those before it that all share, and those before it of its own part.

    Args:
        parts: int64 (B, T): 0 for what is shared, 1, 2, ... for the others, -1 for padding.
    Returns: bool (B, 1, T, T), True where a row's token (third dimension) sees another (fourth).
    """
    of_row, of_column = parts[:, :, None], parts[:, None, :]
    seen = (of_column == of_row) | ((of_column == 0) & (of_row > 0))
    return seen.tril()[:, None]


def positions_within(parts: Tensor) -> Tensor:
    """Positions as if each part stood alone behind what is shared, int64 (B, T); padding has 0.

    Args:
        parts: see `seen_within`; tokens of a part stand together.
    """
    columns = torch.arange(parts.shape[1]).expand_as(parts)
    opens = torch.ones_like(parts, dtype=torch.bool)
    opens[:, 1:] = parts[:, 1:] != parts[:, :-1]
    within = columns - torch.where(opens, columns, 0).cummax(-1).values
    shared = (parts == 0).sum(-1, keepdim=True)
    return torch.where(parts > 0, within + shared, torch.where(parts == 0, within, 0))
