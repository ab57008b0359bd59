"""A sample of a benchmark's wrong answers with their images, for Weights & Biases and TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from configs.common.escape import markdown
from configs.common.words import shown
from datasets.types import ImageSource

from .prediction import FAULTS, Prediction, spread, target_words
from .thumbnails import small_image

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

COLUMNS = ("id", "image", "group", "question", "reply", "read as", "target", "verdict")
IMAGE = COLUMNS.index("image")
LONGEST_CELL = 2000
"""Characters of a cell; a longer text is cut in its middle."""


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """A row of the table.

    Attributes:
        image: JPEG, as in the report; None for a text-only question, or an image that cannot be read.
        texts: the other cells, by column; one line each, without control characters.
    """

    image: bytes | None
    texts: Mapping[str, str]

    def decoded(self) -> Image.Image | None:
        """The image in RGB; None where there is none."""
        return None if self.image is None else Image.open(io.BytesIO(self.image)).convert("RGB")


def wrong_answers(predictions: Sequence[Prediction], images: Mapping[str, ImageSource], num: int) -> list[WrongAnswer]:
    """Choose records that are wrong, partly right, unreadable or an error, evenly spread over the data.

    Args:
        predictions: of a benchmark, in data order.
        images: by record id.
        num: how many at most.
    """
    chosen = spread([one for one in predictions if one.verdict in FAULTS], num)
    made: dict[str, bytes | None] = {}
    for one in chosen:
        source = images.get(one.id)
        if source is not None and source.name not in made:
            made[source.name] = small_image(source)
    return [_row(one, made.get(images[one.id].name) if one.id in images else None) for one in chosen]


def _row(one: Prediction, image: bytes | None) -> WrongAnswer:
    reply = f"(no reply) {one.error}" if one.error is not None else one.text or ""
    cells = (one.id, "", one.group, one.question, reply, one.extracted or "", target_words(one.target), one.verdict)
    texts = {name: shown(cell, LONGEST_CELL) for name, cell in zip(COLUMNS, cells, strict=True) if name != "image"}
    return WrongAnswer(image=image, texts=texts)


def log_wrong_answers(
    trackers: Iterable[GeneralTracker], dataset: str, found: Sequence[WrongAnswer], step: int | None
) -> None:
    """Hand a sample to the trackers that can show it: a table to Weights & Biases, images and texts to TensorBoard.

    Args:
        trackers: of Accelerate, on the main process.
        dataset: the benchmark's name.
        found: see `wrong_answers`.
        step: updates of the training run; None outside of one.
    """
    for tracker in trackers if found else ():
        if tracker.name == "wandb":
            _to_wandb(tracker, f"wrong/{dataset}", found, step)
        elif tracker.name == "tensorboard":
            _to_tensorboard(tracker, f"wrong/{dataset}", found, step)


def _to_wandb(tracker: GeneralTracker, name: str, found: Sequence[WrongAnswer], step: int | None) -> None:
    import wandb

    rows = []
    for one in found:
        image = one.decoded()
        cells = {**one.texts, "image": None if image is None else wandb.Image(image)}
        rows.append([cells[column] for column in COLUMNS])
    tracker.log({name: wandb.Table(columns=list(COLUMNS), data=rows)}, step=step)


def _to_tensorboard(tracker: GeneralTracker, name: str, found: Sequence[WrongAnswer], step: int | None) -> None:
    writer = tracker.tracker
    for number, one in enumerate(found, start=1):
        image, tag = one.decoded(), f"{name}/{number:03d}"
        if image is not None:
            writer.add_image(tag, np.asarray(image), step, dataformats="HWC")
        lines = [f"| {column} | {markdown(text)} |" for column, text in one.texts.items()]
        writer.add_text(tag, "\n".join(["| | |", "|---|---|", *lines]), step)
    writer.flush()
