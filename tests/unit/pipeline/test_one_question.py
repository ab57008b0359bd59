"""A question's way from its annotation to its score, as a reader of the code walks it: through few files and shapes.

One of several POPE questions is followed with `sys.setprofile`: a file is on its way where one of its functions is
given, or returns, something that holds the question, be it a list of all of them. A shape is a dataclass of ours that
is about this question alone. The engine is the toy one; what happens within an engine is a story of its own.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import collavo.engine  # noqa: F401 - loaded before anything is followed
from datasets.types import Score
from pipeline.benchmarks import select_pipeline
from pipeline.catalog import load_catalog
from pipeline.config import EvalConfig
from pipeline.run.loading import Task
from pipeline.run.plan import Plan, run_plan
from pipeline.runtime.options import RunConfig
from tests.robustness.toy import ToyEngine, ToySource

ROOT = Path(__file__).resolve().parents[3]
OURS = ("assets", "collavo", "configs", "datasets", "lbk_entry", "modeling", "pipeline", "trainer")
MOST_FILES, MOST_SHAPES = 20, 7
SPLITS = ("random", "popular", "adversarial")
IMAGE = "COCO_val2014_000000000001.jpg"
DEEPEST = 6


class Follower:
    """Notes where a question goes.

    Args:
        words: that only this question has.
        others: that only other questions have.
        until: name of the function from which on the way is over.
    """

    def __init__(self, words: tuple[str, ...], others: tuple[str, ...], until: str) -> None:
        self._words, self._others, self._until = words, others, until
        self._over = False
        self.files: dict[str, set[str]] = {}
        self.shapes: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """See `sys.setprofile`."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(f"{ROOT}/"):
            return
        file = code.co_filename.removeprefix(f"{ROOT}/")
        if file.split("/")[0].removesuffix(".py") not in OURS or code.co_name == "<module>":
            return
        self._over |= code.co_name == self._until
        values = [*frame.f_locals.values()] if event == "call" else [argument]
        if not self._over and any(self._holds(value, self._words) for value in values):
            self.files.setdefault(file, set()).add(code.co_name)
            for value in values:
                self._note_shapes(value)

    def _holds(self, value: object, words: tuple[str, ...]) -> bool:
        return any(isinstance(part, (str, bytes)) and _says(part, words) for part in _parts(value))

    def _note_shapes(self, value: object) -> None:
        for part in _parts(value):
            if not dataclasses.is_dataclass(part) or type(part).__module__.split(".")[0] not in OURS:
                continue
            if self._holds(part, self._words) and not self._holds(part, self._others):
                self.shapes.setdefault(type(part).__name__)
                self.shapes |= {
                    type(inner).__name__: None
                    for inner in (getattr(part, field.name) for field in dataclasses.fields(part))
                    if isinstance(inner, Score)  # the end of the way: it holds no word of the question
                }


def _says(text: str | bytes, words: tuple[str, ...]) -> bool:
    return any((word if isinstance(text, str) else word.encode()) in text for word in words)  # type: ignore[operator]


def _parts(value: object, depth: int = 0) -> Iterator[object]:
    """A value and all that lies in it."""
    yield value
    inner: tuple[object, ...] = ()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = tuple(getattr(value, field.name, None) for field in dataclasses.fields(value))
    elif isinstance(value, dict):
        inner = (*value.keys(), *value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = tuple(value)
    for part in inner if depth < DEEPEST else ():
        yield from _parts(part, depth + 1)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    images = tmp_path / "coco2014" / "val2014"
    images.mkdir(parents=True)
    (tmp_path / "POPE").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(images / IMAGE)
    for split in SPLITS:
        rows = [
            {"question_id": number, "image": IMAGE, "text": f"Is there a {split} thing {number}?", "label": "no"}
            for number in (1, 2)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "POPE" / f"coco_pope_{split}.json").write_text(text)
    (benchmark,) = load_catalog().select("pope_test")
    task = Task(pipeline=select_pipeline(None, benchmark), batch_size_total=2, folder=tmp_path / "run")
    config = EvalConfig(SAVE_DIR=str(tmp_path), EVAL=RunConfig(REPORT=False, TIMEOUT_HOURS=1.0))
    return Plan(config=config, tasks=[task], roots=[tmp_path])


def follow(do: Callable[[], object], follower: Follower) -> None:
    before, before_threads = sys.getprofile(), threading.getprofile()
    threading.setprofile(follower)
    sys.setprofile(follower)
    try:
        do()
    finally:
        sys.setprofile(before)
        threading.setprofile(before_threads)


def test_a_question_crosses_few_files_and_shapes(plan: Plan) -> None:
    words = ("popular thing 2", "popular/2")
    others = tuple(w for s in SPLITS for n in (1, 2) for w in (f"{s} thing {n}", f"{s}/{n}") if w not in words)
    follower = Follower(words, others, until="summary")
    codes: list[Any] = []
    source = ToySource(ToyEngine())
    follow(lambda: codes.append(run_plan(plan, lambda _: source)), follower)
    listed = "\n".join(f"  {file}: {', '.join(sorted(names))}" for file, names in follower.files.items())
    sys.stdout.write(
        f"{len(follower.files)} files:\n{listed}\n{len(follower.shapes)} shapes: {', '.join(follower.shapes)}\n"
    )
    assert codes == [0] and len(source._engine.batches) == 3
    whole_way = {"Record", "Question", "Reply", "JournalEntry", "Score"}
    assert whole_way <= follower.shapes.keys()
    assert len(follower.files) <= MOST_FILES, listed
    assert len(follower.shapes) <= MOST_SHAPES, list(follower.shapes)
