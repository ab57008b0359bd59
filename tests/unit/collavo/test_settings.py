"""A checkpoint brings its crayon settings, template and segmenter; what contradicts them is refused unless forced."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from assets.tiny.random_checkpoint import make_tiny
from collavo.checkpoint.location import locate
from collavo.checkpoint.recorded import FILE
from collavo.checkpoint.settings import read_recorded, segmenter_record, settings_for, write_recorded
from collavo.errors import CheckpointError
from collavo.options import CrayonConfig, LLMConfig
from collavo.template import CHAT, DEMO
from configs.load import REPOSITORY
from modeling.segmenters.options import MASK2FORMER, SegmenterConfig

TINY = REPOSITORY / "assets" / "tiny"
SEGMENTER = {"NAME": "xdecoder", "PATH": "../segmenter", "THRESHOLD": 0.5, "SHORT_SIDE": 160}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A whole checkpoint that says nothing."""
    make_tiny(tmp_path / "whole", seed=0)
    return tmp_path / "whole"


def state(folder: Path, below: Path, crayon: object, **values: Any) -> Path:
    """What a training run left, as far as settings are concerned."""
    folder.mkdir()
    content = {
        "step": 1, "started_from": str(below), "stage": "cit", "adapters": [], "rank": 4, "alpha": 4, "crayon": "both",
        "settings": {} if crayon is None else {"CRAYON": crayon}, "version": 1, **values,
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(content))
    return folder


def test_the_shipped_model_brings_its_own() -> None:
    settings = settings_for(TINY / "collavo")
    assert (settings.crayon.OBJECT_LIST, settings.crayon.MAP_SCALE, settings.template) == (False, 14, CHAT)
    segmenter = settings.segmenter
    assert (segmenter.NAME, segmenter.THRESHOLD, segmenter.SHORT_SIDE) == ("xdecoder", 0.5, 160)
    assert Path(segmenter.PATH).resolve() == TINY / "segmenter"
    assert settings.notes == settings.forced == ()


@pytest.mark.parametrize("crayon", [[False, 14], {"OBJECT_LIST": False, "MAP_SCALE": 14}])
def test_both_forms_are_read(crayon: object, whole: Path, tmp_path: Path) -> None:
    recorded = read_recorded(state(tmp_path / "t", whole, crayon))
    assert (recorded.object_list, recorded.map_scale) == (False, 14)


def test_what_a_training_does_not_say_the_checkpoint_below_says(whole: Path, tmp_path: Path) -> None:
    write_recorded(whole, settings_for(whole, CrayonConfig(OBJECT_LIST=False, MAP_SCALE=3)))
    assert settings_for(whole).crayon == CrayonConfig(OBJECT_LIST=False, MAP_SCALE=3)
    assert settings_for(state(tmp_path / "t", whole, None)).crayon.MAP_SCALE == 3
    assert settings_for(state(tmp_path / "u", whole, [True, 2])).crayon.MAP_SCALE == 2


def test_a_checkpoint_that_says_nothing_is_asked_as_the_released_one_was(whole: Path) -> None:
    settings = settings_for(whole)
    assert settings.crayon == CrayonConfig(OBJECT_LIST=True, MAP_SCALE=1)
    assert (settings.segmenter.NAME, settings.segmenter.PATH) == ("mask2former", MASK2FORMER)
    assert settings.notes == ()
    other = settings_for(whole, CrayonConfig(MAP_SCALE=3))
    assert other.crayon.MAP_SCALE == 3
    assert "CRAYON.MAP_SCALE is 3; the checkpoint does not say" in other.notes[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"crayon": CrayonConfig(OBJECT_LIST=True)}, "CRAYON.OBJECT_LIST: True is asked for, False is what it was"),
        ({"crayon": CrayonConfig(MAP_SCALE=1)}, "CRAYON.MAP_SCALE: 1 is asked for, 14 is what it was trained with"),
        ({"template": DEMO}, "the template: demo is asked for, chat is"),
        ({"segmenter": SegmenterConfig(THRESHOLD=0.9)}, "SEGMENTER.THRESHOLD: 0.9 is asked for, 0.5 is"),
        ({"segmenter": SegmenterConfig(NAME="xdecoder", SHORT_SIDE=320)}, "SEGMENTER.SHORT_SIDE: 320 .* 160 is"),
    ],
)
def test_contradictions_are_refused_naming_both_and_can_be_forced(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        settings_for(TINY / "collavo", **asked)
    assert "state.json" in str(caught.value) and "CRAYON.FORCE True" in str(caught.value)
    crayon = asked.get("crayon", CrayonConfig())
    forced = settings_for(
        TINY / "collavo", **{**asked, "crayon": CrayonConfig(crayon.OBJECT_LIST, crayon.MAP_SCALE, FORCE=True)}
    )
    assert len(forced.forced) == len(forced.notes) == 1
    assert "instead of" in forced.forced[0]


def test_what_agrees_is_no_contradiction() -> None:
    crayon = CrayonConfig(OBJECT_LIST=False, MAP_SCALE=14, FORCE=True)
    same = SegmenterConfig(NAME="xdecoder", PATH=os.path.relpath(TINY / "segmenter"), SHORT_SIDE=160, BATCH_SIZE=16)
    settings = settings_for(TINY / "collavo", crayon, same, CHAT)
    assert settings.notes == settings.forced == ()
    assert (settings.segmenter.THRESHOLD, settings.segmenter.BATCH_SIZE) == (0.5, 16)


@pytest.mark.parametrize("other", [SegmenterConfig(NAME="none"), SegmenterConfig(NAME="precomputed", PATH="a.json")])
def test_another_segmenter_is_noted(other: SegmenterConfig) -> None:
    settings = settings_for(TINY / "collavo", None, other)
    assert settings.segmenter.NAME == other.NAME
    assert settings.segmenter.THRESHOLD is None
    assert settings.forced == ()
    assert "the model was trained with xdecoder" in settings.notes[0]


def test_what_is_recorded_comes_back(whole: Path, tmp_path: Path) -> None:
    crayon = CrayonConfig(OBJECT_LIST=False, MAP_SCALE=2)
    asked = SegmenterConfig(NAME="xdecoder", PATH=str(TINY / "segmenter"), THRESHOLD=0.4, CLASSES=["dog", "sky"])
    write_recorded(whole, settings_for(whole, crayon, asked, DEMO))
    settings = settings_for(whole)
    assert (settings.crayon, settings.template) == (crayon, DEMO)
    assert settings.segmenter == asked.resolved()
    assert segmenter_record(SegmenterConfig(NAME="precomputed", PATH="x")) is None
    content = json.loads((whole / FILE).read_text())
    assert content["CRAYON"] == {"OBJECT_LIST": False, "MAP_SCALE": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "CRAYON: Field required"),
        ({"CRAYON": {"OBJECT_LIST": "no", "MAP_SCALE": 1}}, "OBJECT_LIST"),
        ({"CRAYON": {"OBJECT_LIST": False, "MAP_SCALE": 10**9}}, "MAP_SCALE"),
        ({"CRAYON": [False, 1], "TEMPLATE": "vicuna"}, "TEMPLATE"),
        ({"CRAYON": [False, 1], "SEGMENTER": {"NAME": ""}}, "SEGMENTER.NAME"),
        ({"CRAYON": [False, 1], "NONSENSE": 1}, "NONSENSE"),
    ],
)
def test_malformed_settings_are_named(content: object, message: str, whole: Path) -> None:
    (whole / FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{FILE}: .*{message}|{FILE}: {message}"):
        settings_for(whole)


def test_the_four_ways_not_to_name_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints" / "step-00000007").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name, message in (
        ("nowhere", "RESUME_FROM: nowhere does not exist$"),
        (str(tmp_path / "no" / "where"), "does not exist$"),
        ("run/nowhere", "RESUME_FROM: run/nowhere does not exist$"),
        ("BK-Lee/CoLLaVO", "looks like a name on the Hugging Face hub.*hf download BK-Lee/CoLLaVO --local-dir DIR"),
        ("run", "run is no checkpoint: .* it holds checkpoints/step-00000007: name that"),
        ("file", "file is a file; a checkpoint is a directory"),
        ("a" * 5000, "does not exist$"),
        ("a\0b", "does not exist$"),
        ("/dev/null", "/dev/null is neither a file nor a directory"),
        ("~nosuchuser/x", "does not exist$"),
    ):
        with pytest.raises(CheckpointError, match=message):
            locate(name)


def test_the_identity_says_what_is_forced(whole: Path) -> None:
    from collavo.load_collavo import engine_identity

    write_recorded(whole, settings_for(whole, CrayonConfig(MAP_SCALE=2)))
    llm = LLMConfig(BITS=32, DTYPE="fp32")
    parts = []
    for crayon in (CrayonConfig(), CrayonConfig(MAP_SCALE=3, FORCE=True)):
        settings = settings_for(whole, crayon)
        parts.append(json.loads(engine_identity(llm, whole, weight=True, segmenter="s", settings=settings)))
    assert (parts[0]["map_scale"], parts[0]["forced"]) == (2, [])
    assert (parts[1]["map_scale"], parts[1]["forced"]) == (3, ["CRAYON.MAP_SCALE 3 instead of 2"])
