"""Tables that once ended in 0.00 or in a KeyError after every question was asked: scored, or refused before that."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from PIL import Image

from datasets.declaration import Benchmark
from pipeline.base import BenchmarkPipeline
from pipeline.commands.cli import main
from pipeline.declaration_file import parse_declaration
from pipeline.run.loading import Task, load_tasks
from pipeline.run.plan import run_plan
from pipeline.runtime.options import RunConfig
from pipeline.runtime.session import Session
from tests.robustness.toy import ToyEngine, ToySource, make_plan


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COLLAVO_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def table(name: str, rows: list[dict[str, Any]], scorer: Any, **data: Any) -> Benchmark:
    """Declare a benchmark over these rows, as ``<name>.yaml`` and ``data/<name>.jsonl``."""
    Path("data").mkdir(exist_ok=True)
    Path(f"data/{name}.jsonl").write_text("".join(json.dumps({"question": "Is it?", **row}) + "\n" for row in rows))
    values = {"data": {"file": f"{name}.jsonl", **data}, "prompt": "{question}", "scorer": scorer}
    Path(f"{name}.yaml").write_text(json.dumps(values))
    return parse_declaration({"name": name, **values}, f"{name}.yaml")


def command(word: str, name: str, *more: str) -> int:
    return main([word, name, *more, "--conf_files", f"{name}.yaml", "--overrides", "DATASETS.ROOT", "data"])


def scored(name: str, replies: list[str]) -> dict[str, Any]:
    """The results of these replies to a table's rows, through the command."""
    Path("replies.json").write_text(json.dumps({str(n): reply for n, reply in enumerate(replies)}))
    assert command("score", name, "--predictions", "replies.json") == 0
    found: dict[str, Any] = json.loads(Path("score/results.json").read_text())
    return found


def run(here: Path, *benchmarks: Benchmark, optional: bool = False) -> tuple[int, ToyEngine]:
    """A run over benchmarks with an engine that notes what it is asked."""
    engine = ToyEngine()
    tasks = [
        Task(pipeline=BenchmarkPipeline(b), batch_size_total=2, folder=here / "out" / b.dataset, optional=optional)
        for b in benchmarks
    ]
    plan = replace(make_plan(here / "data", here / "out"), tasks=tasks)
    return run_plan(plan, lambda _: ToySource(engine)), engine


@pytest.mark.parametrize("labels", [["Yes", "No"], ["YES", "NO"], ["True", "False"], ["1", "0"], [1, 0], [True, False]])
def test_labels_of_yes_and_no(here: Path, labels: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    table("zoo", [{"answer": label} for label in labels], "yes_no")
    assert command("validate", "zoo") == 0
    shown = capsys.readouterr().out
    assert "scored 2 records with their own targets: 100.0; empty replies: 50.0 (its rule finds an answer" in shown
    assert scored("zoo", ["Yes", "No"])["scores"]["all"]["accuracy"] == 1.0


@pytest.mark.parametrize("scorer", ["relaxed", "exact_match"])
def test_lists_in_texts_beside_plain_ones(here: Path, scorer: str) -> None:
    table("kit", [{"answer": answer} for answer in ("['14']", "14", '["cat", "tom"]', ["cat"], 14)], scorer)
    assert scored("kit", ["14", "14", "tom", "Cat", "14"])["scores"]["all"]["accuracy"] == 1.0


LACKING = [
    ("circular", {"A": "x", "B": "y", "answer": "B"}, "lacks question, pass"),
    ("mme", {"answer": "Yes"}, "lacks pair"),
    ("hallusion", {"answer": "1", "category": "VD"}, "lacks subcategory, set_id, figure_id"),
    ("gqa", {"answer": "cat"}, "lacks structural"),
    ("mathvista", {"answer": "3"}, "lacks question_type, answer_type"),
    ("choice", {"answer": "cat"}, "has no options to choose from"),
    ("vqa_accuracy", {"answer": "cat"}, "list of several people's answers"),
    ("yes_no", {"answer": "present"}, "'answer' should be yes or no, got 'present'"),
    ("grounding", {"answer": "[1, 2, 3, 4]"}, "has neither width and height"),
    ("{kind: per_class, rule: yes_no}", {"answer": "yes"}, "lacks class"),
]


@pytest.mark.parametrize(("scorer", "row", "why"), LACKING, ids=[scorer for scorer, _, _ in LACKING])
def test_what_cannot_be_scored_is_not_asked_and_keeps_nothing_else_from_it(
    here: Path, scorer: str, row: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = {"kind": "per_class", "rule": "yes_no"} if scorer.startswith("{") else scorer
    bad, good = table("bad", [row, row], kind), table("good", [{"answer": "Yes"}], "yes_no")
    assert command("validate", "bad") == 1
    assert "UNSCORABLE: benchmark bad cannot be scored" in (shown := capsys.readouterr().out) and why in shown
    Path("replies.json").write_text('{"0": "x"}')
    assert command("score", "bad", "--predictions", "replies.json") == 2
    assert why in (shown := capsys.readouterr().err) and "bad.jsonl, line 1: " in shown and "Traceback" not in shown

    code, engine = run(here, bad)
    assert (code, engine.batches) == (1, [])
    assert why in (shown := capsys.readouterr().err) and "Traceback" not in shown

    code, engine = run(here, bad, good)
    both = capsys.readouterr()
    assert (code, engine.batches) == (1, [["Is it?"]])
    assert "bad is left out: benchmark bad cannot be scored" in both.err and "left out, as said above: bad" in both.err
    assert json.loads((here / "out/good/results.json").read_text())["counts"]["answered"] == 1
    assert "left out, for reasons said above: bad" in both.out
    assert why.split(",")[0] in (here / "out/summary.md").read_text()
    assert run(here, good, bad, optional=True)[0] == 0  # named by `all`


def test_one_row_without_options_is_one_malformed_record(here: Path) -> None:
    options = {"A": "cat", "B": "dog"}
    table("kit", [{**options, "answer": "A"}, {"answer": "B"}, {**options, "answer": "b"}], "choice")
    assert command("validate", "kit") == 1
    found = scored("kit", ["A", "B", "B"])
    assert (found["scores"]["all"]["accuracy"], found["counts"]["records"], found["counts"]["bad_records"]) == (
        1.0,
        2,
        1,
    )
    assert "has no options" in found["bad_records"][0]["reason"] and "line 2" in found["bad_records"][0]["where"]


def test_boxes_need_no_columns_of_width_and_height(here: Path) -> None:
    rows = [{"answer": [10, 5, 30, 15], "image": "a.png"}, {"answer": [10, 5, 30, 15], "image": "gone.png"}]
    table("boxes", rows, "grounding", answer="box", images="images")
    Path("data/images").mkdir()
    Image.new("RGB", (40, 20)).save("data/images/a.png")
    found = scored("boxes", ["[0.25, 0.25, 0.75, 0.75]", "[0.25, 0.25, 0.75, 0.75]"])
    assert (found["scores"]["all"]["accuracy"], found["counts"]["records"]) == (1.0, 1)
    assert "has no width and height" in found["bad_records"][0]["reason"]


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OneOfTwo(Session):
    """A process of two, each on a machine of its own, that run one after the other, the main one first.

    Attributes:
        mains: values of the main process in the order of the calls: it adds them, the other one takes them out.
    """

    mains: list[Any]

    def gather(self, value: T) -> list[T]:
        """The main process sees another that reads for itself and finds nothing amiss."""
        if not self.is_main:
            return [self.mains.pop(0), value]
        self.mains.append(value)
        other: Any = {int: 1, str: "", tuple: ({}, {})}.get(type(value))
        return [value, other]


def test_what_the_main_process_cannot_score_is_left_out_everywhere(here: Path) -> None:
    rows = [{"A": "u", "F": "v", "answer": "A"}, {"A": "u", "F": "v", "answer": "F"}]  # the rule reads A to E
    task = Task(pipeline=BenchmarkPipeline(table("kit", rows, "scienceqa")), batch_size_total=2, folder=here / "out")
    mains: list[Any] = []
    for rank in (0, 1):  # one after the other, on two machines
        session = OneOfTwo(
            accelerator=SimpleNamespace(process_index=rank, num_processes=2, local_process_index=0),
            options=RunConfig(),
            roots=[here / "data"],
            devices=["cpu", "cpu"],
            about={},
            config_yaml="",
            mains=mains,
        )
        (loaded,), missing = load_tasks([task], session)
        assert ([record.id for record in loaded.records], missing) == (["0"], {})
        assert [item.reason for item in loaded.bad] == ["its own answer 'F' gets 0 by the rule, where the most is 1"]
    assert mains == []


def test_strict_ends_at_a_record_that_cannot_be_scored(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = table("zoo", [{"answer": "Yes"}, {"answer": "hm"}], "yes_no")
    plan = make_plan(here / "data", here / "out", STRICT=True)
    task = Task(pipeline=BenchmarkPipeline(benchmark), batch_size_total=2, folder=here / "out")
    engine = ToyEngine()
    assert run_plan(replace(plan, tasks=[task]), lambda _: ToySource(engine)) == 1
    assert "got 'hm' (EVAL.STRICT False counts it" in capsys.readouterr().err and engine.batches == []


# --- replies that say nothing ---------------------------------------------------------------------------------------


def test_unreadable_and_empty_replies_are_warned_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("zoo", [{"answer": "Yes"}] * 20, "yes_no")
    scored("zoo", ["Yes"] * 18 + ["elephant\n\x1b"] * 2)
    assert "hold no answer" not in capsys.readouterr().err  # a tenth, not more
    scored("zoo", ["Yes"] * 17 + ["elephant\n\x1b"] * 3)
    shown = capsys.readouterr().err
    assert r"3 of 20 replies hold no answer that 'yes_no' reads, such as that to 17: 'elephant\n\x1b': check" in shown
    scored("zoo", ["Yes"] * 17 + ["", " ", "\n"])
    shown = capsys.readouterr().err
    assert "3 of 20 replies are empty, such as that to 17: check that the checkpoint" in shown
    assert "hold no answer" not in shown
    scored("zoo", ["Yes"] * 17 + ["", "hm", "hm"])
    shown = capsys.readouterr().err
    assert "3 of 20 replies hold no answer that 'yes_no' reads, such as that to 18: 'hm'" in shown
    assert "3 of 20 replies hold no answer" in Path("score/results.md").read_text()


# --- which field is the reply -----------------------------------------------------------------------------------------


def rows_of(*rows: dict[str, Any]) -> None:
    Path("replies.json").write_text(json.dumps([{"id": n, **row} for n, row in enumerate(rows)]))


QUESTIONS = [{"question": f"Is thing {n} here?", "answer": "yes" if n % 2 else "no"} for n in range(4)]
TRUE = ["No", "Yes", "No", "Yes"]
SHAPES = [
    [{"text": q["question"], "answer": said} for q, said in zip(QUESTIONS, TRUE, strict=True)],
    [{"text": f"{q['question']}\nAnswer briefly.", "answer": s} for q, s in zip(QUESTIONS, TRUE, strict=True)],
    [{"text": q["question"], "answer": s, "label": q["answer"]} for q, s in zip(QUESTIONS, TRUE, strict=True)],
    [{"prompt": q["question"], "text": s, "answer": q["answer"]} for q, s in zip(QUESTIONS, TRUE, strict=True)],
    [{"response": s, "answer": q["answer"].upper()} for q, s in zip(QUESTIONS, TRUE, strict=True)],
    [{"output": q["question"], "pred": s, "prediction": s} for q, s in zip(QUESTIONS, TRUE, strict=True)],
    [{"question": q["question"], "answer": s} for q, s in zip(QUESTIONS, TRUE, strict=True)],
]


@pytest.mark.parametrize("number", range(len(SHAPES)))
@pytest.mark.parametrize("wrong", [False, True])
def test_the_reply_is_told_from_question_and_ground_truth(here: Path, number: int, wrong: bool) -> None:
    table("zoo", QUESTIONS, "yes_no")
    rows = SHAPES[number]
    if wrong:  # the last reply; the ground truth next to it stays what it is
        key = next(n for n in ("pred", "response", "answer") if n in rows[3]) if "prompt" not in rows[3] else "text"
        rows = [*rows[:3], {**rows[3], **{name: "No" for name in {key, *(["prediction"] if key == "pred" else [])}}}]
    rows_of(*rows)
    assert command("score", "zoo", "--predictions", "replies.json") == 0
    found = json.loads(Path("score/results.json").read_text())
    assert found["scores"]["all"]["accuracy"] == (0.75 if wrong else 1.0)


UNTOLD: list[tuple[list[dict[str, Any]], str]] = [
    (
        [{"text": "Yes", "response": "No"}],
        "entry 1: 'text' and 'response' differ and each may be the model's reply (text: 'Yes', response: 'No')",
    ),
    ([{"pred": "a", "answer": "No"}, {"pred": "b", "answer": "No"}], "entry 1: 'pred' and 'answer' differ"),
    ([{"text": q["question"]} for q in QUESTIONS], "its 'text' repeats the questions"),
    ([{"text": q["question"], "pred": q["question"]} for q in QUESTIONS], "its 'pred' and 'text' repeat the questions"),
]


@pytest.mark.parametrize(("rows", "message"), UNTOLD)
def test_files_that_do_not_tell_the_reply_are_refused(
    here: Path, rows: list[dict[str, Any]], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table("zoo", QUESTIONS, "yes_no")
    rows_of(*rows)
    assert command("score", "zoo", "--predictions", "replies.json") == 2
    assert message in capsys.readouterr().err
    assert not Path("score/results.json").exists()
