"""A training run on a file of one's own, against a cross-entropy that is written out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from collavo.load_collavo import load_model
from collavo.options import LLMConfig
from tests.unit.trainer.test_updates import Run, losses, run

__all__ = ["run"]
pytestmark = pytest.mark.slow  # a whole training run

USUAL = "AI assistant should give helpful and detailed answers to user after fully understanding an image."
ASKED, REPLIES, ENDS = (
    "[UNUSED_TOKEN_146]user\n",
    "[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n",
    "[UNUSED_TOKEN_145]",
)


def records(image: str) -> list[dict[str, Any]]:
    """An image with a system turn and two questions; texts alone, as messages; an image after a first turn of gpt."""
    return [
        {
            "image": [image],
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "<image>\nIs there a dog?"},
                {"from": "gpt", "value": "Yes, it is"},
                {"from": "human", "value": "Which color is it?"},
                {"from": "gpt", "value": "A left one.\nOr two."},
            ],
        },
        {
            "messages": [
                {"role": "user", "content": "How many people?"},
                {"role": "assistant", "content": [{"type": "text", "text": "three"}]},
                {"role": "user", "content": "Where?"},
                {"role": "assistant", "content": "above"},
            ]
        },
        {
            "id": 7,
            "images": [image],
            "conversations": [
                {"from": "gpt", "value": "Hello"},
                {"from": "human", "value": "What is it?"},
                {"from": "gpt", "value": "a chair"},
            ],
        },
    ]


TEXTS: Sequence[tuple[str, ...]] = (
    (
        "Be brief. <image> ",
        f"{ASKED}Is there a dog?{REPLIES}",
        "Yes, it is",
        f"\n{ASKED}Which color is it?{REPLIES}",
        "A left one.\nOr two.",
    ),
    (f"{USUAL} ", f"{ASKED}How many people?{REPLIES}", "three", f"\n{ASKED}Where?{REPLIES}", "above"),
    (f"{USUAL} <image> ", f"{ASKED}What is it?{REPLIES}", "a chair"),
)
"""What the rows are, and in every second place from the third on what is learned, with its end tag."""


def written_out(tokenizer: Any, parts: Sequence[str]) -> tuple[list[int], list[bool]]:
    """Ids of a row, and which of them are learned, by the characters that they stand for."""
    text, spans = parts[0], []
    for place, part in enumerate(parts[1:], 1):
        start = len(text)
        text += part if place % 2 else part + ENDS
        if not place % 2:
            spans.append((start, len(text)))
    encoded = tokenizer(text, return_offsets_mapping=True)
    learned = [
        any(start <= first and last <= end and first < last for start, end in spans)
        for first, last in encoded["offset_mapping"]
    ]
    return encoded["input_ids"], learned


def row_loss(model: Any, ids: list[int], learned: list[bool], image: dict[str, Tensor]) -> tuple[Tensor, int]:
    """Sum of the losses of what is learned, and how much that is; every id is predicted from what stands before it."""
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long), **image}
    logits = model(**given).logits[0].double()[-len(ids) :]
    total, number = torch.zeros((), dtype=torch.float64), 0
    for place in range(1, len(ids)):
        if learned[place]:
            scores = logits[place - 1]
            total = total + scores.exp().sum().log() - scores[ids[place]]
            number += 1
    return total, number


def test_the_loss_on_own_data_is_the_cross_entropy_written_out_by_hand(run: Run, tiny: Path, tmp_path: Path) -> None:
    image = sorted((tiny / "data" / "coco" / "val2017").glob("*.jpg"))[0]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records(str(image))))
    given = ("TRAIN.STAGE", "cit", "TRAIN.ADAPTERS", "vl_only", "CRAYON.OBJECT_LIST", False, "TRAIN.STEPS", 1)
    batch_sizes = ("TRAIN.BATCH_SIZE_TOTAL", 3, "TRAIN.BATCH_SIZE", 1)
    save, job, _ = run("out", *given, *batch_sizes, "DATA.CONVERSATIONS", f"[{{FILE: {file}}}]")
    model = load_model(LLMConfig(BITS=32, DTYPE="fp32"), tiny / "checkpoint", torch.device("cpu"))
    tokenizer = AutoTokenizer.from_pretrained(tiny / "checkpoint")
    (share,) = job.data.batches(0, 1, 0, 1)
    batches: dict[str, Any] = {batch.ids[0]: batch for batch in share}
    total, number = torch.zeros((), dtype=torch.float64), 0
    for name, parts in zip(("mine: 0", "mine: 1", "mine: 7@2"), TEXTS, strict=True):
        batch = batches[name]
        assert (batch.num_images == 1) == ("<image>" in parts[0])
        names = ("pixel_values", "semantic", "numbering") if batch.num_images else ()
        ids, learned = written_out(tokenizer, parts)
        assert batch.input_ids[0].tolist() == ids
        assert (batch.labels[0] != -100).tolist() == learned
        with torch.no_grad():
            loss, labels = row_loss(model, ids, learned, {key: getattr(batch, key) for key in names})
        total, number = total + loss, number + labels
    assert number == sum(batch.num_labels for batch in share) > 20
    assert losses(save) == pytest.approx([float(total / number)], rel=1e-6)
