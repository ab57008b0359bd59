"""From prepared samples to tensors: padded on the left, with the pictures and crayon indices of the rows that have one.

Shape legend: B rows, L tokens (an image counts as one), N pictures in the batch, P image tokens of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from collavo.crayon import CrayonPrompt
from collavo.model import IGNORE_INDEX
from collavo.processing import CoLLaVOProcessor


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A sample, ready to run.

    Attributes:
        id: names it in messages.
        input_ids: tokens; one image token if it has a picture.
        labels: of the same length, -100 where nothing is learned.
        pixels: RGB, uint8 (image size, image size, 3); None for a text-only sample.
        crayon: what the model is told of the picture; None without picture.
    """

    id: str
    input_ids: Sequence[int]
    labels: Sequence[int]
    pixels: npt.NDArray[np.uint8] | None = None
    crayon: CrayonPrompt | None = None

    @property
    def num_labels(self) -> int:
        """Tokens that are learned: those whose label is read, the first never being one."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What runs through the model at a time.

    Attributes:
        ids: of the samples.
        input_ids: int64 (B, L).
        attention_mask: int64 (B, L).
        labels: int64 (B, L).
        pixel_values: float32 (N, 3, H, W), or None.
        semantic: int64 (N, P), or None where there is no picture.
        numbering: int64 (N, P), or None.
    """

    ids: tuple[str, ...]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    pixel_values: Tensor | None
    semantic: Tensor | None
    numbering: Tensor | None

    def inputs(self) -> dict[str, Tensor | None]:
        """Arguments of the model's forward pass."""
        names = ("input_ids", "attention_mask", "labels", "pixel_values", "semantic", "numbering")
        return {name: getattr(self, name) for name in names}

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
    input_ids, mask = processor.pad_left([example.input_ids for example in examples])
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    for row, example in enumerate(examples):
        labels[row, labels.shape[1] - len(example.labels) :] = torch.tensor(list(example.labels))
    pictures = [example.pixels for example in examples if example.pixels is not None]
    prompts = [example.crayon for example in examples if example.crayon is not None]
    semantic = numbering = None
    if prompts:
        semantic = torch.from_numpy(np.stack([prompt.semantic.reshape(-1) for prompt in prompts]))
        numbering = torch.from_numpy(np.stack([prompt.numbering.reshape(-1) for prompt in prompts]))
    return Batch(
        ids=tuple(example.id for example in examples),
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        pixel_values=processor.pixel_values(np.stack(pictures)) if pictures else None,
        semantic=semantic,
        numbering=numbering,
    )
