"""``ask`` on a photograph of odd size, and the Python blocks of the pages, on a tiny model with random weights."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.tiny.random_checkpoint import make_tiny
from collavo import CoLLaVO
from configs.common.escape import terminal_lines
from pipeline.commands import ask, loaded_model
from pipeline.commands.cli import main
from pipeline.commands.registry import COMMANDS
from tests import documents
from tests.e2e.test_entry import entry


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that names its segmenter."""
    folder = tmp_path_factory.mktemp("ask")
    make_tiny(folder / "tiny", seed=0)
    CoLLaVO.from_pretrained(folder / "tiny", bits=32, segmenter="none", device="cpu").save_pretrained(folder / "named")
    return folder / "named"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (77, 301, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "dog.png")
    return tmp_path / "dog.png"


def asked(checkpoint: Path, *words: object) -> int:
    settings = ["--overrides", "RESUME_FROM", str(checkpoint), "LLM.BITS", "32", "LLM.DTYPE", "fp32"]
    return main(["ask", *map(str, words), "--max-new-tokens", "12", *settings], COMMANDS)


def test_replies_are_streamed_written_as_json_and_read_from_standard_input(
    checkpoint: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    questions = ["What is this?", "How many?"]
    assert asked(checkpoint, photo, *questions, "--json", "--map", tmp_path / "map.png") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["question"] for row in rows] == questions and rows[0]["prompt"].count(questions[0]) == 1
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.size[0] > 301
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(questions) + "\n\n"))
    assert asked(checkpoint, photo) == 0
    shown = capsys.readouterr()
    assert shown.out == "".join(f"{terminal_lines(row['reply'])}\n" for row in rows)
    assert shown.err.count("cut at 12 tokens") == sum(not row["finished"] for row in rows)


def test_mistakes_are_named_before_torch_is_loaded(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for words, message in (
        ([tmp_path / "nowhere.jpg", "x"], "nowhere.jpg: no such file"),
        ([tmp_path / "text.jpg", "x"], "text.jpg: cannot be read as an image"),
        ([photo, "x", "--top-p", "0"], "--top-p must be above 0"),
        ([photo, "x", "--temperature", "nan"], "--temperature must be 0 or more"),
        ([photo, "x", "--temperature", "1", "--num-beams", "3"], "--temperature goes with --num-beams 1"),
        ([photo, "x", "--map", "map.xyz"], "--map: "),
        ([photo, "x", "--overrides", "RESUME_FROM", "/nowhere"], "RESUME_FROM: /nowhere does not exist"),
    ):
        done = entry("ask", *words)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_without_a_checkpoint_the_tiny_model_is_chosen() -> None:
    chosen = loaded_model.choose_model([], [])
    assert chosen.tiny and Path(chosen.config.RESUME_FROM).is_absolute()
    assert "the tiny CoLLaVO of assets/tiny" in loaded_model.TINY_NOTE
    assert ask.ASK.examples.count("lbk_entry.py ask") == 3


@pytest.mark.parametrize("kind", ["hf", "endpoint"])
def test_another_kind_of_model_is_not_answered_for(kind: str, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ask", str(photo), "What is this?"], ["demo", "--port", "0"]):
        assert main([*words, "--overrides", "MODEL.NAME", kind], COMMANDS) == 2
        shown = capsys.readouterr()
        assert f"MODEL.NAME: only CoLLaVO is talked to; {kind} answers benchmarks" in shown.err and not shown.out


def test_the_python_of_the_pages_runs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (90, 60), "white").save("dog.jpg")
    blocks = [one for page in documents.PAGES for one in documents.blocks(page) if one.language == "python"]
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block.text.replace("/path/to/CoLLaVO", str(checkpoint)), block.page, "exec"), {})  # noqa: S102
    assert (tmp_path / "my_collavo" / "config.json").is_file() and capsys.readouterr().out
