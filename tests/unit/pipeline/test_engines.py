"""The engine that a configuration describes: examined first, asked as it was trained, loaded with one bar."""

from pathlib import Path

import pytest
import torch

from assets.tiny.random_checkpoint import make_tiny
from collavo.errors import CheckpointError
from configs.load import REPOSITORY
from modeling.segmenters.xdecoder.segmenter import XDecoderSegmenter
from pipeline.config import read_configuration
from pipeline.models.configured_engine import ConfiguredEngine

TINY = str(REPOSITORY / "assets" / "tiny" / "collavo")


def engine_of(*overrides: object) -> ConfiguredEngine:
    words = ["LLM.BITS", "32", "LLM.DTYPE", "fp32", *map(str, overrides)]
    config, _ = read_configuration([], words)
    return ConfiguredEngine(config, torch.device("cpu"))


def test_the_shipped_model_needs_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Without them its answers would be unreadable: the list of objects in words, on maps of the tokens' size."""
    source = engine_of("RESUME_FROM", TINY)
    parts = source.parts()
    assert (parts["object_list"], parts["map_scale"], parts["template"], parts["forced"]) == (False, 14, "chat", [])
    assert isinstance(source.segmenter(), XDecoderSegmenter)
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
