"""Images ahead of their questions: each decoded and prepared once, in order, few at a time, errors with their image."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from collavo.engine import Generation, Query, Reply
from datasets.types import DataError, ImageFile
from modeling.image import DecodedImage
from modeling.segmenters.errors import SegmenterError
from pipeline.run.images_ahead import AHEAD, ENCODED, LONGEST, TOGETHER, ImagesAhead, PreparesImages
from pipeline.run.journal import Journal
from pipeline.run.loop import LoopSettings, answer_all
from pipeline.run.questions import Question, batches
from pipeline.runtime.console import Progress
from pipeline.runtime.errors import SampleError
from pipeline.runtime.options import RunConfig
from tests.limits import examples, wait_for

SIDE = 6


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the engine below makes of an image."""

    image: DecodedImage
    features: bool


@dataclass
class PreparingEngine:
    """Prepares images, and answers with what it prepared; notes in which thread, and how many at a time."""

    bad: str = ""
    fails: Exception | None = None
    delay: float = 0.0
    image_size: int | None = SIDE
    groups: list[list[str]] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    inside: bool = False
    asked: list[tuple[str, object]] = field(default_factory=list)

    def prepare(self, images: Sequence[DecodedImage], *, features: bool = True) -> list[object]:
        assert self.inside, "threads compute within the context alone"
        self.threads.add(threading.current_thread().name)
        self.groups.append([image.name for image in images])
        time.sleep(self.delay)
        if self.fails is not None:
            raise self.fails
        return [
            SegmenterError(f"image {image.name}: no map") if image.name == self.bad else Prepared(image, features)
            for image in images
        ]

    @contextmanager
    def fixed_threads(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
        self.asked += [(query.question, query.image) for query in queries]
        return [Reply(text=query.question, prompt="", num_tokens=1, finished=True) for query in queries]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    for number in range(90):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(made / f"{number}.png")
    (made / "broken.png").write_bytes(b"\x89PNG broken")
    return made


def question(folder: Path, image: int | str | None, number: int) -> Question:
    source = None if image is None else ImageFile(folder / f"{image}.png", f"{image}.png")
    return Question(image=source, prompt=f"{image} {number}", ids=(f"r{number}",))


def questions(folder: Path, asked: Sequence[int | str | None]) -> list[Question]:
    return [question(folder, image, number) for number, image in enumerate(asked)]


def answered(
    asked: Sequence[Question], engine: object, folder: Path, size: int = 2, *, strict: bool = False
) -> dict[str, str]:
    """What the loop makes of questions: reply or error of each record."""
    chosen = LoopSettings(
        run="r",
        batch_size=size,
        most=size,
        options=RunConfig(WORKERS=2, STRICT=strict),
        generation=Generation(num_beams=1, max_new_tokens=1),
    )
    with Journal(folder / "journal.jsonl") as journal, Progress("x", len(asked), shown=False) as progress:
        entries = answer_all(asked, engine, journal, chosen, progress)  # type: ignore[arg-type]
    return {entry.id: entry.error or entry.text for entry in entries}


@settings(max_examples=examples(25))
@given(st.lists(st.one_of(st.none(), st.integers(0, 12)), max_size=40), st.integers(1, 7))
def test_each_question_gets_its_image_and_each_image_is_prepared_once_within_reach(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, asked: list[int | None], size: int
) -> None:
    ordered = sorted(asked, key=lambda image: -1 if image is None else image)  # questions of an image side by side
    engine = PreparingEngine()
    found = answered(questions(folder, ordered), engine, tmp_path_factory.mktemp("out"), size)
    assert found == {f"r{number}": f"{image} {number}" for number, image in enumerate(ordered)}
    for text, prepared in engine.asked:
        if text.startswith("None"):
            assert prepared is None
        else:
            assert isinstance(prepared, Prepared) and prepared.image.name == f"{text.split()[0]}.png"
            assert (prepared.image.pixels == int(text.split()[0])).all()
            assert "key" in vars(prepared.image), "hashed when it was decoded"
    names = [name for group in engine.groups for name in group]
    assert sorted(names) == sorted({f"{image}.png" for image in ordered if image is not None})
    assert all(thread.startswith("prepare") for thread in engine.threads) and len(engine.threads) <= 1
    assert not engine.inside


def test_images_are_prepared_together_while_questions_are_answered(folder: Path, tmp_path: Path) -> None:
    """One question an image, one question a batch: the second group holds several images all the same."""
    engine = PreparingEngine(delay=0.05)
    answered(questions(folder, range(40)), engine, tmp_path, size=1)
    assert max(map(len, engine.groups)) > 1
    assert all(len(group) <= TOGETHER for group in engine.groups)


def test_few_images_are_held_at_any_time(folder: Path) -> None:
    """However many there are, and however slowly they are asked about."""
    engine = PreparingEngine()
    for size in (1, 5):
        todo = list(batches(questions(folder, range(60)), size, size))
        drawn = 0

        def drawing(todo: list[list[Question]] = todo) -> Iterator[list[Question]]:
            nonlocal drawn
            for batch in todo:
                drawn += 1
                yield batch

        with ImagesAhead(engine, 2) as ahead:
            for number, (batch, images) in enumerate(ahead.batches(drawing()), start=1):
                assert {q.image.name for q in batch if q.image} <= set(images)
                assert len(images) <= 2 * size + max(AHEAD, 2 * size) + size
                assert drawn <= number + max(2, -(-AHEAD // size))


def test_text_only_questions_are_not_all_drawn_at_once(folder: Path) -> None:
    todo = iter([[question(folder, None, number)] for number in range(1000)])
    with ImagesAhead(PreparingEngine(), 2) as ahead:
        next(ahead.batches(todo))
    assert len(list(todo)) >= 1000 - LONGEST - 2


def test_only_some_images_are_encoded_ahead(folder: Path, tmp_path: Path) -> None:
    engine = PreparingEngine()
    answered(questions(folder, range(90)), engine, tmp_path, size=90)
    encoded = [prepared.features for _, prepared in engine.asked if isinstance(prepared, Prepared)]
    assert len(encoded) == 90 and sum(encoded) == ENCODED


def test_what_is_wrong_with_an_image_is_an_error_of_its_questions_alone(folder: Path, tmp_path: Path) -> None:
    asked: list[int | str | None] = [1, 1, "broken", "broken", 2, "gone", 3, None]
    found = answered(questions(folder, asked), PreparingEngine(bad="2.png"), tmp_path, size=3)
    assert {name: text for name, text in found.items() if name in ("r0", "r1", "r6", "r7")} == {
        "r0": "1 0",
        "r1": "1 1",
        "r6": "3 6",
        "r7": "None 7",
    }
    assert found["r2"].startswith("image broken.png:") and found["r3"] == found["r2"]
    assert found["r4"] == "image 2.png: no map"
    assert found["r5"].startswith("image gone.png: cannot be read")
    with pytest.raises(DataError, match=r"r4: image 2\.png: no map"):
        answered(questions(folder, [1, 1, 1, 1, 2]), PreparingEngine(bad="2.png"), tmp_path, strict=True)


def test_an_unexpected_error_names_the_questions(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="r0, r1") as raised:
        answered(questions(folder, [1, 2, 3]), PreparingEngine(fails=ValueError("wrong shape")), tmp_path)
    assert str(raised.value.__cause__) == "wrong shape"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_where_memory_is_short_the_engine_prepares_when_its_turn_has_come(
    error: Exception, folder: Path, tmp_path: Path
) -> None:
    engine = PreparingEngine(fails=error)
    found = answered(questions(folder, [1, 2, 3]), engine, tmp_path)
    assert found == {"r0": "1 0", "r1": "2 1", "r2": "3 2"}
    assert all(isinstance(image, DecodedImage) for _, image in engine.asked)


def test_an_engine_that_cannot_prepare_gets_the_images_as_they_are(folder: Path, tmp_path: Path) -> None:
    class Plain:
        image_size = SIDE
        answer = PreparingEngine.answer

        def __init__(self) -> None:
            self.asked: list[tuple[str, object]] = []

    engine = Plain()
    assert not isinstance(engine, PreparesImages) and isinstance(PreparingEngine(), PreparesImages)
    found = answered(questions(folder, [1, None, 2]), engine, tmp_path)
    assert found == {"r0": "1 0", "r1": "None 1", "r2": "2 2"}
    assert [type(image) for _, image in engine.asked] == [DecodedImage, type(None), DecodedImage]


def test_no_thread_is_left_when_the_loop_ends_or_fails(folder: Path, tmp_path: Path) -> None:
    class Failing(PreparingEngine):
        def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
            raise ValueError("told to fail")

    answered(questions(folder, range(20)), PreparingEngine(), tmp_path)
    with pytest.raises(SampleError):
        answered(questions(folder, range(20)), Failing(delay=0.01), tmp_path)
    wait_for(lambda: not any(thread.name.startswith(("decode", "prepare")) for thread in threading.enumerate()))
