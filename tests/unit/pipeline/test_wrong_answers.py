"""The sample of wrong answers that trackers get: which records, with which images, and nothing that is markup."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datasets.types import ImageGroup, ImageSource
from pipeline.results.browse.prediction import FAULTS, Prediction
from pipeline.results.browse.wrong_answers import COLUMNS, LONGEST_CELL, WrongAnswer, log_wrong_answers, wrong_answers
from tests.hostile_run import HOSTILE, MadeImage, hostile_run


class Unreadable:
    """An image that is not there."""

    name = "gone.jpg"

    def read(self) -> bytes:
        raise FileNotFoundError("gone.jpg")


@dataclass
class Table:
    """What `wandb.Table` is given."""

    columns: list[str]
    data: list[list[Any]]


@dataclass
class Tracker:
    """A tracker of Accelerate, which keeps what it is given."""

    name: str
    tracker: Any = None
    kept: list[tuple[dict[str, Any], int | None]] = field(default_factory=list)

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.kept.append((values, step))


def size(one: WrongAnswer) -> tuple[int, int]:
    image = one.decoded()
    assert image is not None
    return image.size


def sample(num: int = 7) -> list[WrongAnswer]:
    run, sights = hostile_run(120)
    return wrong_answers(run.predictions, sights.images, num)


def test_faults_are_chosen_evenly_with_their_thumbnails() -> None:
    run, sights = hostile_run(120)
    found = wrong_answers(run.predictions, sights.images, 7)
    places = [int(one.texts["id"][1:]) for one in found]
    assert len(found) == 7 and all(one.texts["verdict"] in FAULTS for one in found)
    assert places == sorted(places) and places[0] < 10 and places[-1] > 90
    assert {size(one) for one in found} == {(256, 171)}
    assert len(wrong_answers(run.predictions, sights.images, 1000)) == 90
    assert wrong_answers([Prediction(id="a", text="x", verdict="right")], {}, 5) == []


def test_records_of_no_image_several_or_an_unreadable_one() -> None:
    images: dict[str, ImageSource] = {
        "two": ImageGroup(sources=(MadeImage("a"), MadeImage("b", 9))),
        "gone": Unreadable(),
    }
    rows = [Prediction(id=name, text="x" * 100_000, verdict="wrong") for name in ("two", "gone", "text only")]
    two, gone, text = wrong_answers(rows, images, 3)
    assert size(two) == (512, 171)
    assert gone.image is None and text.image is None
    assert len(two.texts["reply"]) < LONGEST_CELL + 50


def test_weights_and_biases_gets_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Table=Table, Image=lambda image: ("image", image.size)))
    tracker = Tracker("wandb")
    log_wrong_answers([tracker], "zoo", sample(), 40)
    ((values, step),) = tracker.kept
    table = values["wrong/zoo"]
    assert step == 40 and list(values) == ["wrong/zoo"] and table.columns == list(COLUMNS) and len(table.data) == 7
    assert {row[COLUMNS.index("image")] for row in table.data} == {("image", (256, 171))}
    replies = [row[COLUMNS.index("reply")] for row in table.data]
    assert all(reply.isprintable() for reply in replies)
    assert any(reply.startswith("(no reply) failed: ") for reply in replies)


def test_without_faults_or_trackers_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    tracker = Tracker("wandb")
    log_wrong_answers([tracker], "zoo", [], None)
    log_wrong_answers([Tracker("another")], "zoo", sample(), None)
    log_wrong_answers([], "zoo", sample(), None)
    assert tracker.kept == []


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_gets_an_image_and_a_text_each(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    found = sample(len(HOSTILE) + 1)
    writer = SummaryWriter(str(tmp_path))
    log_wrong_answers([Tracker("tensorboard", writer)], "zoo", found, 40)
    held = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "images": 0}).Reload()
    tags = [f"wrong/zoo/{number:03d}" for number in range(1, len(found) + 1)]
    assert held.Tags()["images"] == tags and held.Tags()["tensors"] == [f"{tag}/text_summary" for tag in tags]
    for tag, one in zip(tags, found, strict=True):
        (image,) = held.Images(tag)
        assert (image.step, image.width, image.height) == (40, *size(one))
        (text,) = held.Tensors(f"{tag}/text_summary")
        words = text.tensor_proto.string_val[0].decode()
        assert text.step == 40 and "| id | " in words and "<" not in words
        assert len(words.splitlines()) == 2 + len(COLUMNS) - 1
