"""What the command line says of itself: version, keys, list, and the help of every command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline.commands.cli import _build_parser, main
from pipeline.commands.keys import key_helps
from pipeline.commands.registry import COMMANDS
from trainer.cli import COMMANDS as TRAINING
from trainer.config import TrainSchema

MORE = (*COMMANDS, *TRAINING)
NAMES = list(_build_parser(MORE)[1])


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words), MORE) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_sentence_and_two_examples_that_parse(name: str) -> None:
    parser, own = _build_parser(MORE)
    text = own[name].format_help()
    examples = text.partition("examples:\n")[2].replace("\\\n", " ")
    lines = [line.partition("lbk_entry.py ")[2] for line in examples.splitlines() if "lbk_entry.py" in line]
    assert len(lines) >= 2 and own[name].description and (own[name].description or "").endswith(".")
    for line in lines:
        words = shlex.split(line.partition("    ")[0] if name == "ask" else line)
        assert words[0] == name
        parser.parse_args(words)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"], MORE)
    assert end.value.code == 0
    assert re.fullmatch(r"collavo \d+\.\d+\.\d+( \(commit [0-9a-f]{10}(-changed)?\))?\n", capsys.readouterr().out)


def test_every_key_is_explained() -> None:
    helps = list(key_helps(TrainSchema))
    assert len(helps) > 60
    assert [one.name for one in helps if not one.meaning] == []


def test_keys_by_prefix_with_the_value_here(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = shown(capsys, "keys", "llm.b", "--overrides", "LLM.BITS", "16")
    assert (
        out.startswith("LLM.BITS: one of 4, 8, 16, 32; ")
        and "default: 4; here: 16" in out
        and "NF4" in out
        and "DTYPE:" not in out
    )
    assert "POPE.TEST.NUM_BEAMS: " in shown(capsys, "keys", "POPE")
    assert "TRAIN.LR: " in shown(capsys, "keys")
    both = shown(capsys, "keys", "SAVE_DIR")
    assert "default: 'outputs/eval' (train: 'outputs/train')\n" in both and "train: folder of checkpoints" in both
    assert main(["keys", "LLM.BITZ"], MORE) == 2
    assert "no key begins with LLM.BITZ; did you mean LLM.BITS" in capsys.readouterr().err


def test_list_has_scorers_judges_own_benchmarks_and_sizes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text(
        "name: zoo\ndata: {file: zoo.jsonl}\nprompt: '{question}'\nscorer: exact_match\n", encoding="utf-8"
    )
    (tmp_path / "zoo.jsonl").write_text('{"id": "1", "question": "?", "answer": "a"}\n' * 1, encoding="utf-8")
    rows = {line.split()[0]: line.split() for line in shown(capsys, "list").splitlines() if line.strip()}
    assert rows["pope_test"][-2:] == ["yes_no", "no"] and rows["mm-vet"][-1] == "yes"
    given = ["--conf_files", str(tmp_path / "zoo.yaml"), "--overrides", "DATASETS.ROOT", str(tmp_path)]
    rows = {
        line.split()[0]: line.split() for line in shown(capsys, "list", "--sizes", *given).splitlines() if line.strip()
    }
    assert rows["zoo"][-3:] == ["1", "exact_match", "no"]
    assert rows["pope_test"][-3] == "-"
