"""Memory that runs out: nothing is lost, no reply changes, and more is tried again later."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from assets.tiny.random_checkpoint import make_tiny
from collavo import budget
from collavo.block_rows import BlockRows
from collavo.budget import STEADY, Budget, free_memory
from collavo.engine import Engine, Generation, Query, Reply
from collavo.load_collavo import load_engine
from collavo.options import LLMConfig
from configs.common.memory_errors import is_out_of_memory
from modeling.image import DecodedImage
from modeling.live_bytes import LiveBytes
from modeling.segmenters.none import NoSegmenter

GENERATION = Generation(num_beams=3, max_new_tokens=4)


class SmallMemory(LiveBytes):
    """A device that holds so many bytes next to the weights, and raises beyond, as an allocator does."""

    def __init__(self, limit: int, error: type[Exception], message: str) -> None:
        super().__init__()
        self.limit, self.error, self.message, self.failures = limit, error, message, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if self.now > self.limit:
            self.failures += 1
            raise self.error(self.message)
        return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("budget") / "tiny"
    make_tiny(directory, seed=0)
    return directory


def new_engine(checkpoint: Path, **settings: Any) -> Engine:
    engine = load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(checkpoint), NoSegmenter(), **settings)
    for query in queries():
        engine._prompt(0, query)  # maps and tokens are made once; what is limited is the decoder's memory
    return engine


def queries() -> list[Query]:
    """Ten images with two questions each, twelve on another one, and one without."""
    rng = np.random.default_rng(0)
    images = [DecodedImage(rng.integers(0, 256, (112, 112, 3)).astype(np.uint8), f"{n}.png") for n in range(11)]
    asked = [Query(image, text) for image in images[:10] for text in ("Is it red?", "What is it?")]
    return [*asked, *(Query(images[10], f"Is there a {n}?") for n in range(12)), Query(None, "Hello")]


def told(replies: Sequence[Reply]) -> list[tuple[str, float]]:
    return [(reply.text, reply.margin) for reply in replies]


def most(engine: Engine, asked: Sequence[Query]) -> int:
    with LiveBytes() as live:
        engine.answer(asked, GENERATION)
    return live.peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 20.00 MiB"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 20 bytes"),
    ],
)
def test_questions_in_flight_are_halved_and_no_reply_changes(
    checkpoint: Path, error: type[Exception], message: str
) -> None:
    engine = new_engine(checkpoint)
    whole = told(engine.answer(queries(), GENERATION))
    engine.forget()
    alone = most(engine, queries()[:1])
    engine.forget()
    ten = most(engine, queries())
    engine.forget()
    assert ten > 1.3 * alone
    with SmallMemory(int(1.15 * alone), error, message) as memory:
        replies = engine.answer(queries(), GENERATION)
    assert told(replies) == whole
    assert memory.failures > 0
    assert engine.budget.halvings > 0
    assert engine.shape_changes == []
    assert not any(reply.note for reply in replies)


@pytest.mark.slow
def test_more_is_tried_again_once_memory_is_there(checkpoint: Path) -> None:
    engine = new_engine(checkpoint, most_questions=16)
    alone = most(engine, queries()[:1])
    engine.forget()
    with SmallMemory(int(1.15 * alone), MemoryError, ""):
        engine.answer(queries(), GENERATION)
    small = engine.budget.questions
    assert small < 16
    for _ in range(8):
        engine.answer(queries()[20:], Generation(num_beams=3, max_new_tokens=1))
    assert engine.budget.questions == 16


@pytest.mark.slow
def test_a_question_that_does_not_fit_gets_fewer_rows_which_is_noted(checkpoint: Path) -> None:
    """The suffixes of 16 rows and 64 tokens are what does not fit; those of 8 rows do."""
    engine = new_engine(checkpoint)
    engine._block_rows = BlockRows(engine.model, others=())
    long = Generation(num_beams=3, max_new_tokens=64)
    asked = queries()[:2]
    whole = engine.answer(asked, long)
    engine.forget()
    with LiveBytes() as live:
        engine.answer(asked[:1], long)
    engine.forget()
    with SmallMemory(int(0.75 * live.peak), MemoryError, ""):
        replies = engine.answer(asked, long)
    assert engine.shape_changes == ["blocks of 8 rows instead of 16"]
    assert {reply.note for reply in replies} == {"blocks of 8 rows instead of 16"}
    assert [reply.text for reply in replies] == [reply.text for reply in whole]


def test_what_never_fits_is_an_error_that_names_itself(checkpoint: Path) -> None:
    engine = new_engine(checkpoint)
    with SmallMemory(1000, torch.OutOfMemoryError, "CUDA out of memory."), pytest.raises(torch.OutOfMemoryError):
        engine.answer(queries()[:2], GENERATION)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] Cannot allocate memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: not enough memory"))


def test_a_block_holds_no_more_questions_than_asked_for(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(checkpoint, most_questions=2)
    sizes: list[int] = []
    inner = engine._answer_block

    def counted(block: Any, how: Generation) -> Any:
        sizes.append(len(block))
        return inner(block, how)

    monkeypatch.setattr(engine, "_answer_block", counted)
    engine.answer(queries(), GENERATION)
    assert max(sizes) == 2
    assert sum(sizes) == len(queries())


@pytest.mark.slow
def test_prefixes_are_held_as_free_memory_allows(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory is looked at again for every window."""
    engine = new_engine(checkpoint)
    one = engine._prefix_bytes(engine._prompt(0, queries()[0]).prefix_length)
    whole = told(engine.answer(queries(), GENERATION))
    engine.forget()
    monkeypatch.setattr("collavo.engine.free_memory", lambda _: 7 * one)
    windows = [len(window) for window in engine._windows(queries())]
    assert windows[0] == 6, "three images of two questions"
    assert sum(windows) == len(queries())
    assert told(engine.answer(queries(), GENERATION)) == whole


def test_free_memory_is_this_process_part_of_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available = psutil.virtual_memory().available
    monkeypatch.setattr(budget, "_CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert 0 < free_memory(cpu, {}) <= 2 * available
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert free_memory(cpu, {}) > 1000
    (tmp_path / "memory.max").write_text("1005\n")
    assert free_memory(cpu, {}) == 1000
    assert free_memory(cpu, {"LOCAL_WORLD_SIZE": "4"}) == 250


def test_the_budget_grows_only_after_blocks_that_fitted() -> None:
    plan = Budget(10)
    plan.shrink(7)
    assert plan.questions == 3
    for _ in range(STEADY - 1):
        plan.fits()
    assert plan.questions == 3
    for _ in range(1 + STEADY):
        plan.fits()
    assert plan.questions == 10
    for _ in range(9):
        plan.shrink(plan.questions)
    assert plan.questions == 1
    with pytest.raises(ValueError, match="at least one question"):
        Budget(0)
