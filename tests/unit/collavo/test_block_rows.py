"""Blocks of any number of rows that is used give every row the numbers of a full block, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from collavo.block_rows import CHECKED_ON_CPU, FULL, BlockRows, most_rows
from collavo.engine import Engine, Generation, Query
from modeling.image import DecodedImage
from modeling.shared_prefix import SharedPrefixCache
from tests.benchmark.engine import Geometry, build

SMALLEST = Geometry(64, 2, 8, 2, 192, 4, 64, 1, 56)
ODD = Geometry(96, 2, 6, 3, 120, 4, 64, 1, 56)
"""Heads that fill no vector in a block of 4 rows."""
SAMPLED = {"num_beams": 1, "temperature": 1.0, "top_p": 0.9, "seed": 3}
TYPES = [torch.float32, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.slow  # many sizes of blocks


def queries(count: int) -> list[Query]:
    rng = np.random.default_rng(0)
    images = [DecodedImage(rng.integers(0, 256, (56, 56, 3)).astype(np.uint8), f"{n}.png") for n in range(count)]
    return [Query(image, f"Is there {'a ' * (n % 5)}{n}?") for n, image in enumerate(images)]


class UnlikeForFewRows(nn.Module):
    """A product that is summed up otherwise for fewer than 12 rows."""

    def __init__(self, product: nn.Module) -> None:
        super().__init__()
        self.product = product

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.product(rows)
        return out if len(rows) >= 12 else out * (1 + torch.finfo(out.dtype).eps)


@pytest.fixture
def rows_of_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every block that is answered."""
    seen: list[int] = []
    start = SharedPrefixCache.__init__

    def watched(self: SharedPrefixCache, prefixes: Sequence[object], **sizes: int) -> None:
        start(self, prefixes, **sizes)  # type: ignore[arg-type]
        seen.append(sizes["num_rows"])

    monkeypatch.setattr(SharedPrefixCache, "__init__", watched)
    return seen


def replies_and_margins(
    engine: Engine, asked: Sequence[Query], generation: Generation, size: int
) -> list[tuple[str, float]]:
    parts = [asked[start : start + size] for start in range(0, len(asked), size)]
    return [(reply.text, reply.margin) for part in parts for reply in engine.answer(part, generation)]


@pytest.mark.parametrize("geometry", [SMALLEST, ODD])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("beams", [1, 3])
def test_replies_are_those_of_full_blocks(
    geometry: Geometry, dtype: torch.dtype, beams: int, rows_of_blocks: list[int]
) -> None:
    engine, asked = build(geometry, torch.device("cpu"), dtype), queries(12)
    generation = Generation(num_beams=beams, max_new_tokens=4)
    engine._block_rows = BlockRows(engine.model, others=())
    full = replies_and_margins(engine, asked, generation, 12)
    assert set(rows_of_blocks) == {FULL["cpu"]}
    engine._block_rows = BlockRows(engine.model)
    for size in (1, 2, 5, 12):
        assert replies_and_margins(engine, asked, generation, size) == full
    allowed = {count for count in (*CHECKED_ON_CPU, FULL["cpu"]) if engine._block_rows.agrees(count)}
    assert set(rows_of_blocks) <= allowed


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "settings", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 2, "early_stopping": True}, SAMPLED]
)
def test_finished_questions_leave_and_no_reply_changes(
    settings: dict[str, Any], dtype: torch.dtype, rows_of_blocks: list[int]
) -> None:
    """Tokens of a tenth of the vocabulary end a reply here, so that some are long and some are short."""
    engine, asked = build(SMALLEST, torch.device("cpu"), dtype), queries(28 // settings["num_beams"] + 4)
    engine.end_ids = list(range(0, engine.model.config.text.vocab_size, 10))
    generation = Generation(max_new_tokens=24, **settings)
    together = engine.answer(asked, generation)
    lengths = {reply.num_tokens for reply in together}
    assert len(lengths) > 3, "replies of one length prove little"
    if engine._block_rows.agrees(4):
        assert rows_of_blocks[:3] == sorted(rows_of_blocks[:3], reverse=True), "rows have left"
        assert len(set(rows_of_blocks[:3])) == 3, "more than once"
    engine._block_rows = BlockRows(engine.model, others=())
    rows_of_blocks.clear()
    whole = engine.answer(asked, generation)
    assert set(rows_of_blocks) == {FULL["cpu"]}
    assert [(r.text, r.num_tokens, r.margin) for r in together] == [(r.text, r.num_tokens, r.margin) for r in whole]


def test_a_block_has_as_few_rows_as_its_questions_need(rows_of_blocks: list[int]) -> None:
    engine, generation = build(SMALLEST, torch.device("cpu")), Generation(num_beams=3, max_new_tokens=2)
    engine._block_rows._agrees = dict.fromkeys((4, 8, 16, 32), True) | dict.fromkeys((12, 20, 24, 28), False)
    asked = [Query(None, f"What is {n}?") for n in range(13)]
    for count in (1, 2, 5, 6, 13):
        engine.answer(asked[:count], generation)
    assert rows_of_blocks == [4, 8, 16, 32, 32, 16], "13 questions are 10 and 3"


def test_questions_on_as_many_images_share_blocks(rows_of_blocks: list[int]) -> None:
    """One question an image: only the last block of a call is not filled."""
    engine, generation = build(SMALLEST, torch.device("cpu")), Generation(num_beams=3, max_new_tokens=2)
    room = engine._block_rows.most // 3
    asked = [Query(query.image, "Is it red?") for query in queries(2 * room + 1)]
    engine.answer(asked, generation)
    assert rows_of_blocks == [engine._block_rows.fitting(3 * count) for count in (room, room, 1)]


def test_a_number_of_rows_that_changes_a_product_is_not_used(rows_of_blocks: list[int]) -> None:
    engine, generation = build(SMALLEST, torch.device("cpu")), Generation(num_beams=3, max_new_tokens=2)
    engine.model.output = UnlikeForFewRows(engine.model.output)  # type: ignore[assignment]
    with torch.inference_mode():
        assert not engine._block_rows.agrees(4) and not engine._block_rows.agrees(8)
    engine.answer([Query(None, "Hello")], generation)
    assert rows_of_blocks[0] >= 12


@pytest.mark.parametrize("dtype", TYPES)
def test_a_rare_difference_of_one_bit_is_seen(dtype: torch.dtype) -> None:
    """Half precision rounds nearly all of it away: what is left is a number in one of some products."""

    class Rarely(UnlikeForFewRows):
        calls = 0

        def forward(self, rows: Tensor) -> Tensor:
            out: Tensor = self.product(rows)
            if len(rows) < 12:
                self.calls += 1
                out[0, 0, 0] *= 1 + (self.calls % 5 == 0) * torch.finfo(out.dtype).eps
            return out

    engine = build(SMALLEST, torch.device("cpu"), dtype)
    engine.model.output = Rarely(engine.model.output)  # type: ignore[assignment]
    with torch.inference_mode():
        assert not engine._block_rows.agrees(8)


def test_what_fills_no_vector_is_not_used() -> None:
    """Exponentials of what is left over behind the last whole vector are computed by other instructions."""
    rows = BlockRows(build(ODD, torch.device("cpu")).model)
    with torch.inference_mode():
        assert [count for count in CHECKED_ON_CPU if rows.agrees(count)] == [32]
    assert rows.fitting(3) == rows.fitting(16) == 16


def test_no_other_numbers_where_they_are_not_checked() -> None:
    model = build(SMALLEST, torch.device("cpu")).model
    rows = BlockRows(model, others=())
    assert (rows.most, rows.fitting(3), rows.fitting(17), rows.fitting(40)) == (16, 16, 32, 48)
    model.is_loaded_in_8bit = True
    assert BlockRows(model).most == 16, "8-bit products look at all rows at once"
    assert (most_rows("cpu"), most_rows("cuda")) == (32, 64)
