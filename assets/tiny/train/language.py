"""The tiny language model, taught to talk about what the vision tower sees, without crayon prompt.

It stands for what InternLM2 and the projector bring along at full size. Questions that need one look-up come first, and
boxes last; the weights below were found by trial on this world.

Shape legend: B rows, P image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from collavo.model import CoLLaVOForConditionalGeneration
from collavo.training_inputs import IGNORE_INDEX

from .boxes import LOOKS, box_loss, boxes_in, gather_numbers, number_ids, record_layer
from .rows import PackedRow, Packer, choose
from .scenes import DrawnScenes
from .start import SharedWords, TokenWordLoss, mimetic_start, word_ids
from .vision import cosine

_AUXILIARY = 0.5
_READING = 0.5
_EVERY = 100
LOOK_UPS = {
    **{"existence": 4.0, "class_binary": 3.0, "colour": 2.0, "count": 2.0, "box_class": 2.0, "judge/present": 1.0},
    **{"side": 1.5, "height": 1.0, "corner": 1.0, "text": 1.0, "choice/present": 1.0},
}
"""First phase: how often each kind of question is asked; others are not."""

EVERYTHING = {
    **{"existence": 2.0, "class_binary": 2.0, "colour": 1.5, "count": 2.0, "box_class": 3.0, "choice/present": 4.0},
    **{"relation": 2.0, "side": 1.5, "height": 1.0, "corner": 1.5, "text": 1.5, "box_numbered": 0.7, "refer": 0.7},
    **{"describe": 0.2, "names": 0.3, "names_boxes": 0.0, "class_boxes": 0.3, "scene": 0.3, "judge/scene": 0.2},
}
"""Second phase; kinds that are not listed have `OTHER`."""

OTHER = 0.6

BOXES = {**EVERYTHING, "box_class": 30.0}
"""When boxes are learned; other kinds as before, so that they are not forgotten."""


def features_of(model: CoLLaVOForConditionalGeneration, pixels: Callable[[slice], Tensor], num: int) -> Tensor:
    """Features of the frozen tower, float16 (num, P, width), computed once.

    Args:
        model: its tower.
        pixels: slice -> normalised images.
        num: of images.
    """
    with torch.inference_mode():
        parts = [model.vision_tower(pixels(slice(i, i + 256))).half() for i in range(0, num, 256)]
    return torch.cat(parts).clone()


@dataclass(frozen=True, kw_only=True)
class TrainingPhase:
    """A stretch of the training run.

    Attributes:
        steps: updates.
        weights: see `choose`.
        other: see `choose`.
    """

    steps: int
    weights: Mapping[str, float]
    other: float


def teach_language(
    model: CoLLaVOForConditionalGeneration,
    packer: Packer,
    drawn: DrawnScenes,
    features: Tensor,
    phases: Sequence[TrainingPhase],
    *,
    seed: int,
    batch_size: int,
    questions: int,
    rate: float,
    say: Callable[[str], None],
    reading: bool = False,
) -> None:
    """Train decoder, PLoRA pairs of the image, and projector in place; tower and crayon prompt are frozen.

    Args:
        model: fresh but for its tower; with ``reading``, one that was taught without.
        packer: makes rows.
        drawn: scenes.
        features: of their images, see `features_of`.
        phases: one after the other, under one schedule of the rate.
        seed: of the order and the questions.
        batch_size: images of an update.
        questions: about each.
        rate: highest learning rate.
        say: gets a line now and then.
        reading: whether it learns to read boxes, see `assets.tiny.train.boxes`.
    """
    table = model.language_model.embed_tokens
    words, numbers = word_ids(packer.tokenizer), number_ids(packer.tokenizer) if reading else None
    if numbers is None:
        mimetic_start(model)
    else:
        gather_numbers(model, numbers, seed)
    output, model.output = model.output, SharedWords(table)  # type: ignore[assignment]
    helper = TokenWordLoss(table, words, model.config.grid, numbers)
    frozen = {id(p) for name, p in model.named_parameters() if "crayon" in name or name.startswith("vision_tower.")}
    parameters = [p for p in model.parameters() if id(p) not in frozen] + list(helper.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    labels = torch.from_numpy(drawn.labels).long()
    steps, tally = sum(phase.steps for phase in phases), Tally()
    name = "boxes" if reading else "language"
    looking: Any = model.language_model.layers[LOOKS]
    model.train()
    for step, (batch, row) in enumerate(_batches(packer, drawn, phases, seed, batch_size, questions)):
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, steps, rate)
        projected = model.projector(features[batch].float())
        with record_layer(looking) as heard:
            loss = _answer_loss(model, row, projected, tally)
        auxiliary = helper(projected, labels[batch])
        total = loss + _AUXILIARY * auxiliary
        if numbers is not None:
            boxes, classes = boxes_in(row.input_ids, numbers), labels[batch][..., 0]
            total = total + _READING * box_loss(heard, model.config, row, boxes, classes, table.weight[words[0]])
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % _EVERY == 0 or step + 1 == steps:
            figures = f"loss {loss.item():.3f}, of image tokens {auxiliary.item():.3f}"
            say(f"{name}, update {step + 1} of {steps}: {figures}; {tally.line()}")
            tally.clear()
    with torch.no_grad():
        output.weight.copy_(table.weight[:-1])
    model.output = output
    model.eval()


def _batches(
    packer: Packer, drawn: DrawnScenes, phases: Sequence[TrainingPhase], seed: int, batch_size: int, questions: int
) -> Iterator[tuple[list[int], PackedRow]]:
    """Scenes and rows of every update, on shuffled passes over the scenes."""
    encoded = packer.encode(drawn.lessons)
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for phase in phases:
        for _ in range(phase.steps):
            if len(order) < batch_size:
                order += rng.permutation(len(encoded)).tolist()
            batch, order = order[:batch_size], order[batch_size:]
            yield batch, packer.rows(choose([encoded[i] for i in batch], phase.weights, phase.other, questions, rng))


def _answer_loss(model: CoLLaVOForConditionalGeneration, row: PackedRow, projected: Tensor, tally: Tally) -> Tensor:
    """Weighted mean loss of the answers, from projected features (B, P, width)."""
    out = model(
        input_ids=row.input_ids,
        attention_mask=row.attention_mask,
        position_ids=row.position_ids,
        image_features=projected,
        labels=row.labels,
        num_items_in_batch=1,
    )
    target = row.labels[:, 1:][row.labels[:, 1:] != IGNORE_INDEX]
    tally.add(out.logits.detach().argmax(-1) == target, row.kinds)
    each = F.cross_entropy(out.logits.float(), target, reduction="none")
    return (each * row.weights).sum() / row.weights.sum()


class Tally:
    """Shares of answer tokens that were the likeliest ones, by kind of question."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, right: Tensor, kinds: Sequence[str]) -> None:
        """Count tokens; those without a kind (end tags) do not count."""
        for kind, good in zip(kinds, right.tolist(), strict=True):
            if not kind:
                continue
            held = self._counts.setdefault(kind, [0, 0])
            held[0] += good
            held[1] += 1

    def line(self) -> str:
        """The shares in one line."""
        return ", ".join(f"{kind} {good / num:.2f}" for kind, (good, num) in sorted(self._counts.items()))

    def clear(self) -> None:
        """Start anew."""
        self._counts.clear()
