"""The engine that a configuration describes: examined first, asked as it was trained, loaded with one bar."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.tiny.random_checkpoint import make_tiny
from collavo.errors import CheckpointError
from collavo.load_collavo import load_engine
from configs.load import REPOSITORY
from datasets.types import Score
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap
from modeling.segmenters.none import NoSegmenter
from modeling.segmenters.xdecoder.segmenter import XDecoderSegmenter
from pipeline.config import EvalConfig, read_configuration
from pipeline.models.collavo import CoLLaVOSource
from pipeline.models.map_cache import CachedSegmenter
from pipeline.run.plan import run_plan
from pipeline.runtime.errors import RunError
from tests.limits import LIMIT
from tests.robustness.toy import ToyEngine, ToyPipeline, ToySource, make_data, make_plan

TINY = str(REPOSITORY / "assets" / "tiny" / "collavo")


SLOW = ("RESUME_FROM", TINY, "CRAYON.FORCE", True, "SEGMENTER.NAME", "none")


class Plain:
    """A source that loads nothing ahead."""

    def __init__(self, source: CoLLaVOSource) -> None:
        self.parts, self.weights = source.parts, source.weights
        self.engine, self.segmenter = source.engine, source.segmenter


def engine_of(*overrides: object) -> CoLLaVOSource:
    words = ["LLM.BITS", "32", "LLM.DTYPE", "fp32", *map(str, overrides)]
    config, _ = read_configuration([], words, EvalConfig)
    return CoLLaVOSource(config, torch.device("cpu"))


def test_the_shipped_model_needs_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Without them its answers would be unreadable: the list of objects in words, on maps of the tokens' size."""
    source = engine_of("RESUME_FROM", TINY)
    parts = source.parts()
    assert (parts["object_list"], parts["map_scale"], parts["template"], parts["forced"]) == (False, 14, "chat", [])
    cached = source.segmenter()
    assert isinstance(cached, CachedSegmenter) and isinstance(cached.segmenter, XDecoderSegmenter)
    same = engine_of(
        *("RESUME_FROM", TINY, "CRAYON.OBJECT_LIST", False, "CRAYON.MAP_SCALE", 14, "SEGMENTER.NAME", "xdecoder"),
        *("SEGMENTER.PATH", REPOSITORY / "assets/tiny/segmenter", "SEGMENTER.SHORT_SIDE", 160),
        *("SEGMENTER.THRESHOLD", 0.5),
    )
    assert same.parts() == parts
    engine = source.engine()
    assert (engine.crayon.OBJECT_LIST, engine.crayon.MAP_SCALE) == (False, 14)
    said = capsys.readouterr().err
    assert said.count("loading weights") == said.count("(100 %)") == 1
    assert "warning" not in said


def test_what_contradicts_it_is_refused_or_forced_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("RESUME_FROM", TINY, "SEGMENTER.NAME", "none", "CRAYON.MAP_SCALE", 1)
    with pytest.raises(CheckpointError, match="MAP_SCALE: 1 is asked for, 14 is what it was trained with"):
        engine_of(*asked).parts()
    source = engine_of(*asked, "CRAYON.FORCE", True)
    parts = source.parts()
    assert (parts["map_scale"], parts["forced"]) == (1, ["CRAYON.MAP_SCALE 1 instead of 14"])
    source.parts()
    said = capsys.readouterr().err
    assert said.count("warning: CRAYON.FORCE: the model is asked with CRAYON.MAP_SCALE 1 instead of 14") == 1


def test_a_tokenizer_that_does_not_fit_is_said_before_the_segmenter_is_built(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny", seed=0)
    file = tmp_path / "tiny" / "preprocessor_config.json"
    file.write_text(file.read_text().replace("112", "126"))
    source = engine_of("RESUME_FROM", tmp_path / "tiny", "SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", "nowhere")
    with pytest.raises(CheckpointError, match="makes images of 126 px"):
        source.parts()


@pytest.mark.slow
def test_an_engine_is_loaded_in_a_thread_while_other_things_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    source, alone = engine_of("RESUME_FROM", TINY), engine_of("RESUME_FROM", TINY)
    with source.loading_ahead():
        assert source.parts() == alone.parts() and source.weights() == ""
        assert isinstance(source.segmenter(), CachedSegmenter)
        engine = source.engine()
        assert source.engine() is engine
    assert source.engine() is engine and not [thread for thread in threading.enumerate() if "load" in thread.name]
    ours, theirs = engine.model.state_dict(), alone.engine().model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    said = capsys.readouterr().err
    assert said.count("for the weights on each process") == said.count("model ready after") == 1


def test_what_is_wrong_is_raised_where_it_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    source = engine_of("RESUME_FROM", TINY, "SEGMENTER.NAME", "none", "CRAYON.MAP_SCALE", 1)
    with source.loading_ahead():
        for need in (source.parts, source.engine, source.segmenter):
            with pytest.raises(CheckpointError, match="MAP_SCALE: 1 is asked for, 14 is what it was trained with"):
                need()
    assert "Traceback" not in capsys.readouterr().err


def test_a_weight_that_is_no_number_is_raised_by_engine(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny", seed=0)
    file = next((tmp_path / "tiny").glob("*.safetensors"))
    tensors = load_file(file)
    name = next(name for name in tensors if "vision" in name or "vit" in name)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    source = engine_of("RESUME_FROM", tmp_path / "tiny", "SEGMENTER.NAME", "none")
    with source.loading_ahead():
        source.parts()
        with pytest.raises(CheckpointError, match="NaN"):
            source.engine()


class Slow(NoSegmenter):
    """Finds nothing; notes the names of images, and the default type while it computes."""

    fingerprint = "slow"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.types: set[torch.dtype] = set()
        self.begun = threading.Event()

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        self.seen += [image.name for image in images]
        self.types.add(torch.get_default_dtype())
        self.begun.set()
        return super().segment(images, size)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """What every configured source segments with; any reply is right."""
    segmenter = Slow()
    monkeypatch.setattr(ToyPipeline, "score", lambda *_: Score(value=1.0, extracted=""))
    monkeypatch.setattr("pipeline.models.map_cache.cached_segmenter", lambda *_: segmenter)
    return segmenter


def texts(folder: Path) -> list[tuple[str, str, float]]:
    """Replies and margins in a run's journal, by id."""
    lines = [
        line for file in (folder / "toy_test" / "journal").glob("*.jsonl") for line in file.read_text().splitlines()
    ]
    return sorted((entry["id"], entry["text"], entry["margin"]) for entry in map(json.loads, lines))


@pytest.mark.slow
def test_first_images_are_segmented_while_the_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Slow, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights wait here until an image has been segmented; nothing of it is paid again, and replies are equal."""
    make_data(tmp_path / "data", num_records=20)
    assert run_plan(make_plan(tmp_path / "data", tmp_path / "plain"), lambda _: Plain(engine_of(*SLOW))) == 0
    plain, once = texts(tmp_path / "plain"), sorted(slow.seen)
    slow.seen.clear()
    slow.begun.clear()
    held: list[bool] = []
    capsys.readouterr()

    def waits(*given: Any, progress: Callable[[int, int], None], **more: Any) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)  # as transformers does while it makes a model
        held.append(slow.begun.wait(0.3))
        torch.set_default_dtype(before)
        progress(1, 2)
        held.append(slow.begun.wait(LIMIT))
        return load_engine(*given, progress=progress, **more)

    monkeypatch.setattr("collavo.load_collavo.load_engine", waits)
    assert run_plan(make_plan(tmp_path / "data", tmp_path / "ahead"), lambda _: engine_of(*SLOW)) == 0
    assert held == [False, True], "not while the model is made, and before its weights are read"
    assert slow.types == {torch.float32}
    assert sorted(slow.seen) == once
    assert texts(tmp_path / "ahead") == plain
    assert capsys.readouterr().err.count("model ready after") == 1


def test_what_is_wrong_with_weights_ends_a_run_once_though_images_have_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Slow, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: Any, progress: Callable[[int, int], None], **more: Any) -> Any:
        progress(1, 2)
        assert slow.begun.wait(LIMIT)
        raise CheckpointError("model.safetensors: vision_tower.weight has NaN")

    make_data(tmp_path / "data")
    monkeypatch.setattr("collavo.load_collavo.load_engine", fails)
    assert run_plan(make_plan(tmp_path / "data", tmp_path / "run"), lambda _: engine_of(*SLOW)) == 1
    said = capsys.readouterr().err
    assert said.count("vision_tower.weight has NaN") == 1 and "Traceback" not in said
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("load")]


def test_a_run_that_ends_does_not_wait_for_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, steps = threading.Event(), []

    def endless(*given: object, progress: Callable[[int, int], None], **more: object) -> None:
        while True:
            begun.set()
            steps.append(1)
            progress(1, 2)

    monkeypatch.setattr("collavo.load_collavo.load_engine", endless)
    source = engine_of("RESUME_FROM", TINY)
    with pytest.raises(RunError, match="the data are missing"), source.loading_ahead():
        assert begun.wait(LIMIT)
        raise RunError("the data are missing")
    done = len(steps)
    assert done and not [thread for thread in threading.enumerate() if "load" in thread.name]


def test_a_run_without_results_loads_ahead_and_a_finished_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[bool] = []

    class Ahead(ToySource):
        @contextmanager
        def loading_ahead(self) -> Iterator[None]:
            ahead.append(True)
            yield

        engine_ahead = ToySource.engine

    make_data(tmp_path / "data")
    for _ in range(2):
        assert run_plan(make_plan(tmp_path / "data", tmp_path / "run"), lambda _: Ahead(ToyEngine())) == 0
    assert ahead == [True]
