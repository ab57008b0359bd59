"""What ``score --predictions`` takes, what it says where there is nothing, and commands in messages that work."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.commands.cli import main
from tests.robustness.judge_server import raw, says, serving

DECLARED: dict[str, Any] = {"data": {"columns": {}}, "prompt": "{question}", "scorer": "exact_match"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results of two benchmarks, one of them judged, as a run leaves it."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COLLAVO_JUDGE_MODEL", "RANK"):
        monkeypatch.delenv(name, raising=False)
    Image.new("RGB", (8, 8)).save("a.png")
    declared = {}
    for name, scorer in (("plain", "exact_match"), ("judged", "graded")):
        declared[name] = DECLARED | {"scorer": scorer, "data": {"file": f"{name}.jsonl"}}
        rows = [{"id": str(n), "question": f"{n}?", "image": "a.png", "answer": "cat"} for n in range(12)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder = tmp_path / "out put" / name
        folder.mkdir(parents=True)
        lines = [{"id": row["id"], "prompt": "?", "text": "cat", "finished": True, "error": None} for row in rows]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "results.json").write_text(json.dumps({"dataset": name}))
    config = {
        "DATASETS": {"ROOT": "."},
        "JUDGE": {"USE": "auto", "BACKOFF": 0.01, "ATTEMPTS": 1},
        "BENCHMARKS": declared,
    }
    for name in declared:
        (tmp_path / "out put" / name / "config.yaml").write_text(json.dumps(config))
    return tmp_path / "out put"


def metrics(folder: Path) -> dict[str, Any]:
    """Of the newest scores, whoever decided."""
    file = max((folder / "score").rglob("results.json"), key=lambda found: found.stat().st_mtime_ns)
    content = json.loads(file.read_text())
    return content["scores"]["all"] | content["counts"]


def test_a_file_a_folder_and_a_whole_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "plain" / "predictions.jsonl", run / "plain", run):
        assert main(["score", "--predictions", str(path)]) == 0
        assert metrics(run / "plain")["accuracy"] == 1.0
        assert (run / "judged" / "score").exists() == (path == run)
        (run / "plain" / "score" / "results.json").unlink()
    assert main(["score", "plain", "--predictions", str(run)]) == 0
    assert metrics(run / "plain")["accuracy"] == 1.0
    assert main(["score", "--predictions", str(run / "plain"), "--against", str(run)]) == 0
    assert "difference" in json.loads((run / "plain" / "score" / "results.json").read_text())["paired"]


def test_one_benchmark_that_cannot_be_scored_keeps_no_other_from_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "judged" / "predictions.jsonl").write_text("nonsense\n")
    assert main(["score", "--predictions", str(run)]) == 1
    assert metrics(run / "plain")["accuracy"] == 1.0
    assert "judged/predictions.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predictions", "nothing.json"], "nothing.json: no such file"),
        (["--predictions", "out put/plian"], "no such file; did you mean plain?"),
        (["--predictions", "out put/plain/predictions.json"], "did you mean predictions.jsonl"),
        (["--predictions", "empty"], "empty: no predictions.jsonl in this folder"),
        (["nope", "--predictions", "out put"], "no answers to nope; it has: judged, plain"),
        (["--predictions", "out put", "--out", "x"], "--out is for one benchmark, but out put holds several"),
        (["--predictions", "out put/plain", "--verdicts", "v.jsonl"], "v.jsonl: no such file"),
        (["--predictions", "out put/plain", "--against", "b.jsonl"], "b.jsonl: no such file"),
        ([], "the following arguments are required: --predictions"),
        (["--predictions", "out put", "--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_mistakes_are_named_and_point_to_the_help(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    try:
        code = main(["score", *words])
    except SystemExit as end:
        code = int(end.code or 0)
    shown = capsys.readouterr()
    assert code == 2
    assert message in shown.err
    assert shown.err.endswith("Try: lbk_entry.py score --help\n")
    assert not shown.out


def test_what_is_not_scored_says_how_to_score_it_with_a_command_that_works(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "judged" / "score").mkdir()
    config = json.loads((run / "judged" / "config.yaml").read_text())
    config["JUDGE"]["USE"] = "never"
    (run / "judged" / "config.yaml").write_text(json.dumps(config))
    assert main(["score", "--predictions", str(run / "judged")]) == 0
    assert metrics(run / "judged")["unscored"] == 12
    said = capsys.readouterr().err
    assert "12 of 12 replies are unscored" in said
    assert "OPENAI_API_KEY" in said and "JUDGE.BASE_URL" in said and "score --help" not in said


def test_the_command_of_a_run_judges_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.results.join import warnings

    number = {
        "unscored": 12,
        "answered": 12,
        "errors": 0,
        "bad_records": 0,
        "withheld": 0,
        "unfinished": 0,
        "no_answer": 0,
    }
    results = {"counts": number, "judged": {"decided_by": "no judge"}, "asked": {}}
    (said,) = warnings(results, run / "judged")
    found = re.search(r"python lbk_entry.py (score .*)$", said)
    assert found is not None
    with serving() as server:
        server.reactions = [says("0.5")]
        monkeypatch.setenv("OPENAI_API_KEY", "secret-enough")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert main(shlex.split(found[1])) == 0
    assert metrics(run / "judged")["total"] == 50.0
    assert metrics(run / "judged")["unscored"] == 0


def test_verdicts_are_counted_not_requests(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for failing, said in ((False, "  12 of 12 verdicts\n"), (True, "  11 of 12 verdicts, 1 request without one\n")):
        with serving() as server:
            server.reactions = [says("ready"), *[says("0.5")] * 11, raw(400, b"{}") if failing else says("0.5")]
            judge = ["JUDGE.BASE_URL", server.url, "JUDGE.CONCURRENCY", "1", "JUDGE.CACHE", f"cache{failing}"]
            assert main(["score", "--predictions", str(run / "judged"), "--overrides", *judge]) == 0
        assert said in capsys.readouterr().err


def test_scores_say_what_the_run_was_forced_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held: dict[str, Any] = {"fingerprint": "f", "restarts": 0, "accepted": ["f.0"], "changes": ["llm: 4 -> 8 bit"]}
    held["parts"] = {"engine": {"forced": ["CRAYON.MAP_SCALE 7 instead of 14"]}}
    file = run / "plain" / "run.json"
    for content, forced in ((held, 1), ({**held, "parts": {"engine": []}}, 0), ([], 0)):
        file.write_text(json.dumps(content))
        assert main(["score", "--predictions", str(run / "plain")]) == 0
        page = (run / "plain" / "score" / "results.md").read_text()
        assert page.count("(CRAYON.FORCE): CRAYON.MAP") == forced
        assert capsys.readouterr().err.count("CRAYON.MAP_SCALE 7 instead of 14") == forced
        assert ("llm: 4 -" in page) == isinstance(content, dict)


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]", '{"judged": {"decided_by": 3}}', None])
def test_results_that_cannot_be_read_are_replaced(run: Path, content: str | None) -> None:
    """By newer ones: nobody can tell who decided them. None is a pipe, which is not waited for."""
    file = run / "plain" / "score" / "results.json"
    file.parent.mkdir()
    os.mkfifo(file) if content is None else file.write_text(content)
    assert main(["score", "--predictions", str(run / "plain")]) == 0
    assert metrics(run / "plain")["accuracy"] == 1.0
