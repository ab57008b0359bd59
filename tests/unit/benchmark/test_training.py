"""The training benchmark compares like with like: both recipes give the same loss and train on the same records."""

from __future__ import annotations

import pytest
import torch

from collavo.adapters import IMAGE_CIT, VL_CIT
from collavo.training_inputs import IGNORE_INDEX
from tests.benchmark.training import PlainCrayon, Size, Work, ours, padded_right, plain, set_up, sources
from trainer.config import LoopConfig
from trainer.data.batches import collate
from trainer.data.samples import Preparation

CPU = torch.device("cpu")
SIZE = Size(width=64, layers=2, image_size=56, dropout=0.0, rank=4)
WORK = Work(updates=4, batch=4, rows=2, questions=2, device=CPU)


@pytest.mark.parametrize("kind", [VL_CIT, IMAGE_CIT])
def test_the_plain_recipe_has_the_same_loss(kind: str) -> None:
    held = set_up(SIZE, CPU)
    records = sources(WORK, Preparation(processor=held.processor, train=LoopConfig(MAX_LENGTH=999)), 1)[kind]
    examples = [records.example(index, 0) for index in range(4)]
    batch = collate(examples, held.processor)
    labels = int((batch.labels[:, 1:] != IGNORE_INDEX).sum())
    loss = held.model(**batch.inputs(), num_items_in_batch=labels, use_cache=False).loss
    held.model.crayon.__class__ = PlainCrayon
    other = held.model(**padded_right(examples, held.processor).inputs(), use_cache=False).loss
    assert float(other) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.slow
def test_both_train_on_as_many_conversations() -> None:
    results = plain(SIZE, WORK), ours(SIZE, WORK, 1), ours(SIZE, WORK, 2)
    counts = [result.conversations for result in results]
    assert counts[0] == counts[1] and sum(counts[0].values()) == 16
    assert counts[2] == {VL_CIT: counts[0][VL_CIT], IMAGE_CIT: 2 * counts[0][IMAGE_CIT]}
    assert all(result.peak > 0 and all(s > 0 for s in result.seconds.values()) for result in results)
