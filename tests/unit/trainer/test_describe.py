"""The tables of ``describe``: what they show, of which model, and what is said of what they cannot show."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from assets.tiny.random_checkpoint import make_tiny
from collavo.checkpoint.finetuned_checkpoint import use_base
from collavo.checkpoint.names import fingerprint
from configs.load import REPOSITORY
from pipeline.commands.cli import main
from tests.unit.collavo.test_xcomposer2 import as_base, base_weights, write_base
from tests.unit.segmenters.tiny_mask2former import save_tiny_mask2former
from trainer.cli import COMMANDS

TINY = REPOSITORY / "assets" / "tiny"
BASE = str(TINY / "base")
pytestmark = pytest.mark.slow  # whole models


def table(capsys: pytest.CaptureFixture[str], *overrides: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    code = main(["describe", *options, "--overrides", *overrides], COMMANDS)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def numbers(text: str, part: str) -> list[int]:
    line = next(line for line in text.splitlines() if line.startswith(part))
    return [int(cell.replace(",", "")) for cell in re.findall(r"\s([\d,]+)(?=\s|$)", line)]


def test_columns_add_up_and_stages_train_what_they_train(capsys: pytest.CaptureFixture[str]) -> None:
    shared = ("RESUME_FROM", BASE, "SEGMENTER.NAME", "none", "LORA.R", "4")
    code, cpt, _ = table(capsys, *shared)
    assert code == 0 and "adapter" not in cpt
    _, cit, _ = table(capsys, *shared, "TRAIN.STAGE", "cit")
    prompt = sum(numbers(cpt, part)[1] for part in ("crayon prompt, queries", "crayon prompt, PLoRA"))
    assert numbers(cpt, "total")[1] == prompt > 0
    adapters = sum(numbers(cit, f"adapter {name}")[0] for name in ("image_cit", "vl_cit"))
    assert numbers(cit, "total")[1] == prompt + adapters
    assert numbers(cit, "total")[0] == numbers(cpt, "total")[0] + adapters
    for text in (cpt, cit):
        parts = text.split("\n\n")[1].splitlines()[1:-1]
        rows = [numbers(text, line.split("  ")[0]) for line in parts]
        assert [sum(column) for column in zip(*rows, strict=True)] == numbers(text, "total")
        assert "operators that are not counted: none" in text and "segmenter none: has no network" in text


def test_parts_ranks_and_targets_count(capsys: pytest.CaptureFixture[str]) -> None:
    shared = ("RESUME_FROM", BASE, "SEGMENTER.NAME", "none", "LORA.R", "4")
    _, cpt, _ = table(capsys, *shared)
    projector = numbers(cpt, "projector")[0]
    _, both, _ = table(capsys, *shared, "TRAIN.PARTS", "[queries, projector]")
    assert numbers(both, "projector")[:2] == [projector, projector]
    assert numbers(both, "total")[1] == numbers(cpt, "total")[1] + projector
    _, alone, _ = table(capsys, *shared, "TRAIN.PARTS", "[projector]")
    assert numbers(alone, "total")[1] == projector
    cit = (*shared, "TRAIN.STAGE", "cit", "TRAIN.CRAYON", "none", "TRAIN.PARTS", "[]")
    _, usual, _ = table(capsys, *cit)
    _, other, _ = table(capsys, *cit, "LORA.RANKS", "{vl_cit: 8}")
    adapters = [[numbers(text, f"adapter {name}")[1] for name in ("image_cit", "vl_cit")] for text in (usual, other)]
    assert adapters[1] == [adapters[0][0], 2 * adapters[0][1]]
    found = [numbers(table(capsys, *cit, "LORA.TARGETS", t)[1], "total")[1] for t in ("[wo]", "[wqkv, w1, w2, w3]")]
    assert all(found) and sum(found) == numbers(usual, "total")[1] == sum(adapters[0])


def test_a_base_without_a_crayon_prompt_is_described_with_the_fresh_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As training makes it; InternLM-XComposer2-VL has none."""
    checkpoint, base = tmp_path / "tiny", tmp_path / "base"
    make_tiny(checkpoint, 0)
    as_base(checkpoint, base)
    write_base(base, base_weights(load_file(checkpoint / "model.safetensors")))
    shown = [table(capsys, "RESUME_FROM", str(folder), "SEGMENTER.NAME", "none") for folder in (checkpoint, base)]
    assert [code for code, *_ in shown] == [0, 0], shown[1]
    whole, bare = (text.split("\n\n", 1)[1] for _, text, _ in shown)
    assert whole == bare and numbers(bare, "crayon prompt, queries")[0] > 0


def test_a_base_that_has_moved_is_taken_from_where_it_is_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(TINY / "collavo", tmp_path / "left")
    state = json.loads((TINY / "collavo" / "state.json").read_text())
    state["settings"]["foundation"] = fingerprint(TINY / "base")  # the one that is shipped has half-precision weights
    (tmp_path / "left" / "state.json").write_text(json.dumps(state))
    words = ("RESUME_FROM", str(tmp_path / "left"), "SEGMENTER.NAME", "none")
    code, _, said = table(capsys, *words)
    assert code == 2 and "BASE" in said
    try:
        code, said, _ = table(capsys, *words, "BASE", BASE)
    finally:
        use_base(None)
    assert code == 0 and numbers(said, "adapter vl_cit")


def test_an_xdecoder_is_described_and_its_settings_count(capsys: pytest.CaptureFixture[str]) -> None:
    segmenter = ("SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", str(REPOSITORY / "assets/tiny/segmenter"))
    _, small, _ = table(capsys, "RESUME_FROM", BASE, *segmenter, "SEGMENTER.SHORT_SIDE", "64")
    _, large, _ = table(capsys, "RESUME_FROM", BASE, *segmenter, "SEGMENTER.SHORT_SIDE", "128")
    assert "an image of 64 x 64 pixels" in small and "an image of 128 x 128 pixels" in large
    before, after = numbers(small, "backbone"), numbers(large, "backbone")
    assert before[0] == after[0] and after[1] == 4 * before[1]  # convolutions and linears of every position


def test_a_mask2former_is_counted_on_the_cpu_and_said_to_be_on_meta(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = ("SEGMENTER.NAME", "mask2former", "SEGMENTER.PATH", str(save_tiny_mask2former(tmp_path)))
    _, meta, _ = table(capsys, "RESUME_FROM", BASE, *segmenter)
    assert "FLOPs are not counted" in meta and "--device cpu counts them" in meta
    _, cpu, _ = table(capsys, "RESUME_FROM", BASE, *segmenter, options=("--device", "cpu"))
    tables = [text[text.index("segmenter mask2former") :] for text in (meta, cpu)]
    assert numbers(tables[0], "total") == numbers(tables[1], "total")[:1]
    assert numbers(tables[1], "total")[1] > 0 and "operators that are not counted: none" in tables[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("SEGMENTER.NAME", "detectron2", "SEGMENTER.PATH", "x.pkl"), "not described: SEGMENTER.NAME detectron2"),
        (("SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", "gone.pt"), "not described: SEGMENTER.PATH: gone.pt"),
        (("SEGMENTER.NAME", "mask2former", "SEGMENTER.PATH", "gone"), "not described: SEGMENTER.PATH: gone"),
    ],
)
def test_a_segmenter_that_cannot_be_described_is_said_and_the_model_is_described(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = table(capsys, "RESUME_FROM", BASE, *words)
    assert code == 0 and message in said and numbers(said, "total")


def test_mistakes_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = table(capsys, "RESUME_FROM", "nowhere")
    assert (code, said) == (2, "error: RESUME_FROM: nowhere does not exist\n")
    with pytest.raises(SystemExit):
        table(capsys, options=("--text-tokens", "0"))
    assert "'0' is no whole number from 1" in capsys.readouterr().err
