"""A pipeline class is what scores: its own step counts with a judge and without, in a check and in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import datasets.evaluation as evaluation
from datasets.evaluation.scorable import check_scoring
from datasets.types import DataError, Record, Score
from pipeline.base import BenchmarkPipeline
from pipeline.results.judging import score
from tests.robustness.toy import DECLARATION

RECORDS = [Record(id=str(n), image=None, fields={"question": f"{n}?"}, target="yes", group="g") for n in range(4)]


class Halving(BenchmarkPipeline):
    """Gives half of what the rule gives."""

    def score(self, record: Record, text: str, verdicts: Mapping[str, str] | None = None) -> Score:
        """Half the credit."""
        whole = super().score(record, text, verdicts)
        return replace(whole, value=None if whole.value is None else whole.value / 2)


def values(pipeline: BenchmarkPipeline, *arguments: object) -> list[float | None]:
    found = pipeline.evaluate([(record, "Yes.") for record in RECORDS], *arguments)  # type: ignore[arg-type]
    return [scored.score.value for scored in found.scored]


def test_an_own_score_is_what_a_run_counts(tmp_path: Path) -> None:
    assert values(BenchmarkPipeline(DECLARATION)) == [1.0] * 4
    assert values(Halving(DECLARATION)) == [0.5] * 4
    found, judgement = score(Halving(DECLARATION), [(record, "yes") for record in RECORDS], None, tmp_path)
    assert [scored.score.value for scored in found.scored] == [0.5] * 4 and judgement.decided_by == ""


def test_an_own_score_is_what_the_check_tries() -> None:
    check = check_scoring(BenchmarkPipeline(DECLARATION), RECORDS)
    assert (check.scored, check.bad) == (4, {})
    with pytest.raises(DataError, match="gets 0.5 by the rule, where the most is 1"):
        check_scoring(Halving(DECLARATION), RECORDS)


def test_an_own_score_counts_with_a_judges_verdicts() -> None:
    benchmark = replace(DECLARATION, scorer="graded")
    verdicts = {record.id: {f"run{run}": "0.8" for run in range(1, 9)} for record in RECORDS}
    for kind, wanted in ((BenchmarkPipeline, 0.8), (Halving, 0.4)):
        scored, *_ = kind(benchmark).evaluate([(record, "a blue car") for record in RECORDS], verdicts).scored
        assert scored.score.value == pytest.approx(wanted)
    with pytest.raises(DataError, match="has no use for a judge"):
        values(Halving(DECLARATION), verdicts)


def test_a_scorer_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[str] = []
    look_up = evaluation.named_module
    monkeypatch.setattr(evaluation, "named_module", lambda *given: lookups.append(given[2]) or look_up(*given))
    pipeline = BenchmarkPipeline(DECLARATION)
    for _ in range(3):
        values(pipeline)
        pipeline.score(RECORDS[0], "no")
    assert lookups == [pipeline.declaration.scorer]
