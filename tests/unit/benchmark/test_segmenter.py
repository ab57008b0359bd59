"""The segmenter's benchmark counts what it says, and both ways of segmenting give the same maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling.segmenters.options import SegmenterConfig
from modeling.segmenters.xdecoder.checkpoint import save_model
from modeling.segmenters.xdecoder.text import TextEncoder
from tests.benchmark import segmenter
from tests.benchmark.segmenter import TINY, counted, draw, measure, report
from tests.unit.segmenters.tiny_xdecoder import CONFIG, save_tiny_xdecoder, tiny_xdecoder

CPU = torch.device("cpu")
TEMPLATES = 81


def test_passes_and_prompts_are_counted_and_maps_are_equal(tmp_path: Path) -> None:
    save_model(tmp_path, tiny_xdecoder())
    settings = TINY | {"SHORT_SIDE": 32, "CLASSES": ["dog", "sky"]}
    config = SegmenterConfig(NAME="xdecoder", PATH=str(tmp_path), BATCH_SIZE=3, **settings)
    figures = measure(config, draw([(40, 60), (60, 40)], 7), CPU, repeat=1)
    assert figures.encoded == figures.prompts == 3 * TEMPLATES  # the background too
    assert figures.encoded_later == 0
    assert (figures.single.passes, figures.batched.passes) == (7, 3)  # 4 lying ones in two passes, 3 standing in one
    assert figures.equal == 7
    assert any(panoptic.segments for panoptic in figures.batched.maps)
    assert "maps equal: 7 of 7" in report(figures)
    assert "each of 243 prompts read 1 x while building, 0 x while segmenting" in report(figures)


def test_every_row_of_a_call_counts() -> None:
    encoder = TextEncoder(CONFIG.text, 4)
    with counted(TextEncoder) as rows:
        encoder(torch.zeros(3, 2, dtype=torch.int64))
        encoder(torch.zeros(5, 2, dtype=torch.int64))
    encoder(torch.zeros(7, 2, dtype=torch.int64))
    assert rows == [3, 5]


def test_the_command_takes_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--path", str(save_tiny_xdecoder(tmp_path)), "--sizes", "32x48", "--images", "3", "--short-side", "32"]
    monkeypatch.setattr("sys.argv", ["segmenter", *given, "--batch", "2"])
    assert segmenter.main() == 0
    shown = capsys.readouterr().out
    assert "3 images of 32x48, 2 in a pass, cpu" in shown
    assert "maps equal: 3 of 3" in shown
    assert "0 x (embeddings lie by the checkpoint) while building, 0 x while segmenting" in shown
