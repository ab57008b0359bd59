"""Scores of answers in files, and a judge's part in a run: what is used is said, and nothing is lost or paid twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets.evaluation.judges.options import JudgeConfig
from pipeline.base import BenchmarkPipeline
from pipeline.catalog import load_catalog
from pipeline.commands.cli import main
from pipeline.run.loading import Task
from pipeline.run.plan import run_plan
from tests.robustness.judge_server import Server, raw, refusal, says, serving
from tests.robustness.toy import ToyEngine, ToySource, make_plan

QUESTIONS = {
    "v1_0": {"question": "What is x?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]},
    "v1_1": {"question": "Which fruit?", "answer": "apple", "capability": ["rec"]},
    "v1_2": {"question": "Which colour?", "answer": "red", "capability": ["rec"]},
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small MM-Vet and answers to two of its questions, without any judge in the environment."""
    folder = tmp_path / "data" / "mm-vet"
    (folder / "images").mkdir(parents=True)
    content = {key: {"imagename": f"{key}.png", "imagesource": "made", **item} for key, item in QUESTIONS.items()}
    (folder / "mm-vet.json").write_text(json.dumps(content))
    for key in QUESTIONS:
        Image.new("RGB", (30, 20), "red").save(folder / "images" / f"{key}.png")
    (tmp_path / "answers.json").write_text(json.dumps({"v1_1": "an apple", "v1_2": "blue"}))
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COLLAVO_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def score(*words: str, dataset: str = "mm-vet", answers: str = "answers.json") -> int:
    return main(["score", dataset, "--predictions", answers, *words, "--overrides", "DATASETS.ROOT", "data"])


def results(folder: str | Path = "score") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return content


def judged() -> Path:
    """The one folder of a judge's results."""
    (folder,) = Path("score").glob("judge-*")
    return folder


def asking(server: Server, *more: str) -> list[str]:
    return ["--overrides", "DATASETS.ROOT", "data", "JUDGE.BASE_URL", server.url, "JUDGE.BACKOFF", "0.01", *more]


def test_without_a_judge_nothing_is_made_up(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score() == 0
    found = results()
    assert found["scores"]["all"]["total"] is None
    assert found["judged"] == {"decided_by": "no judge, and nothing decides without one: not scored"}
    assert "not scored" in capsys.readouterr().out


def test_a_judge_may_be_demanded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predictions", "answers.json", "--overrides", "DATASETS.ROOT", "data", "JUDGE.USE", "always"]
    assert main(["score", "mm-vet", *words]) == 2
    assert "environment variable OPENAI_API_KEY, or set JUDGE.BASE_URL" in capsys.readouterr().err


@pytest.mark.parametrize("rules", ["released", "official"])
def test_only_rules_that_ask_a_judge_demand_one(here: Path, capsys: pytest.CaptureFixture[str], rules: str) -> None:
    """The declaration as resolved says whether there is anything to ask, not the one in the file."""
    folder = here / "data" / "LLVisionQA-QBench"
    folder.mkdir(parents=True)
    item = {"img_path": "a.jpg", "question": "Is it dark?", "candidates": ["Yes", "No"], "correct_ans": "No", "type": 0}
    (folder / "llvisionqa_dev.json").write_text(json.dumps([{**item, "concern": 0}]))
    (here / "q.json").write_text(json.dumps({"0": "it is bright"}))
    words = ["score", "qbench_dev", "--predictions", "q.json", "--overrides", "DATASETS.ROOT", "data"]
    code = main([*words, "JUDGE.USE", "always", "SCORING", rules])
    assert code == (0 if rules == "released" else 2)
    assert ("JUDGE.BASE_URL" in capsys.readouterr().err) == (rules == "official")
    if rules == "released":
        assert results()["judged"] == {"decided_by": ""}
        (here / "v.json").write_text(json.dumps({"0": "B"}))
        assert main([*words[:4], "--verdicts", "v.json", *words[4:], "SCORING", "released"]) == 2
        assert "ask no judge" in capsys.readouterr().err


PROBLEM: dict[str, Any] = {
    **{"question": "How many?", "image": "images/1.jpg", "choices": None, "unit": None, "precision": None}
}
PROBLEM |= {"question_type": "free_form", "answer_type": "integer", "answer": "4", "metadata": {}}
REPLIES = {
    "1": {"response": "There are four of them, so 4.", "extraction": "4", "prediction": "9"},
    "2": {"response": "I see three dogs.", "extraction": "3"},
    "3": {"response": "Nobody knows.", "extraction": ""},  # as the official script, wrong and not unscored
}


def mathvista(here: Path, replies: dict[str, Any]) -> list[str]:
    folder = here / "data" / "MathVista"
    (folder / "data").mkdir(parents=True)
    problems = {key: {**PROBLEM, "pid": key} for key in replies}
    (folder / "data" / "testmini.json").write_text(json.dumps(problems))
    (folder / "data" / "query.json").write_text(json.dumps(dict.fromkeys(replies, "How many?")))
    (here / "output_bard.json").write_text(json.dumps({key: {**problems[key], **replies[key]} for key in replies}))
    return ["score", "mathvista_testmini", "--predictions", "output_bard.json"]


def test_mathvistas_own_result_files_bring_their_extractions(here: Path, server: Server) -> None:
    words = mathvista(here, REPLIES)
    assert main([*words, *asking(server, "JUDGE.USE", "always")]) == 0  # nothing is left to ask
    assert not server.seen
    (folder,) = Path("score").iterdir()  # as with other verdicts of a file
    assert folder.name.startswith("verdicts-of-output_bard.json")
    found = results(folder)
    assert found["scores"]["all"]["accuracy"] == pytest.approx(1 / 3)
    assert found["judged"]["decided_by"] == "what output_bard.json holds next to the replies"
    rows = [json.loads(line) for line in Path(folder, "predictions.jsonl").read_text().splitlines()]
    assert [(row["text"], row["score"]) for row in rows] == [
        (REPLIES[row["id"]]["response"], float(row["id"] == "1")) for row in rows
    ]


def test_what_such_a_file_lacks_is_asked_or_stays_unscored(here: Path, server: Server) -> None:
    words = mathvista(here, {**REPLIES, "4": {"response": "They are four.", "extraction": None}})
    assert main([*words, "--out", "alone", "--overrides", "DATASETS.ROOT", "data"]) == 0
    assert results("alone")["counts"]["unscored"] == 1
    server.reactions = [says("ready"), says("4")]
    assert main([*words, "--out", "asked", *asking(server)]) == 0
    assert len(server.seen) == 2  # the probe and one request
    found = results("asked")
    assert found["scores"]["all"]["accuracy"] == pytest.approx(2 / 4)
    assert found["judged"]["decided_by"].startswith("what output_bard.json holds next to the replies; judge: gpt")


def test_judging_a_file_and_doing_it_again(
    here: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.reactions = [says("ready"), says("1.0"), raw(503, b""), raw(200, b"{"), says("0.0")]
    words = ["score", "mm-vet", "--predictions", "answers.json"]
    prices = ["JUDGE.PRICE_INPUT", "10", "JUDGE.PRICE_OUTPUT", "50", "JUDGE.CONCURRENCY", "1"]
    assert main([*words, *asking(server, *prices)]) == 0
    found = results(judged())
    assert not Path("score/results.json").exists()
    assert found["scores"]["all"]["total"] == 50.0
    assert found["judged"]["decided_by"].startswith("judge: gpt-4-0613 at http://127.0.0.1")
    # the probe and two verdicts; what failed on the way sent no usable reply
    assert found["judged"]["usage"]["input_tokens"] == 200
    assert found["judged"]["usage"]["cost"] == pytest.approx(2 * (100 * 10 + 2 * 50) / 1e6)
    assert found["counts"]["unscored"] == 0
    assert "2 replies, 0 from the cache, 0 without a verdict" in capsys.readouterr().err
    verdicts = [json.loads(line) for line in (judged() / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["id"], row["verdict"]) for row in verdicts] == [("v1_1", "1.0"), ("v1_2", "0.0")]
    assert "secret" not in "".join(p.read_text() for p in here.rglob("*") if p.is_file() and p.suffix != ".png")
    sent = len(server.seen)
    assert main([*words, "--out", "again", *asking(server, *prices)]) == 0
    assert len(server.seen) == sent + 1  # the probe alone
    assert results("again")["scores"] == found["scores"]
    assert results("again")["judged"]["usage"]["cached"] == 2
    assert main([*words, "--out", "recorded", "--verdicts", str(judged() / "verdicts.jsonl")] + asking(server)[:3]) == 0
    assert len(server.seen) == sent + 1
    assert results("recorded")["scores"] == found["scores"]


def test_a_judge_that_fails_leaves_samples_unscored_and_says_so(
    here: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reactions = [says("ready"), says("1.0"), says("no idea")]
    more = asking(server, "JUDGE.CONCURRENCY", "1", "JUDGE.ATTEMPTS", "2")
    assert main(["score", "mm-vet", "--predictions", "answers.json", *more]) == 0
    found = results(judged())
    assert found["scores"]["all"]["total"] is None or found["metrics"][0]["num"] < 2
    assert [row["id"] for row in found["judged"]["without_verdict"]] == ["v1_2"]
    shown = capsys.readouterr().err
    assert "the judge gave no verdict on 1 requests" in shown
    assert "no idea" in shown


def test_a_judge_that_refuses_the_key_stops_before_anything_is_scored(
    here: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reactions = [refusal(401)]
    assert main(["score", "mm-vet", "--predictions", "answers.json", *asking(server)]) == 2
    assert "is the key right?" in capsys.readouterr().err
    assert not Path("score").exists()


def plan_of(here: Path, save: Path, judge: JudgeConfig | None) -> Any:
    pipeline = BenchmarkPipeline(load_catalog().benchmarks["mm-vet"])
    task = Task(pipeline=pipeline, batch_size_total=2, folder=save / "mm-vet")
    return replace(make_plan(here / "data", save), tasks=[task], judge=judge)


def test_a_run_reaches_its_judge_before_it_asks_the_model(here: Path, server: Server) -> None:
    server.reactions = [refusal(401)]
    source = ToySource(ToyEngine())
    options = JudgeConfig(BASE_URL=server.url, CACHE=str(here / "cache"))
    assert run_plan(plan_of(here, here / "run", options), lambda _: source) == 1
    assert source.loads == 0


def test_a_run_is_judged_and_can_be_judged_later(here: Path, server: Server) -> None:
    server.reactions = [says("ready"), says("0.5")]
    options = JudgeConfig(BASE_URL=server.url, CACHE=str(here / "cache"))
    assert run_plan(plan_of(here, here / "run", options), lambda _: ToySource(ToyEngine())) == 0
    judged = results(here / "run" / "mm-vet")
    assert judged["scores"]["all"]["total"] == pytest.approx(50.0)
    assert run_plan(plan_of(here, here / "plain", None), lambda _: ToySource(ToyEngine())) == 0
    plain = here / "plain" / "mm-vet"
    assert results(plain)["scores"]["all"]["total"] is None
    (plain / "config.yaml").write_text("DATASETS: {ROOT: data}\nEVAL: {LIMIT: 2}\n")
    words = ["score", "--predictions", str(plain / "predictions.jsonl"), "--overrides", "JUDGE.BASE_URL", server.url]
    assert main(words) == 0  # the benchmark and where its files lie follow from the run's own folder
    (folder,) = (plain / "score").glob("judge-*")
    again = results(folder)
    assert again["scores"]["all"]["total"] == judged["scores"]["all"]["total"]
    assert again["counts"]["records"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds no answers"),
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"id": "v1_1", "text": "a"}\n{"id": ', "line 2: not JSON"),
        ('[{"text": "x"}]', "entry 1: expected an object with an id under one of id, question_id"),
        ('[{"id": "v1_1"}]', "entry 1: expected the model's text"),
        ('[{"id": "v1_1", "text": "a"}, {"id": "v1_1", "text": "b"}]', "entry 2: a second answer to v1_1"),
        ('{"q9": "x"}', "none of its ids (q9) is one of the benchmark's, which are like v1_0, v1_1, v1_2"),
        ('[{"id": "v1_1", "text": null, "error": "not finite"}]', "records has a text; the first: "),
        ('{"v1_1": ["x"]}', "answers.json, v1_1: expected the model's text"),
    ],
)
def test_files_of_answers_are_explained(
    here: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("answers.json").write_text(content)
    assert score() == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        '[{"question_id": "v1_1", "answer": "x"}, {"question_id": "v1_2", "answer": null}]',
        '{"id": "v1_1", "prompt": "p", "text": "x", "error": null}\n{"id": "v1_2", "text": null, "error": "gone"}\n',
        '{"v1_1": {"response": "x", "answer": "apple"}, "v1_2": null}',
    ],
)
def test_forms_of_answers(here: Path, content: str) -> None:
    Path("answers.json").write_text(content)
    assert score() == 0
    rows = [json.loads(line) for line in Path("score/predictions.jsonl").read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == [("v1_0", None), ("v1_1", "x"), ("v1_2", None)]
    assert results()["counts"]["answered"] == 1


def test_a_file_without_a_benchmark_is_explained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--predictions", "answers.json"]) == 2
    assert "Name it: lbk_entry.py score pope_test --predictions answers.json" in capsys.readouterr().err


def test_two_runs_are_compared_question_by_question(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "data" / "POPE"
    folder.mkdir()
    rows = [{"question_id": n, "image": f"{n // 2}.jpg", "text": f"Is {n}?", "label": "yes"} for n in range(8)]
    for split in ("random", "popular", "adversarial"):
        (folder / f"coco_pope_{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, right in (("a", {0, 1, 2, 3, 4}), ("b", {0, 1, 5})):
        said = {f"random/{n}": "Yes" if n in right else "No" for n in range(8) if name == "a" or n < 7}
        (here / f"{name}.json").write_text(json.dumps(said))
    words = ["score", "pope_test", "--predictions", "a.json", "--against", "b.json", "--overrides"]
    assert main([*words, "DATASETS.ROOT", "data"]) == 0
    found = results()["paired"]
    assert (found["questions"], found["first_better"], found["second_better"]) == (7, 3, 1)
    assert found["difference"] == pytest.approx(2 / 7)
    assert "on 7 questions: +28.57 points of credit" in capsys.readouterr().out


def test_results_are_kept_by_judge(here: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", "mm-vet", "--predictions", "answers.json"]
    totals: dict[str, Any] = {}
    for model, grade in (("first", "1.0"), ("second/one", "0.5")):
        server.reactions = [says("ready"), says(grade)]
        assert main([*words, *asking(server, "JUDGE.MODEL", model)]) == 0
        found = {str(path) for path in Path("score").glob("judge-*/results.json")}
        (new,) = found - totals.keys()
        totals[new] = float(grade) * 100
        assert new in capsys.readouterr().out
    assert score() == 0
    assert results()["scores"]["all"]["total"] is None
    for file, total in totals.items():
        assert json.loads(Path(file).read_text())["scores"]["all"]["total"] == total
    assert main([*words, "--out", "mine", *asking(server, "JUDGE.MODEL", "first")]) == 0
    capsys.readouterr()
    assert score("--out", "mine") == 2
    assert "holds results that were decided by first at http://127.0.0.1" in capsys.readouterr().err
    assert results("mine")["scores"]["all"]["total"] == 100.0
    recorded = str(judged_by("first") / "verdicts.jsonl")
    assert score("--verdicts", recorded) == 0
    (folder,) = Path("score").glob("verdicts-of-verdicts.jsonl-*")
    assert results(folder)["scores"]["all"]["total"] == 100.0
    assert results(judged_by("second"))["scores"]["all"]["total"] == 50.0


def judged_by(model: str) -> Path:
    (folder,) = Path("score").glob(f"judge-{model}*")
    return folder


def test_a_run_again_without_its_judge_keeps_what_the_judge_decided(
    here: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reactions = [says("ready"), says("0.5")]
    options = JudgeConfig(BASE_URL=server.url, CACHE=str(here / "cache"))
    for judge in (options, None, options):
        assert run_plan(plan_of(here, here / "run", judge), lambda _: ToySource(ToyEngine())) == 0
        if judge is None:
            assert results(here / "run" / "mm-vet")["scores"]["all"]["total"] is None
            (kept,) = (here / "run" / "mm-vet").glob("judge-gpt-4-0613-*")
            assert f"are kept in {kept}" in capsys.readouterr().err
            assert results(kept)["scores"]["all"]["total"] == pytest.approx(50.0)
            assert (kept / "verdicts.jsonl").is_file()
    assert results(here / "run" / "mm-vet")["scores"]["all"]["total"] == pytest.approx(50.0)
    assert results(here / "run" / "mm-vet" / "rules")["scores"]["all"]["total"] is None
