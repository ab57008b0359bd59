"""From prepared samples to tensors: padded on the left, with the images and crayon indices of the rows that have one.

Shape legend: B rows, L tokens (an image counts as one), N images in the batch, P image tokens of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from collavo.crayon import CrayonPrompt
from collavo.host_inputs import HostInputs
from collavo.processing import CoLLaVOProcessor
from collavo.template import IMAGE_TAG
from collavo.training_inputs import IGNORE_INDEX
from modeling.precision import at_least_float32

from ..loop import BatchTotals, Tally

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
        crayon: what the model is shown of the image; None without image.
        parts: of independent turns, see `collavo.training_inputs.TrainingInputs`.
        source: where the sample comes from, by its name in the log.
        map_seconds: making its panoptic map took.
    """

    id: str
    input_ids: Sequence[int]
    labels: Sequence[int]
    pixels: npt.NDArray[np.uint8] | None = None
    crayon: CrayonPrompt | None = None
    parts: Sequence[int] | None = None
    source: str = ""
    map_seconds: float = 0.0

    @property
    def num_labels(self) -> int:
        """Tokens that are learned: those whose label is read, the first never being one."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    def tally(self, image_tokens: int) -> Tally:
        """Its counts; an image stands for so many tokens."""
        images = int(self.pixels is not None)
        length = len(self.input_ids) + images * (image_tokens - 1)
        return Tally(
            samples=1, tokens=len(self.input_ids), labels=self.num_labels, images=images, squares=length * length
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What runs through the model at a time.

    Attributes:
        ids: of the samples, behind the names of their sources; idle rows, which come last, have none.
        input_ids: int64 (B, L); where rows have independent turns (B, T), all image tokens written out.
        attention_mask: int64 (B, L), or bool (B, 1, T, T).
        labels: int64 (B, L) or (B, T).
        num_tokens: text tokens of the samples, padding left out; an image counts as one.
        num_images: of the samples.
        position_ids: int64 (B, T) where rows have independent turns, else None.
        pixel_values: float32 (N, 3, H, W), or None.
        semantic: int64 (N, P), or None where there is no image.
        numbering: int64 (N, P), or None.
        tallies: counts by source.
        learned: where there are several sources: of each, which of the tokens that are learned are its own, int64.
        placed: where everything stands, found ahead on the host; None where the model is to look for it.
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
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    placed: HostInputs | None = None

    def inputs(self) -> dict[str, Any]:
        """Arguments of the model's forward pass."""
        if self.placed is not None:
            return {"placed": self.placed, "position_ids": self.position_ids, "pixel_values": self.pixel_values}
        names = ("input_ids", "attention_mask", "labels", "position_ids", "pixel_values", "semantic", "numbering")
        return {name: getattr(self, name) for name in names}

    @property
    def num_labels(self) -> int:
        """Tokens that are learned."""
        return int((self.labels[:, 1:] != IGNORE_INDEX).sum())

    def losses(self, model: nn.Module, totals: BatchTotals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `trainer.loop.Microbatch.losses`."""
        output = model(**self.inputs(), num_items_in_batch=totals.labels, use_cache=False)
        loss: Tensor = output.loss
        if not self.learned:
            return loss, dict.fromkeys(self.tallies, loss)
        targets = self._targets()
        with torch.no_grad():
            by_source = {
                name: F.cross_entropy(
                    at_least_float32(output.logits.index_select(0, own)), targets.index_select(0, own), reduction="sum"
                )
                / totals.labels
                for name, own in self.learned.items()
            }
        return loss, by_source

    def _targets(self) -> Tensor:
        """Labels of the tokens that are learned, in order, int64."""
        if self.placed is not None and self.placed.targets is not None:
            return self.placed.targets
        return self.labels[:, 1:][self.labels[:, 1:] != IGNORE_INDEX]

    def to(self, device: torch.device) -> Batch:
        """What the model takes of it on a device; where everything is placed, the rest stays on the host."""
        if self.placed is None:
            moved: dict[str, Any] = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        else:
            moved = {n: v.to(device) for n in ("position_ids", "pixel_values") if (v := getattr(self, n)) is not None}
            moved["placed"] = self.placed.to(device)
        return replace(self, learned={name: own.to(device) for name, own in self.learned.items()}, **moved)


Row = Sequence[Example]
"""Examples that share a row without seeing one another; most rows hold one."""


def packed(examples: Sequence[Example], image_tokens: int, longest: int) -> list[Row]:
    """Put examples into as few rows as a simple rule finds: each into the first row that has room for it.

    Args:
        examples: longest first; one that is longer than a row may be has a row of its own.
        image_tokens: what an image token stands for.
        longest: tokens of a row, image tokens counted.
    """
    rows: list[Row] = []
    room: list[int] = []
    for example in examples:
        length = len(example.input_ids) + (image_tokens - 1 if example.pixels is not None else 0)
        place = next((n for n, left in enumerate(room) if left >= length), None)
        if place is None:
            rows.append([example])
            room.append(longest - length)
        else:
            rows[place] = [*rows[place], example]
            room[place] -= length
    return rows


Place: TypeAlias = Callable[
    [Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, tuple[int, int]], HostInputs
]
"""`CoLLaVOForConditionalGeneration.place` of a model."""


def collate(rows: Sequence[Example | Row], processor: CoLLaVOProcessor, place: Place | None = None) -> Batch:
    """Lay rows side by side.

    Args:
        rows: at least one, of an example or of several.
        processor: of the model.
        place: finds here what the model would have to wait for its device to find.
    """
    filled = [[row] if isinstance(row, Example) else row for row in rows]
    examples = [example for row in filled for example in row]
    samples, positions = [example for example in examples if example.id != IDLE], None
    masked = any(example.parts is not None for example in examples) or any(len(row) > 1 for row in filled)
    if masked:
        filled = [[_written_out(example, processor) for example in row] for row in filled]
    input_ids, mask = processor.pad_left([_joined(row, lambda one: one.input_ids) for row in filled])
    labels = _padded_left([_joined(row, lambda one: one.labels) for row in filled], IGNORE_INDEX)
    if masked:
        parts = _padded_left([_joined(row, _parts) for row in filled], -1)
        owners = [[n for n, one in enumerate(row) for _ in one.input_ids] for row in filled]
        mask = seen_within(parts, _padded_left(owners, -1))
        positions = _padded_left([_joined(row, _positions) for row in filled], 0)
    tallies: dict[str, Tally] = {}
    for example in samples:
        tallies[example.source] = tallies.get(example.source, Tally()) + example.tally(processor.grid**2)
    images = [example.pixels for example in examples if example.pixels is not None]
    prompts = [example.crayon for example in examples if example.crayon is not None]
    semantic = numbering = None
    if prompts:
        semantic = torch.from_numpy(np.stack([prompt.semantic.reshape(-1) for prompt in prompts]))
        numbering = torch.from_numpy(np.stack([prompt.numbering.reshape(-1) for prompt in prompts]))
    placed = None
    if place is not None:
        image_shape = (len(images), processor.grid**2 if images else 0)
        placed = place(input_ids, mask, labels, semantic, numbering, image_shape)
    return Batch(
        ids=tuple(f"{example.source}: {example.id}" for example in samples),
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        num_tokens=sum(len(example.input_ids) for example in samples),
        num_images=sum(example.pixels is not None for example in samples),
        position_ids=positions,
        pixel_values=processor.pixel_values(np.stack(images)) if images else None,
        semantic=semantic,
        numbering=numbering,
        tallies=tallies,
        learned=_learned(filled, labels, list(tallies)) if len(tallies) > 1 else {},
        placed=placed,
    )


def _joined(row: Row, values: Callable[[Example], Sequence[int]]) -> list[int]:
    """Values of all tokens of a row."""
    return [value for example in row for value in values(example)]


def _parts(example: Example) -> Sequence[int]:
    return example.parts or [0] * len(example.input_ids)


def _positions(example: Example) -> list[int]:
    found: list[int] = positions_within(torch.tensor([list(_parts(example))]))[0].tolist()
    return found


def _learned(rows: Sequence[Row], labels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Which of the tokens that are learned are each source's own; rows that teach nothing have none."""

    def numbers(example: Example) -> list[int]:
        return [-1 if example.id == IDLE else names.index(example.source)] * len(example.input_ids)

    owners = _padded_left([_joined(row, numbers) for row in rows], -1)[:, 1:][labels[:, 1:] != IGNORE_INDEX]
    return {name: (owners == number).nonzero()[:, 0] for number, name in enumerate(names)}


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
    lists = (example.input_ids, example.labels, _parts(example))
    ids, labels, parts = ([*row[:place], *[row[place]] * num, *row[place + 1 :]] for row in lists)
    return replace(example, input_ids=ids, labels=labels, parts=parts)


def seen_within(parts: Tensor, samples: Tensor | None = None) -> Tensor:
    """What each token sees: of its own sample, those before it that all share, and those before it of its own part.

    Args:
        parts: int64 (B, T): 0 for what is shared, 1, 2, ... for the others, -1 for padding.
        samples: int64 (B, T): which sample of its row a token is of, -1 for padding; None for one sample a row.
    Returns: bool (B, 1, T, T), True where a row's token (third dimension) sees another (fourth).
    """
    of_row, of_column = parts[:, :, None], parts[:, None, :]
    seen = (of_column == of_row) | ((of_column == 0) & (of_row > 0))
    if samples is not None:
        seen &= samples[:, :, None] == samples[:, None, :]
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
