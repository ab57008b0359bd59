"""One process from files to results: what is written, what is asked again, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.plan import run_plan
from pipeline.runtime import provenance as about
from tests.predicted import predicted
from tests.robustness.toy import ToyEngine, ToySource, expected_text, make_data, make_plan


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_data(tmp_path / "data")
    return tmp_path / "data"


def run(data: Path, save: Path, source: ToySource | None = None, **options: Any) -> int:
    source = source or ToySource(ToyEngine())
    return run_plan(make_plan(data, save, **options), lambda _: source)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def results(save: Path) -> dict[str, Any]:
    return json.loads((save / "toy_test" / "results.json").read_text())


def test_predictions_are_the_engines_replies_in_data_order(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "run") == 0
    asked = lines(data / "toy.jsonl")
    written = lines(tmp_path / "run" / "toy_test" / "predictions.jsonl")
    assert [row["id"] for row in written] == [row["id"] for row in asked]
    for row, question in zip(written, asked, strict=True):
        image = data / question["image"] if question["image"] else None
        text = expected_text(image, question["question"] + "\nAnswer briefly.")
        even = int(text[0], 16) % 2 == 0
        assert row.pop("seconds") >= 0
        assert row == {
            "id": question["id"],
            "image": question["image"],
            "question": question["question"],
            "prompt": f"<{question['question']}\nAnswer briefly.>",
            "text": text,
            "extracted": text[0],
            "target": None,
            "score": float(even),
            "verdict": "right" if even else "wrong",
            "judge": [],
            "group": "",
            "finished": True,
            "error": None,
        }


def test_results_say_where_versions_differ_from_those_tried(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(about, "tried_versions", lambda: {"torch": "0.1", "numpy": about.versions()["numpy"]})
    assert run(data, tmp_path / "run") == 0
    assert results(tmp_path / "run")["tried_versions"] == {"torch": "0.1"}
    line = f"versions other than those tried: torch {about.versions()['torch']} (tried: 0.1)"
    assert f"\n- {line}\n" in (tmp_path / "run" / "toy_test" / "results.md").read_text()
    assert capfd.readouterr().err.count(line) == 1
    monkeypatch.setattr(about, "tried_versions", lambda: {})
    assert run(data, tmp_path / "other") == 0
    assert results(tmp_path / "other")["tried_versions"] == {}
    assert "those tried" not in (tmp_path / "other" / "toy_test" / "results.md").read_text() + capfd.readouterr().err


def test_results_hold_scores_counts_and_what_they_depend_on(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    folder = tmp_path / "run" / "toy_test"
    scores = [row["score"] for row in lines(folder / "predictions.jsonl")]
    found = results(tmp_path / "run")
    assert found["scores"] == {"all": {"even": pytest.approx(sum(scores) / 60)}}
    distinct = {(row["image"], row["question"]) for row in lines(data / "toy.jsonl")}
    assert found["counts"] | {"images": 0} == {
        "records": 60,
        "answered": 60,
        "scored": 60,
        "withheld": 0,
        "distinct_questions": len(distinct),
        "images": 0,
        "bad_records": 0,
        "errors": 0,
        "no_answer": 0,
        "empty": 0,
        "unscored": 0,
        "unfinished": 0,
    }
    assert found["processes"] == 1 and found["devices"] == ["cpu"] and "torch" in found["versions"]
    assert found["generated_tokens"] == 3 * len(distinct) and found["answered_this_session"] == len(distinct)
    table = list(csv.DictReader((folder / "results.csv").open()))
    assert [(row["name"], float(row["value"])) for row in table] == [("even", pytest.approx(sum(scores) / 60))]
    assert "| all | even | " in (folder / "results.md").read_text()
    assert (folder / "config.yaml").read_text() == "NAME: toy\n"
    assert json.loads((folder / "run.json").read_text())["fingerprint"] == found["fingerprint"]


def test_a_question_is_asked_once_and_journaled_for_each_record(data: Path, tmp_path: Path) -> None:
    engine = ToyEngine()
    run(data, tmp_path / "run", ToySource(engine))
    distinct = {(row["image"], row["question"]) for row in lines(data / "toy.jsonl")}
    assert len(distinct) < 60 and sum(len(batch) for batch in engine.batches) == len(distinct)
    (journal,) = (tmp_path / "run" / "toy_test" / "journal").glob("*.jsonl")
    assert sorted(row["id"] for row in lines(journal)) == sorted(f"r{number}" for number in range(60))
    assert all(row["seconds"] >= 0 and "extracted" not in row for row in lines(journal))


@pytest.mark.parametrize(("size", "workers"), [(1, 0), (3, 1), (64, 4)])
def test_batch_size_and_workers_do_not_matter(data: Path, tmp_path: Path, size: int, workers: int) -> None:
    run(data, tmp_path / "one")
    run(data, tmp_path / "two", batch_size_total=size, WORKERS=workers)
    one, two = (tmp_path / name / "toy_test" / "predictions.jsonl" for name in ("one", "two"))
    assert predicted(one) == predicted(two)


def test_a_finished_run_loads_no_model_and_writes_the_same(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    file = tmp_path / "run" / "toy_test" / "predictions.jsonl"
    before = file.read_bytes()
    file.unlink()
    source = ToySource(ToyEngine())
    assert run(data, tmp_path / "run", source) == 0
    assert source.loads == 0 and file.read_bytes() == before
    assert results(tmp_path / "run")["answered_this_session"] == 0


def test_a_broken_image_is_counted_and_tried_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (data / "3.png").read_bytes()
    (data / "3.png").write_bytes(whole[: len(whole) // 2])
    (data / "5.png").rename(data / "away.png")
    assert run(data, tmp_path / "run") == 0
    hit = [row["id"] for row in lines(data / "toy.jsonl") if row["image"] in ("3.png", "5.png")]
    found = results(tmp_path / "run")
    assert hit and [error["id"] for error in found["errors"]] == hit
    assert all("3.png" in error["reason"] or "5.png" in error["reason"] for error in found["errors"])
    assert found["counts"]["errors"] == len(hit) and found["counts"]["answered"] == 60 - len(hit)
    assert found["metrics"][0]["num"] == 60 - len(hit)
    rows = [row for row in lines(tmp_path / "run" / "toy_test" / "predictions.jsonl") if row["id"] in hit]
    assert all(row["text"] is None and row["score"] is None and row["error"] for row in rows)
    assert f"only {60 - len(hit)} of 60 records have an answer" in capsys.readouterr().err

    (data / "3.png").write_bytes(whole)
    (data / "away.png").rename(data / "5.png")
    engine = ToyEngine()
    run(data, tmp_path / "run", ToySource(engine))
    distinct = {(r["image"], r["question"]) for r in lines(data / "toy.jsonl") if r["image"] in ("3.png", "5.png")}
    assert sum(len(batch) for batch in engine.batches) == len(distinct)
    run(data, tmp_path / "clean")
    one, two = (tmp_path / name / "toy_test" / "predictions.jsonl" for name in ("run", "clean"))
    assert predicted(one) == predicted(two)


def test_a_run_that_can_ask_nothing_ends_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path / "data", num_images=30, num_records=300)
    for image in (tmp_path / "data").glob("*.png"):
        image.unlink()
    text = [line for line in (tmp_path / "data" / "toy.jsonl").read_text().splitlines() if "null" not in line]
    (tmp_path / "data" / "toy.jsonl").write_text("\n".join(text))
    assert run(tmp_path / "data", tmp_path / "run", batch_size_total=1) == 1
    assert "none of the first 100 questions has an answer; the last: " in capsys.readouterr().err


def broken_scores(monkeypatch: pytest.MonkeyPatch, images: set[str | None]) -> None:
    """Let the toy engine fail as an engine does whose scores are NaN for some images."""
    from collavo.errors import NonFiniteError

    answer = ToyEngine.answer

    def failing(self: ToyEngine, queries: Any, generation: Any) -> list[Any]:
        names = [None if query.image is None else query.image.name for query in queries]
        replies = answer(self, queries, generation)
        if not {*names} & images:
            return replies
        held = [None if name in images else reply for name, reply in zip(names, replies, strict=True)]
        raise NonFiniteError("the model's scores are not finite", held)

    monkeypatch.setattr(ToyEngine, "answer", failing)


def test_scores_that_are_not_finite_are_errors_of_their_own_questions(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "clean")
    clean = {row["id"]: row for row in predicted(tmp_path / "clean" / "toy_test" / "predictions.jsonl")}
    engine = ToyEngine()
    with monkeypatch.context() as broken:
        broken_scores(broken, {"2.png"})
        assert run(data, tmp_path / "run", ToySource(engine)) == 0
    hit = [row["id"] for row in lines(data / "toy.jsonl") if row["image"] == "2.png"]
    found = results(tmp_path / "run")
    assert hit and [error["id"] for error in found["errors"]] == hit
    assert {error["reason"] for error in found["errors"]} == {"the model's scores are not finite"}
    for row in predicted(tmp_path / "run" / "toy_test" / "predictions.jsonl"):
        assert row["text"] is None if row["id"] in hit else row == clean[row["id"]]
    assert sum(map(len, engine.batches)) == clean_questions(data), "nothing is asked twice"
    assert run(data, tmp_path / "run") == 0  # errors are tried again
    assert results(tmp_path / "run")["counts"]["errors"] == 0


def clean_questions(data: Path) -> int:
    return len({(row["image"], row["question"]) for row in lines(data / "toy.jsonl")})


def test_a_strict_run_ends_at_scores_that_are_not_finite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_scores(monkeypatch, {"2.png"})
    assert run(data, tmp_path / "run", STRICT=True) == 1
    first = next(row["id"] for row in lines(data / "toy.jsonl") if row["image"] == "2.png")
    said = capsys.readouterr().err
    assert f"error: {first}: the model's scores are not finite (EVAL.STRICT False" in said and "Traceback" not in said


@pytest.mark.parametrize("some", [False, True])
def test_a_run_without_most_answers_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], some: bool
) -> None:
    names: set[str | None] = {f"{number}.png" for number in range(1 if some else 0, 7)}
    broken_scores(monkeypatch, names if some else {None, *names})
    assert run(data, tmp_path / "run") == 1
    said, folder = capsys.readouterr().err, tmp_path / "run" / "toy_test"
    if some:
        assert "questions have no answer; the first: the model's scores" in said
        assert results(tmp_path / "run")["counts"]["answered"] > 0
    else:
        assert "none of its" in said and "nothing is scored; the model's scores are not finite" in said
        assert not (folder / "results.json").exists() and not (folder / "predictions.jsonl").exists()


def test_a_missing_map_fails_its_own_question_only(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling.segmenters.errors import SegmenterError

    answer = ToyEngine.answer

    def without_a_map(self: ToyEngine, queries: Any, generation: Any) -> list[Any]:
        if any(query.image is not None and query.image.name == "2.png" for query in queries):
            raise SegmenterError("2.png has no panoptic map")
        return answer(self, queries, generation)

    monkeypatch.setattr(ToyEngine, "answer", without_a_map)
    assert run(data, tmp_path / "run", batch_size_total=8) == 0
    hit = [row["id"] for row in lines(data / "toy.jsonl") if row["image"] == "2.png"]
    assert hit and results(tmp_path / "run")["errors"] == [
        {"id": name, "reason": "2.png has no panoptic map"} for name in hit
    ]
    assert run(data, tmp_path / "strict", batch_size_total=8, STRICT=True) == 1


def test_strict_ends_at_a_broken_image_and_keeps_the_answers(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "3.png").write_bytes(b"not an image")
    assert run(data, tmp_path / "run", STRICT=True, batch_size_total=1) == 1
    message = capsys.readouterr().err
    assert "3.png" in message and "EVAL.STRICT" in message and "Traceback" not in message
    assert not (tmp_path / "run" / "toy_test" / "results.json").exists()
    engine = ToyEngine()
    run(data, tmp_path / "run", ToySource(engine))
    distinct = {(row["image"], row["question"]) for row in lines(data / "toy.jsonl") if row["image"] != "3.png"}
    assert sum(len(batch) for batch in engine.batches) < len(distinct)


def test_a_bad_record_is_counted_or_strict(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (data / "toy.jsonl").read_text().splitlines(keepends=True)
    (data / "toy.jsonl").write_text("".join([*text[:5], '{"id": "half', "\n", *text[5:]]))
    assert run(data, tmp_path / "run") == 0
    assert results(tmp_path / "run")["bad_records"][0]["where"] == "toy.jsonl:6"
    assert "only 60 of 61 records have an answer: 1 could not be read" in capsys.readouterr().err
    assert run(data, tmp_path / "strict", STRICT=True) == 1
    assert "toy.jsonl:6" in capsys.readouterr().err


def test_an_engine_failure_names_the_question_and_leaves_a_log(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "run", ToySource(ToyEngine(poison="kind 4")), batch_size_total=1) == 1
    message = capsys.readouterr().err
    assert "ValueError while answering r" in message and "told to fail" in message and "Traceback" not in message
    log = (tmp_path / "run" / "toy_test" / "errors" / "process-0.log").read_text()
    assert "Traceback" in log and "told to fail" in log
    assert run(data, tmp_path / "run") == 0
    run(data, tmp_path / "clean")
    one, two = (tmp_path / name / "toy_test" / "predictions.jsonl" for name in ("run", "clean"))
    assert predicted(one) == predicted(two)


def test_another_engine_or_prompt_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, tmp_path / "run")
    before = (tmp_path / "run" / "toy_test" / "predictions.jsonl").read_bytes()
    assert run(data, tmp_path / "run", ToySource(ToyEngine(), bits=4), prompt="{question}") == 1
    message = capsys.readouterr().err
    assert "engine.bits: nothing -> 4" in message and "benchmark.prompt" in message and "Traceback" not in message
    assert (tmp_path / "run" / "toy_test" / "predictions.jsonl").read_bytes() == before


def test_continue_keeps_answers_of_the_same_question_and_says_so(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    engine = ToyEngine()
    assert run(data, tmp_path / "run", ToySource(engine, bits=4), ON_CHANGE="continue") == 0
    assert engine.batches == [] and results(tmp_path / "run")["changes"] == ["engine.bits: nothing -> 4"]
    assert "earlier configuration" in (tmp_path / "run" / "toy_test" / "results.md").read_text()
    assert run(data, tmp_path / "run", ToySource(engine, bits=4), ON_CHANGE="continue", prompt="{question}") == 0
    distinct = {(row["image"], row["question"]) for row in lines(data / "toy.jsonl")}
    assert sum(len(batch) for batch in engine.batches) == len(distinct)


def test_restart_asks_everything_again(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    engine = ToyEngine()
    assert run(data, tmp_path / "run", ToySource(engine, bits=4), ON_CHANGE="restart") == 0
    assert engine.batches and results(tmp_path / "run")["changes"] == []


def test_a_limit_asks_a_random_part_says_so_and_can_be_raised(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, folder = ToyEngine(), tmp_path / "run" / "toy_test"
    run(data, tmp_path / "run", ToySource(engine), LIMIT=7)
    drawn = [row["id"] for row in lines(folder / "predictions.jsonl")]
    whole = [row["id"] for row in lines(data / "toy.jsonl")]
    assert len(drawn) == 7 and drawn == [name for name in whole if name in drawn] and drawn != whole[:7]
    assert results(tmp_path / "run")["part"] == {"records": 7, "of": 60, "seed": 0}
    said = "a random 7 of 60 records"
    assert f"# Toy ({said})" in (folder / "results.md").read_text()
    assert [row["part"] for row in csv.DictReader((folder / "results.csv").open())] == [said]
    shown = capsys.readouterr()
    assert said in shown.out and said in shown.err

    run(data, tmp_path / "run", ToySource(engine), LIMIT=30)
    assert {*drawn} < {row["id"] for row in lines(folder / "predictions.jsonl")}
    run(data, tmp_path / "run", ToySource(engine))
    assert results(tmp_path / "run")["part"] is None
    assert "random" not in (folder / "results.md").read_text()
    assert [row["part"] for row in csv.DictReader((folder / "results.csv").open())] == [""]
    distinct = {(row["image"], row["question"]) for row in lines(data / "toy.jsonl")}
    assert sum(len(batch) for batch in engine.batches) == len(distinct)


def test_replies_that_never_end_are_warned_of(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ToyEngine.answer

    def endless(self: ToyEngine, queries: Any, generation: Any) -> list[Any]:
        from dataclasses import replace

        return [replace(reply, finished=False) for reply in answer(self, queries, generation)]

    monkeypatch.setattr(ToyEngine, "answer", endless)
    assert run(data, tmp_path / "run") == 0
    message = capsys.readouterr().err
    assert "32 of the first 32 replies did not end" in message and message.count("of the first") == 1
    assert "60 of 60 replies did not end within 5 tokens" in message


def test_missing_files_are_named_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert "toy.jsonl" in message and "Traceback" not in message


def test_the_run_says_what_it_is_about_to_do(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, tmp_path / "run")
    shown = capsys.readouterr()
    first = lines(data / "toy.jsonl")[0]["question"]
    assert "evaluating toy_test with 1 process" in shown.err and "60 records" in shown.err
    assert repr(first + "\nAnswer briefly.") in shown.err and "questions/s" in shown.err
    whole = f"<{first}\nAnswer briefly.>"
    assert f"first prompt:   {whole!r}" in shown.err
    assert shown.err.count("first reply:") == 1
    assert "predictions.jsonl" in shown.out and "even" in shown.out


@pytest.mark.slow
def test_offline_tracker(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert run(data, tmp_path / "run", wandb=True) == 0
    assert list((tmp_path / "run").glob("wandb/offline-run-*"))


def test_the_report_shows_every_record_with_its_image(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "run", REPORT=True) == 0
    index = tmp_path / "run" / "report" / "index.html"
    assert f"report:      {index}" in capsys.readouterr().out
    page = (index.parent / "toy_test.html").read_text()
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [record[0] for record in shown["records"]] == [row["id"] for row in lines(data / "toy.jsonl")]
    image = shown["fields"].index("image")
    assert [r[image] is None for r in shown["records"]] == [row["image"] is None for row in lines(data / "toy.jsonl")]
    assert len(shown["images"]) == len({row["image"] for row in lines(data / "toy.jsonl")} - {None})
    assert run(data, tmp_path / "without") == 0
    assert not (tmp_path / "without" / "report").exists()


def test_a_report_that_cannot_be_written_costs_nothing_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report").write_text("in the way")
    assert run(data, tmp_path / "run", REPORT=True) == 0
    assert "warning: the report could not be written" in capsys.readouterr().err
    assert results(tmp_path / "run")["counts"]["answered"] == 60
