"""Every record is scored, unscored, withheld or an error, and nothing else: the counts add up, in all places alike."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from datasets.evaluation import benchmark_scorer
from datasets.evaluation.judges.base import Verdict
from datasets.types import BadRecord, Record
from pipeline.declaration_file import parse_declaration
from pipeline.results.join import AnsweredBenchmark, counts, predictions
from pipeline.results.judging import Judgement
from pipeline.results.summary import _not_all
from pipeline.run.journal import JournalEntry

KINDS = ("right", "wrong", "empty", "unjudged", "withheld", "error")
SCORERS: dict[str, Any] = {
    "graded": {"kind": "graded", "runs": 2},
    "exact_match": "exact_match",
    "yes_no": "yes_no",
    "choice": {"kind": "choice", "rule": "seed"},
    "relaxed": "relaxed",
}
TEXTS = {"right": "yes", "wrong": "no", "empty": "", "unjudged": "yes", "withheld": "yes"}


def answered(kinds: list[str], scorer: str, bad: int) -> AnsweredBenchmark:
    declared = {"name": "zoo", "data": {"file": "x"}, "prompt": "{question}", "scorer": SCORERS[scorer]}
    benchmark = parse_declaration(declared, "zoo.yaml")
    target = "A" if scorer == "choice" else "yes"
    records = [
        Record(
            id=str(number),
            image=None,
            fields={"question": "?"},
            target=None if kind == "withheld" else target,
            meta={"options": {"A": "yes", "B": "no"}},
        )
        for number, kind in enumerate(kinds)
    ]
    pairs = [(r, None if kind == "error" else TEXTS[kind]) for r, kind in zip(records, kinds, strict=True)]
    verdicts = {
        record.id: {"run1": "1.0", "run2": "0.5"} if kind != "unjudged" else {"run1": "1.0"}
        for record, kind in zip(records, kinds, strict=True)
        if kind not in ("withheld", "error")
    }
    judged = scorer == "graded"
    evaluation = benchmark_scorer(benchmark).evaluate(pairs, verdicts if judged else None)
    entries = {
        r.id: JournalEntry(
            run="", id=r.id, image=None, question=r.id, text=text or "", error=None if text is not None else "no"
        )
        for r, text in pairs
    }
    failed = [Verdict(record=str(n), part="run2", value=None) for n, kind in enumerate(kinds) if kind == "unjudged"]
    return AnsweredBenchmark(
        records=records,
        bad=[BadRecord(where=str(n), reason="odd") for n in range(bad)],
        entries=entries,
        evaluation=evaluation,
        judgement=Judgement(decided_by="a judge", failed=failed),
    )


@given(
    kinds=st.lists(st.sampled_from(KINDS), max_size=20), scorer=st.sampled_from(list(SCORERS)), bad=st.integers(0, 3)
)
def test_counts_add_up_and_agree(kinds: list[str], scorer: str, bad: int) -> None:
    given_ones = answered(kinds, scorer, bad)
    number = counts(given_ones)
    made = Counter(kinds)
    unscored = made["unjudged"] if scorer == "graded" else 0
    assert number["records"] == len(kinds)
    assert (number["errors"], number["withheld"], number["unscored"]) == (made["error"], made["withheld"], unscored)
    assert number["scored"] + number["unscored"] + number["withheld"] + number["errors"] == number["records"]
    assert number["answered"] + number["errors"] == number["records"]
    assert number["bad_records"] == bad
    assert number["no_answer"] <= number["answered"]
    rows = {metric.name: metric.value for metric in given_ones.evaluation.metrics if not metric.group}
    for name in ("unscored", "withheld", "errors"):
        assert (rows.get(name) or 0) == number[name]
    if "no_answer" in rows:
        assert rows["no_answer"] == number["no_answer"]
    lines = predictions(given_ones).splitlines()
    assert sum(b'"score": null' not in line for line in lines) == number["scored"]
    told = _not_all(number)
    assert all((f"{number[name]} {name}" in told) == bool(number[name]) for name in ("unscored", "withheld", "errors"))
