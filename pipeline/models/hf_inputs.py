"""A question's inputs of a model of the transformers library, and how those of several questions become a batch.

Shape legend: B questions of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

RIGHT = "qformer_"
"""Text of a Q-Former, which counts positions from its first token."""


@dataclass(frozen=True)
class PreparedQuestion:
    """A question ready to run.

    Attributes:
        index: its place in the call.
        prompt: the whole prompt as text.
        inputs: of the model, of one row each.
        text: names of the inputs that have one number for each token of the prompt, (1, T), or of a Q-Former's text.
    """

    index: int
    prompt: str
    inputs: Mapping[str, Any]
    text: frozenset[str]

    @classmethod
    def of(cls, index: int, prompt: str, inputs: Mapping[str, Tensor]) -> PreparedQuestion:
        """With the names of what belongs to the text."""
        length = inputs["input_ids"].shape[1]
        text = (name for name, value in inputs.items() if name.startswith(RIGHT) or value.shape == (1, length))
        return cls(index, prompt, inputs, frozenset(text))

    @property
    def shape(self) -> tuple[Any, ...]:
        """What must be equal for questions to run together: names and, besides the text, shapes and kinds."""
        return tuple(
            (name, "text" if name in self.text else tuple(value.shape), value.dtype)
            for name, value in sorted(self.inputs.items())
        )


def padded(values: Sequence[Tensor], filler: int, *, left: bool) -> list[Tensor]:
    """Rows (1, T) brought to the longest T."""
    length = max(value.shape[1] for value in values)
    missing = [length - value.shape[1] for value in values]
    gaps = [(gap, 0) if left else (0, gap) for gap in missing]
    return [torch.nn.functional.pad(value, gap, value=filler) for value, gap in zip(values, gaps, strict=True)]
