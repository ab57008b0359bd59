"""What the command line says of itself: version, keys, list, and the help of every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.commands.cli import build_parser, main
from pipeline.commands.keys import key_helps
from pipeline.commands.registry import COMMANDS
from tests import documents
from trainer.cli import COMMANDS as TRAINING
from trainer.config import TrainSchema

MORE = (*COMMANDS, *TRAINING)
MINE = "name: mine\ndata: {file: mine.jsonl}\nprompt: '{question}'\nscorer: exact_match\n"
NAMES = list(build_parser(MORE)[1])


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words), MORE) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_a_sentence_options_in_groups_and_two_examples_that_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = build_parser(MORE)[1][name].format_help()
    sentence = text.split("\n\n")[1]
    assert re.fullmatch(r"[A-Z][a-z]+ .*\.", sentence, re.DOTALL)
    ungrouped = text.partition("\noptions:\n")[2].partition("\n\n")[0]
    assert re.findall(r"--[\w-]+", ungrouped) == ["--help"]
    documents.make_workspace(tmp_path, ())
    (tmp_path / "my_benchmark.yaml").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    examples = documents.split(text.partition("examples:\n")[2], f"{name} --help")
    assert len(examples) >= 2
    for example in examples:
        documents.check(example)
        assert example.words[example.words.index("lbk_entry.py") + 1] == name


def test_the_examples_of_the_program_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.make_workspace(tmp_path, ())
    monkeypatch.chdir(tmp_path)
    text = build_parser(MORE)[0].format_help().partition("examples:\n")[2]
    for example in documents.split(text.partition("\n\n")[0], "--help"):
        documents.check(example)


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
