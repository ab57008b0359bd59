"""A folder of annotations, predictions and official figures, scored through the code of ``lbk_entry.py score``."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets.types import Metric, Scored
from pipeline.benchmarks import select_pipeline
from pipeline.catalog import load_catalog
from pipeline.results.rescore import Source, score_file

EXACT = 1e-9
"""Tolerance of rates; counts, answers and verdicts are compared exactly."""

_ABOUT = {"benchmark", "scorer", "annotations", "source", "split", "num_run", "predictions", "conversion", "case"}
_ABOUT |= {"annotation_version", "prediction_preprocessing", "differences_to_published_file", "published_denominators"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        figure: what is compared.
        expected: the official figure.
        ours: what we got.
        tolerance: largest difference of numbers; 0 for equality of anything.
    """

    figure: str
    expected: Any
    ours: Any
    tolerance: float = EXACT

    @property
    def ok(self) -> bool:
        """Whether they agree."""
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (self.expected, self.ours))
        if numbers and self.tolerance:
            return math.isclose(self.ours, self.expected, rel_tol=0.0, abs_tol=self.tolerance)
        return bool(self.expected == self.ours)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What scoring a case gave.

    Attributes:
        scored: by id.
        metrics: by ``group/name``.
    """

    scored: Mapping[str, Scored]
    metrics: Mapping[str, Metric]

    def value(self, name: str, scale: float = 1.0) -> float | None:
        """A figure; None where there is none."""
        metric = self.metrics.get(name)
        return None if metric is None or metric.value is None else scale * metric.value

    def num(self, name: str) -> int | None:
        """From how many samples a figure comes."""
        metric = self.metrics.get(name)
        return None if metric is None else metric.num

    def group(self, prefix: str) -> dict[str, Metric]:
        """Figures of the groups ``prefix/...``, by the group's name."""
        parts = ((name.split("/"), metric) for name, metric in self.metrics.items())
        return {path[1]: metric for path, metric in parts if len(path) > 1 and path[0] == prefix}

    def values(self) -> dict[str, float | None]:
        """Credit of every record."""
        return {key: scored.score.value for key, scored in self.scored.items()}

    def extracted(self) -> dict[str, str]:
        """What was understood of every answer."""
        return {key: scored.score.extracted for key, scored in self.scored.items()}


@dataclass(frozen=True)
class Case:
    """One folder that has an ``expected.json``.

    Attributes:
        top: folder of the benchmark.
        folder: of the case; the same or below.
        expected: what the official scorer gave.
        used: keys of it that have been compared.
    """

    top: Path
    folder: Path
    expected: Mapping[str, Any]
    used: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """For the table."""
        return self.folder.relative_to(self.top.parent).as_posix()

    def get(self, key: str) -> Any:
        """A part of the expected figures, which counts as compared; None where it is absent."""
        self.used.add(key)
        return self.expected.get(key)

    def load(self, file: str) -> Any:
        """A JSON file of the case."""
        return json.loads((self.folder / file).read_text(encoding="utf-8"))

    def has(self, file: str) -> bool:
        """Whether the case has a file."""
        return (self.folder / file).is_file()

    def left(self) -> list[str]:
        """Keys that nothing was compared with."""
        return [key for key in self.expected if key not in self.used | _ABOUT and not key.endswith(("note", "_note"))]

    def run(
        self,
        dataset: str,
        *,
        annotations: Path | None = None,
        data: Mapping[str, Any] | None = None,
        scoring: Mapping[str, Any] | None = None,
        scorer: str = "",
        released: bool = False,
        predictions: Mapping[str, str] | None = None,
        verdicts: Path | Mapping[str, Mapping[str, str]] | None = None,
        answered_only: bool = False,
    ) -> Outcome:
        """Score the case's predictions.

        Args:
            dataset: name of the benchmark.
            annotations: folder of its files; that of the benchmark here if None.
            data: options of its reader that differ from the declaration.
            scoring: options of its scorer that differ.
            scorer: another scorer than the declared one.
            released: by the rules of the first CoLLaVO release.
            predictions: instead of those in the folder.
            verdicts: file or content of recorded verdicts.
            answered_only: leave out records without an answer.
        """
        benchmark = load_catalog().benchmarks[dataset]
        benchmark = benchmark.as_released() if released else benchmark
        declared = {} if scorer else benchmark.scoring
        benchmark = replace(
            benchmark,
            data={**benchmark.data, **(data or {})},
            scorer=scorer or benchmark.scorer,
            scoring={**declared, **(scoring or {})},
        )
        pipeline = select_pipeline(None, benchmark)
        records, bad = pipeline.load([annotations or self.top])
        if bad:
            raise ValueError(f"{self.name}: {len(bad)} records are malformed, the first at {bad[0].where}")
        texts = self.load("predictions.json") if predictions is None else predictions
        if answered_only:
            records = [record for record in records if record.id in texts]
        with tempfile.TemporaryDirectory() as scratch:
            source = Source(predictions=_written(texts, Path(scratch, "p.json")), verdicts=_file(verdicts, scratch))
            answered, _ = score_file(pipeline, records, bad, source, None, Path(scratch))
        evaluation = answered.evaluation
        return Outcome(
            scored={scored.record.id: scored for scored in evaluation.scored},
            metrics={f"{m.group}/{m.name}".removeprefix("/"): m for m in evaluation.metrics},
        )


def _written(content: Any, path: Path) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _file(verdicts: Path | Mapping[str, Mapping[str, str]] | None, scratch: str) -> Path | None:
    return verdicts if verdicts is None or isinstance(verdicts, Path) else _written(verdicts, Path(scratch, "v.json"))


def cases(top: Path) -> Iterator[Case]:
    """The cases of a benchmark's folder: itself and its sub-folders."""
    for file in (top / "expected.json", *sorted(top.glob("*/expected.json"))):
        if file.is_file():
            yield Case(top, file.parent, json.loads(file.read_text(encoding="utf-8")))


def rows_of(
    prefix: str, expected: Mapping[str, Any], ours: Mapping[str, Any], tolerance: float = EXACT
) -> Iterator[Row]:
    """One row for every key of two mappings."""
    for key in expected:
        yield Row(figure=f"{prefix}{key}", expected=expected[key], ours=ours.get(key), tolerance=tolerance)
    for key in ours.keys() - expected.keys():
        yield Row(figure=f"{prefix}{key}", expected=None, ours=ours[key])


def questions(name: str, expected: Mapping[str, Any], ours: Mapping[str, Any], tolerance: float = 0.0) -> Row:
    """One row for all questions: how many agree."""
    agree = sum(
        Row(figure="", expected=value, ours=ours.get(key), tolerance=tolerance).ok for key, value in expected.items()
    )
    return Row(figure=f"{name} (questions that agree)", expected=len(expected), ours=agree, tolerance=0.0)
