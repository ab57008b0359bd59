"""Titles, groups, names and replies that would steer a terminal, a page or a spreadsheet are shown as what they are."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from pipeline.commands.cli import main
from pipeline.results.report import aligned, csv_table, markdown, pipe_table
from pipeline.results.summary import SummaryColumn, show_summary
from pipeline.runtime.console import tell
from tests.robustness.judge_server import Server, completion, serving

HOSTILE = "\x1b[31m\r\n# x\u202e|`y` <script>alert(1)</script> [z](javascript:1) **b** \x9b"
FORMULA = "=cmd|' /C calc'!A0"
LONG = "L" * 100_000
DECLARED = {
    "name": "zoo",
    "title": HOSTILE,
    "source": HOSTILE,
    "data": {"file": "zoo.jsonl", "answer": "yes_no", "columns": {"group": "kind"}},
    "prompt": "{question}" + HOSTILE,
    "scorer": "yes_no",
}
KINDS = (HOSTILE, FORMULA, LONG)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of hostile texts, with answers in a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COLLAVO_JUDGE_MODEL", "RANK"):
        monkeypatch.delenv(name, raising=False)
    rows = [
        {"id": f"{number}{kind}", "question": f"Is it?{kind}", "image": "a.png", "answer": "yes", "kind": kind}
        for number, kind in enumerate(KINDS)
    ]
    rows.append({"id": HOSTILE, "question": "Is it?", "image": f"../{HOSTILE}", "answer": "yes", "kind": LONG})
    Image.new("RGB", (8, 8)).save("a.png")
    Path("zoo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("zoo.yaml").write_text(json.dumps(DECLARED))
    Path("answers.json").write_text(json.dumps({row["id"]: f"Yes {HOSTILE}" for row in rows} | {HOSTILE * 2: "no"}))
    return tmp_path


def assert_harmless(text: str) -> None:
    unseen = {c for c in text if unicodedata.category(c) in ("Cc", "Cs") or c in "\u202e\u2066"} - {"\n"}
    assert not unseen
    assert max(map(len, text.split("\n"))) < 3000
    assert not re.search(r"^# x", text, re.MULTILINE)


def assert_no_markup(page: str) -> None:
    assert_harmless(page)
    assert "<script" not in page and "[z](" not in page and "**b" not in page
    rows = [line for line in page.split("\n") if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 2  # of the figures, and of published ones
    assert not re.search(r"(?<!\\)`y", page)


def assert_no_formula(file: Path) -> None:
    with file.open(newline="") as stream:
        rows = list(csv.reader(stream))
    for cell in (cell for row in rows for cell in row):
        assert cell[:1] not in ("=", "+", "-", "@") or re.fullmatch(r"[+-]?\d[\d.e+-]*", cell), cell
        assert not {c for c in cell if unicodedata.category(c) in ("Cc", "Cs")}


def test_score(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--conf_files", "zoo.yaml", "--overrides", "DATASETS.ROOT", "."]
    assert main(["score", "zoo", "--predictions", "answers.json", *words]) == 0
    shown = capsys.readouterr()
    assert_harmless(shown.out)
    assert_harmless(shown.err)
    assert "<script>" in shown.out
    assert_no_markup(Path("score/results.md").read_text())
    assert_no_formula(Path("score/results.csv"))
    kept = json.loads(Path("score/results.json").read_text())
    assert kept["title"] == HOSTILE
    assert set(KINDS) <= set(kept["scores"])
    predicted = [json.loads(line) for line in Path("score/predictions.jsonl").read_text().splitlines()]
    assert {row["text"] for row in predicted} == {f"Yes {HOSTILE}"}


def test_validate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "zoo", "--conf_files", "zoo.yaml", "--overrides", "DATASETS.ROOT", "."]) == 1
    shown = capsys.readouterr()
    assert_harmless(shown.out + shown.err)
    assert "MALFORMED" in shown.out


def test_messages_about_values(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value of the user's that is refused is named, harmlessly and shortly."""
    for words in (
        ["score", HOSTILE, "--predictions", "answers.json"],
        ["score", "zoo", "--predictions", HOSTILE],
        ["score", "zoo", "--predictions", "answers.json", "--verdicts", HOSTILE],
        ["score", "zoo", "--predictions", "answers.json", HOSTILE, LONG],
        ["validate", LONG],
        [HOSTILE],
        [LONG],
        ["eval", "--overrides", LONG, "1"],
        ["eval", "--overrides", "NAME", LONG, "DATASETS.TEST", LONG],
        ["eval", "--conf_files", HOSTILE],
    ):
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        assert code == 2, words
        assert shown.err.startswith("error: ")
        assert_harmless(shown.out + shown.err)


def test_a_judge_whose_name_is_hostile(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = DECLARED | {"scorer": "graded", "data": {"file": "zoo.jsonl", "columns": {"group": "kind"}}}
    Path("zoo.yaml").write_text(json.dumps(declared))

    def react(handler: object, body: object) -> None:
        content = json.loads(completion(f"0.5 {HOSTILE}")) | {"model": f"{HOSTILE}{LONG}"}
        handler.send(200, json.dumps(content).encode())  # type: ignore[attr-defined]

    def fails(handler: object, body: object) -> None:
        error = {"message": f"{HOSTILE}{LONG}"}
        handler.send(400, json.dumps({"error": error}).encode())  # type: ignore[attr-defined]

    with serving() as server:
        for number, reactions in enumerate(([react], [react, fails])):
            server.reactions = list(reactions)
            assert score_judged(server, f"cache{number}") == 0
            shown = capsys.readouterr()
            assert_harmless(shown.out)
            assert_harmless(shown.err)
            for page in Path("score").rglob("results.md"):
                assert_no_markup(page.read_text())
            assert list(Path("score").rglob("results.md"))


def score_judged(server: Server, cache: str) -> int:
    judge = ["JUDGE.BASE_URL", server.url, "JUDGE.ATTEMPTS", "1", "JUDGE.CACHE", cache]
    words = ["--conf_files", "zoo.yaml", "--overrides", "DATASETS.ROOT", ".", *judge]
    return main(["score", "zoo", "--predictions", "answers.json", *words])


def test_tables_of_hostile_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in KINDS:
        assert len(aligned([("a", "b"), (cell, "1")]).split("\n")) == 3
        assert_harmless(aligned([("a", "b"), (cell, "1")]))
        assert len(pipe_table(("a", "b"), [(cell, "1")])) == 3
        assert_no_markup("\n".join(pipe_table(("a", "b", "c", "d", "e"), [(cell, "1", "2", "3", "4")])))
    metric = {
        "group": FORMULA,
        "name": "accuracy",
        "value": -0.5,
        "num": 1,
        "stderr": None,
        "low": None,
        "high": None,
        "kind": "rate",
    }
    (tmp_path / "t.csv").write_text(csv_table([metric]))
    assert_no_formula(tmp_path / "t.csv")
    assert "-0.5" in csv_table([metric])
    assert SummaryColumn(title=HOSTILE, published="1", ours="2").cells[0] == HOSTILE


def test_the_summary(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--conf_files", "zoo.yaml", "--overrides", "DATASETS.ROOT", "."]
    assert main(["score", "zoo", "--predictions", "answers.json", *words]) == 0
    capsys.readouterr()
    results = json.loads(Path("score/results.json").read_text())
    row = {"metric": "x", "title": FORMULA, "published": 1.0, "got": 0.5, "difference": -0.5, "within": False}
    expected = [{**row, "tolerance": 0.1, "source": HOSTILE}]
    show_summary(
        [results | {"expected": expected}, results], {"other": f"not there: {HOSTILE}{LONG}"}, {"third": HOSTILE}, here
    )
    assert_harmless(capsys.readouterr().out)
    page = Path("summary.md").read_text()
    assert_harmless(page)
    assert "<script" not in page and "[z](" not in page
    assert_no_formula(Path("summary.csv"))
    assert "-0.5" in Path("summary.csv").read_text()
    assert "# " + "x" not in markdown(results, here).split("\n")[1:]


def test_an_output_that_lacks_characters_gets_escapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        tell("中 é\n")
    assert (tmp_path / "out").read_text() == "\\u4e2d \\xe9\n"
