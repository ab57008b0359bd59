"""Batches whose places are found on the host: the same numbers, nothing left on the CPU, nothing waited for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from collavo.crayon import CrayonPrompt
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.processing import CoLLaVOProcessor
from collavo.training_inputs import IGNORE_INDEX
from tests.benchmark.engine import Geometry, build
from tests.unit.collavo.test_decoding_step import ELSEWHERE, fake_elsewhere
from trainer.data.batches import Example, Row, collate
from trainer.loop import BatchTotals

GEOMETRY = Geometry(64, 4, 8, 2, 96, 4, 64, 2, 56)
TOTALS = BatchTotals(samples=4, labels=11)
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
pytestmark = pytest.mark.slow  # many layouts
"""Operators whose result has a shape that values decide, or that read a value back."""


class Watcher(TorchDispatchMode):
    """Notes operators that would wait for a GPU; a mask as an index is looked through as by ``nonzero``."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.split(".")[0]
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in WAITS or any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indices):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def parts() -> tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor]:
    engine = build(GEOMETRY, torch.device("cpu"))
    engine.model.set_attn_implementation("sdpa")
    return engine.model, engine.processor


def example(processor: CoLLaVOProcessor, number: int, length: int, *, image: bool, parts: bool = False) -> Example:
    rng = np.random.default_rng(number)
    ids = [3, *([processor.tokenizer.convert_tokens_to_ids("<image>")] if image else []), *range(9, 9 + length)]
    labels = [token if place > 3 and token % 3 else IGNORE_INDEX for place, token in enumerate(ids)]
    crayon = CrayonPrompt(rng.integers(0, 9, (4, 4)), rng.integers(0, 5, (4, 4)), ()) if image else None
    return Example(
        id=str(number),
        input_ids=ids,
        labels=labels,
        pixels=rng.integers(0, 256, (56, 56, 3)).astype(np.uint8) if image else None,
        crayon=crayon,
        parts=[0] * 3 + [1 + (n > 1) for n in range(len(ids) - 3)] if parts else None,
        source="odd" if number % 2 else "even",
    )


def rows(processor: CoLLaVOProcessor, layout: str) -> list[Example | Row]:
    if layout == "text":
        return [example(processor, 1, 9, image=False), example(processor, 3, 9, image=False)]
    some = [example(processor, n, 12 - 2 * n, image=n != 1, parts=layout == "parts" and n != 1) for n in range(4)]
    return [some[:2], *some[2:]] if layout == "packed" else list(some)


@pytest.mark.parametrize("queries", ["both", "semantic", "none"])
@pytest.mark.parametrize("layout", ["padded", "text", "parts", "packed"])
def test_losses_and_gradients_are_the_same_to_the_bit(
    parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor], layout: str, queries: str
) -> None:
    model, processor = parts
    model.config.crayon_queries = queries
    found = []
    for place in (None, model.place):
        batch = collate(rows(processor, layout), processor, place)
        assert (batch.placed is None) == (place is None)
        model.zero_grad()
        loss, by_source = batch.losses(model, TOTALS)
        loss.backward()
        found.append([loss.detach(), *by_source.values(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("layout", ["padded", "text", "parts", "packed"])
def test_no_update_waits_for_its_device(
    parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor], layout: str
) -> None:
    model, processor = parts
    batch = collate(rows(processor, layout), processor, model.place)
    with Watcher() as watcher:
        batch.losses(model, TOTALS)[0].backward()
    assert watcher.waits == []
    with Watcher() as watcher:
        replace(batch, placed=None).losses(model, TOTALS)
    assert watcher.waits, "the watcher sees what it is for"


@pytest.mark.parametrize("layout", ["padded", "text"])
def test_nothing_of_a_batch_is_left_on_the_cpu(
    parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor], layout: str
) -> None:
    """The whole way of a microbatch on a pretended GPU, where an operator that mixes devices raises."""
    model, processor = parts
    model = model.to(torch.bfloat16).train()
    model.set_attn_implementation("eager")  # PyTorch's own backends ask for the real device
    batch = collate(rows(processor, layout), processor, model.place)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake_elsewhere(model)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        moved = batch.to(torch.device(ELSEWHERE))
        loss, by_source = moved.losses(model, TOTALS)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert {t.device.type for t in (loss, *by_source.values(), *gradients)} == {"lazy"}


def test_rows_without_padding_need_no_mask(
    parts: tuple[CoLLaVOForConditionalGeneration, CoLLaVOProcessor],
) -> None:
    model, processor = parts
    placed = collate(rows(processor, "text"), processor, model.place).placed
    assert placed is not None and placed.attention_mask is None
