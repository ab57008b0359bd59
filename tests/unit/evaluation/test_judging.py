"""From answers over a judge to scores: settings, recorded verdicts, and a run that is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from datasets.declaration import Benchmark
from datasets.evaluation import benchmark_scorer
from datasets.evaluation.judges.base import Judge, JudgeError, Request, Usage, Verdict, collect
from datasets.evaluation.judges.options import JudgeConfig, is_configured
from datasets.evaluation.judges.recorded import read_verdicts, write_verdicts
from datasets.evaluation.judging import judge_requests, method, uses_judge
from datasets.types import DataError, Record

ROOT = Path(__file__).parents[3]


def declared(scorer: str, **scoring: Any) -> Benchmark:
    return Benchmark(
        name="toy",
        dataset="toy",
        section="TOY",
        title="Toy",
        version=1,
        source="here",
        reader="toy",
        data={},
        prompt="{question}",
        num_beams=1,
        max_new_tokens=8,
        scorer=scorer,
        scoring=scoring,
    )


def record(name: str) -> Record:
    return Record(id=name, image=None, fields={"question": "What?"}, target="a cat")


class Fixed:
    """A judge that says the same to everything, except to one part."""

    name = "fixed"
    identity = "fixed"
    usage = Usage()

    def __init__(self, reply: str, silent: str = "") -> None:
        self._reply, self._silent = reply, silent

    def probe(self) -> str:
        return self.name

    def ask(self, requests: Sequence[Request]) -> list[Verdict]:
        return [
            Verdict(record=r.record, part=r.part, value=None, failure="no mood")
            if r.record == self._silent
            else Verdict(record=r.record, part=r.part, value=r.parse(self._reply), reply=self._reply)
            for r in requests
        ]


def test_a_judged_run_from_answers_to_figures(tmp_path: Path) -> None:
    benchmark, judge = declared("graded", runs=2), Fixed("Grade: 0.5", silent="c")
    as_judge: Judge = judge
    answers = [(record(name), f"text {name}") for name in "abc"]
    verdicts = as_judge.ask(judge_requests(benchmark, answers))
    assert [(v.record, v.part) for v in verdicts[:3]] == [("a", "run1"), ("a", "run2"), ("b", "run1")]
    write_verdicts(tmp_path / "verdicts.jsonl", verdicts, judge.name)
    again = read_verdicts(tmp_path / "verdicts.jsonl")
    assert again == {**collect(verdicts), "c": {}}
    evaluation = benchmark_scorer(benchmark).evaluate([*answers, (record("d"), None)], again)
    assert [s.score.value for s in evaluation.scored] == [0.5, 0.5, None, None]
    metrics = {m.name: m.value for m in evaluation.metrics if not m.group}
    assert (metrics["total"], metrics["unscored"], metrics["errors"]) == (50.0, 1, 1)
    first = json.loads((tmp_path / "verdicts.jsonl").read_text().split("\n")[0])
    assert first == {
        "id": "a",
        "part": "run1",
        "verdict": "0.5",
        "reply": "Grade: 0.5",
        "failure": "",
        "judge": "fixed",
    }


def test_what_decided_is_said() -> None:
    assert method(declared("graded"), None) == "no judge, and nothing decides without one: not scored"
    assert method(declared("mathvista"), None).startswith("no judge: answers by the rules of extract_answer.py")
    assert method(declared("hallusion"), "gpt-4-0613 at somewhere") == "judge: gpt-4-0613 at somewhere"
    assert method(declared("exact_match"), None) == ""


def test_a_scorer_without_use_for_a_judge_says_so() -> None:
    assert not uses_judge(declared("exact_match"))
    assert all(map(uses_judge, map(declared, ("graded", "mathvista", "hallusion", "choice", "circular", "qbench"))))
    with pytest.raises(DataError, match="toy: its scorer 'exact_match' has no use for a judge"):
        judge_requests(declared("exact_match"), [])


@pytest.mark.parametrize("rule", ["hallusion_vlmevalkit", "hallusion_released"])
def test_a_rule_without_use_for_a_judge_says_so(rule: str) -> None:
    benchmark = declared("hallusion", rule=rule)
    assert not uses_judge(benchmark)
    assert method(benchmark, None) == ""
    with pytest.raises(DataError, match=f"'hallusion' by the rule '{rule}' has no use for a judge"):
        benchmark_scorer(benchmark).evaluate([], {})


def test_verdicts_on_another_benchmark_are_an_error() -> None:
    with pytest.raises(DataError, match="none of the 1 verdicts is on one of its records; a verdict is on z"):
        benchmark_scorer(declared("graded")).evaluate([(record("a"), "x")], {"z": {"run1": "1"}})


@pytest.mark.parametrize(
    ("content", "verdicts"),
    [
        ({"1": "12", "2": 3}, {"1": {"verdict": "12"}, "2": {"verdict": "3"}}),
        ({"v1": {"score": [0.5, 1.0], "content": ["0.5", "1.0"]}}, {"v1": {"run1": "0.5", "run2": "1.0"}}),
        ({"k": {"correctness": "1", "same": "0"}}, {"k": {"correctness": "1", "same": "0"}}),
        ({"1": {"extraction": "B", "question": "?", "choices": []}}, {"1": {"verdict": "B"}}),
    ],
)
def test_published_verdicts(tmp_path: Path, content: Any, verdicts: Mapping[str, Any]) -> None:
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps(content))
    assert read_verdicts(path) == verdicts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", "{", "cannot be read as verdicts"),
        ("v.json", "[]", "expected an object from ids"),
        ("v.json", '{"a": null}', "v.json, a: a verdict is a text or a number, got None"),
        ("v.jsonl", "{", "v.jsonl, line 1: not JSON"),
        ("v.jsonl", '\n{"id": "a"}', "v.jsonl, line 2: expected an object with"),
        ("v.jsonl", '{"id": "a", "part": "p", "verdict": "1"}\n' * 2, "line 2: a second verdict 'p' on a"),
        ("absent.json", None, "absent.json: cannot be read as verdicts"),
    ],
)
def test_damaged_verdicts_are_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_verdicts(tmp_path / name)


def test_settings_come_from_the_configuration_then_the_environment() -> None:
    environ = {
        "COLLAVO_JUDGE_MODEL": "local",
        "COLLAVO_JUDGE_CONCURRENCY": "3",
        "COLLAVO_JUDGE_TEMPERATURE": "0.5",
        "COLLAVO_JUDGE_PRICE_INPUT": "2",
        "OPENAI_BASE_URL": "http://localhost:8000/v1",
    }
    judge = JudgeConfig(MODEL="mine", TEMPERATURE=1).resolved(environ)
    assert (judge.MODEL, judge.CONCURRENCY, judge.TEMPERATURE) == ("mine", 3, 1.0)
    assert (judge.PRICE_INPUT, judge.BASE_URL, judge.TIMEOUT) == (2.0, "http://localhost:8000/v1", 60.0)
    assert judge.resolved({"COLLAVO_JUDGE_MODEL": "other"}) == judge  # nothing is left open
    assert JudgeConfig().resolved({}) == JudgeConfig(
        MODEL="gpt-4-0613",
        KEY_VARIABLE="OPENAI_API_KEY",
        TEMPERATURE=0.0,
        CONCURRENCY=8,
        TIMEOUT=60.0,
        ATTEMPTS=6,
        BACKOFF=1.0,
        GIVE_UP_AFTER=20,
    )


@pytest.mark.parametrize(
    ("values", "environ", "message"),
    [
        ({"CONCURRENCY": "many"}, {}, "JUDGE.CONCURRENCY: expected a number, got 'many'"),
        ({"CONCURRENCY": 0}, {}, "JUDGE.CONCURRENCY: must be greater than or equal to 1, got 0"),
        ({"TEMPERATURE": -1.0}, {}, "JUDGE.TEMPERATURE: must be greater than or equal to 0, got -1.0"),
        ({"BASE_URL": "localhost:8000"}, {}, "JUDGE.BASE_URL: is no address of a server, which must begin with http"),
        ({"MODEL": 3}, {}, "JUDGE.MODEL: expected a text, got 3"),
        ({}, {"COLLAVO_JUDGE_TIMEOUT": "soon"}, "COLLAVO_JUDGE_TIMEOUT: expected a number, got 'soon'"),
        ({}, {"COLLAVO_JUDGE_TIMEOUT": "nan"}, "environment variable COLLAVO_JUDGE_TIMEOUT: "),
        ({}, {"COLLAVO_JUDGE_ATTEMPTS": "0"}, "COLLAVO_JUDGE_ATTEMPTS: must be greater than or equal to 1, got '0'"),
        ({}, {"OPENAI_BASE_URL": "localhost"}, "environment variable OPENAI_BASE_URL: is no address of a server"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], environ: dict[str, str], message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        JudgeConfig(**values).resolved(environ)


@pytest.mark.parametrize("variable", ["COLLAVO_JUDGE_BASE_URL", "OPENAI_BASE_URL", "COLLAVO_JUDGE_KEY_VARIABLE"])
def test_a_secret_in_a_variable_is_refused_without_showing_it(variable: str) -> None:
    value = "sk-hunter22" if variable.endswith("KEY_VARIABLE") else "http://user:hunter22@host/v1"
    with pytest.raises(JudgeError, match=f"environment variable {variable}: ") as refused:
        JudgeConfig().resolved({variable: value})
    assert "hunter22" not in str(refused.value)


def test_there_is_a_judge_with_a_key_or_an_address() -> None:
    judge = JudgeConfig().resolved({})
    assert not is_configured(judge, {})
    assert is_configured(judge, {"OPENAI_API_KEY": "x"})
    assert not is_configured(JudgeConfig(KEY_VARIABLE="MY_KEY").resolved({}), {"OPENAI_API_KEY": "x"})
    assert is_configured(JudgeConfig(BASE_URL="http://localhost:8000/v1").resolved({}), {})
    assert issubclass(JudgeError, DataError)
    with pytest.raises(ValueError, match="resolved first"):
        is_configured(JudgeConfig(), {})


def test_scoring_does_not_load_the_client_library() -> None:
    code = (
        "import sys, datasets.evaluation.judging, datasets.evaluation.judges.chat, datasets.evaluation.hallusion; "
        "sys.exit('openai' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
