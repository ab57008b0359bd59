"""Which checkpoints are compared with the published CoLLaVO-7B."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from assets.tiny.random_checkpoint import tiny_config
from collavo.checkpoint.published import has_published_sizes
from collavo.config import CoLLaVOConfig

ROOT = Path(__file__).resolve().parents[3]
RELEASED = {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 92544, "model_type": "internlm"}


@pytest.mark.parametrize(
    ("content", "published"),
    [
        (RELEASED, True),
        ({**RELEASED, "hidden_size": 6144, "num_hidden_layers": 48}, False),
        ({**RELEASED, "num_hidden_layers": 2}, False),
        ({"model_type": "collavo"}, True),
        ([], True),
    ],
)
def test_sizes_decide(content: Any, published: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert has_published_sizes(tmp_path) is published


def test_our_own_layout(tmp_path: Path) -> None:
    CoLLaVOConfig().save_pretrained(tmp_path / "whole")
    tiny_config(300, 299).save_pretrained(tmp_path / "tiny")
    assert has_published_sizes(tmp_path / "whole") and not has_published_sizes(tmp_path / "tiny")


def test_the_shipped_model_is_another_one_and_what_is_unreadable_says_so_elsewhere(tmp_path: Path) -> None:
    assert not has_published_sizes(ROOT / "assets" / "tiny" / "collavo")
    assert has_published_sizes(tmp_path / "nowhere")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert has_published_sizes(tmp_path)
