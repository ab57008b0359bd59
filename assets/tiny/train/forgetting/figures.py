"""Raw figures of the runs, kept as JSON, and the tables that are made of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.evaluation.statistics.intervals import signed_mean, student
from pipeline.results.report import aligned, pipe_table
from pipeline.runtime.files import write_text

from .rows import COLUMNS, DIFFERENCES, FORGOTTEN, KINDS, REHEARSED, ROWS, ForgettingRow


@dataclass(frozen=True, kw_only=True)
class ForgettingRun:
    """Figures of a run, as they are kept.

    Attributes:
        row: its name.
        seed: of order, adapters and what is drawn.
        settings: see `ForgettingSettings`.
        updates: see `ForgettingRow.updates`.
        ranks: see `ForgettingRow.ranks`.
        lora_parameters: numbers in the checkpoint's LoRA adapters.
        right: kind -> a digit for each question, 1 where the answer is right.
    """

    row: str
    seed: int
    settings: Mapping[str, int]
    updates: Mapping[str, int]
    ranks: Mapping[str, int]
    lora_parameters: int
    right: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ForgettingFigures:
    """All that the tables are made of.

    Attributes:
        scenes: kind -> the scene that each question is about.
        runs: every row with the same seeds.
    """

    scenes: Mapping[str, Sequence[int]]
    runs: Sequence[ForgettingRun]

    @property
    def seeds(self) -> list[int]:
        """In rising order."""
        return sorted({run.seed for run in self.runs})

    def right(self, row: ForgettingRow, seed: int, column: str) -> list[int]:
        """For every question of a column whether the answer is right."""
        run = next(run for run in self.runs if (run.row, run.seed) == (row.name, seed))
        return [int(digit) for kind in COLUMNS[column] for digit in run.right[kind]]

    def percent(self, row: ForgettingRow, column: str) -> list[float]:
        """A score for each seed."""
        return [100 * statistics.mean(self.right(row, seed, column)) for seed in self.seeds]


def write_figures(figures: ForgettingFigures, file: Path) -> None:
    """Keep the raw figures, one run a line."""
    runs = ",\n".join(f"  {json.dumps(asdict(run))}" for run in figures.runs)
    text = f'{{\n "scenes": {json.dumps(figures.scenes)},\n "runs": [\n{runs}\n ]\n}}\n'
    write_text(file, text)


def read_figures(file: Path) -> ForgettingFigures:
    """What `write_figures` kept.

    Raises:
        RuntimeError: the file is missing, or is none of these.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        figures = ForgettingFigures(scenes=content["scenes"], runs=[ForgettingRun(**run) for run in content["runs"]])
        _check(figures)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RuntimeError(f"{file} holds no figures of all rows: {type(error).__name__}: {error}") from error
    return figures


def _check(figures: ForgettingFigures) -> None:
    """Check that every row has every seed, and an answer to every question.

    Raises:
        ValueError, KeyError, TypeError: it has not.
    """
    found = {(run.row, run.seed) for run in figures.runs}
    if not found or len(found) < len(figures.runs):
        raise ValueError("no run, or one twice")
    if missing := [f"{row.name} {seed}" for row in ROWS for seed in figures.seeds if (row.name, seed) not in found]:
        raise ValueError(f"lacks the runs {', '.join(missing)}")
    for run in figures.runs:
        for kind in KINDS:
            digits, scenes = run.right[kind], figures.scenes[kind]
            if not scenes or len(digits) != len(scenes) or set(digits) - {"0", "1"}:
                raise ValueError(f"run {run.row} {run.seed}: a 0 or 1 for each of {len(scenes)} questions on {kind}")


def scores(figures: ForgettingFigures) -> list[tuple[str, ...]]:
    """Header and rows: mean and, in brackets, standard deviation over the seeds."""
    rows = [(row.title, *(_cell(figures.percent(row, column)) for column in COLUMNS)) for row in ROWS]
    return [("step 2", *COLUMNS), *rows]


def _cell(values: Sequence[float]) -> str:
    spread = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def differences(figures: ForgettingFigures) -> list[tuple[str, ...]]:
    """Header and rows: what the first row of a pair has more, with its 95 % intervals over seeds and over scenes."""
    columns = ("text", "colour", "number+name", FORGOTTEN, REHEARSED)
    rows = []
    for first, second in DIFFERENCES:
        cells = [difference(figures, first, second, column) for column in columns]
        rows.append((f"{first.title} less {second.title}", *(cell.words for cell in cells)))
    return [("difference", *columns), *rows]


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """By how many points a row is better than another.

    Attributes:
        mean: over the seeds.
        over_seeds: ends of the 95 % interval of Student's distribution of the seeds' differences, which are paired:
            a seed's rows start from the same step 1. It covers another seed, on the same questions; None for one seed.
        over_scenes: ends of the 95 % interval clustered by scene, of the mean over the seeds: other questions, the same
            seeds.
    """

    mean: float
    over_seeds: tuple[float, float] | None
    over_scenes: tuple[float, float]

    @property
    def words(self) -> str:
        """As a table prints it."""
        seeds = f" [{self.over_seeds[0]:+.1f}, {self.over_seeds[1]:+.1f}]" if self.over_seeds else ""
        return f"{self.mean:+.1f}{seeds} ({self.over_scenes[0]:+.1f}, {self.over_scenes[1]:+.1f})"


def difference(figures: ForgettingFigures, first: ForgettingRow, second: ForgettingRow, column: str) -> RowDifference:
    """Compare two rows, question by question; see `RowDifference`."""
    seeds = figures.seeds
    by_seed = [
        [a - b for a, b in zip(figures.right(first, s, column), figures.right(second, s, column), strict=True)]
        for s in seeds
    ]
    means = [100 * statistics.mean(one) for one in by_seed]
    center, over_seeds = statistics.mean(means), None
    if len(seeds) > 1:
        half = student(len(seeds) - 1) * statistics.stdev(means) / len(seeds) ** 0.5
        over_seeds = (center - half, center + half)
    clusters = [scene for kind in COLUMNS[column] for scene in figures.scenes[kind]]
    estimate = signed_mean([statistics.mean(question) for question in zip(*by_seed, strict=True)], clusters)
    return RowDifference(mean=center, over_seeds=over_seeds, over_scenes=(100 * estimate.low, 100 * estimate.high))


def tables(figures: ForgettingFigures, *, markdown: bool) -> str:
    """Scores, and differences with their intervals."""
    num = len(figures.seeds)
    seeds = f"{num} seed{'s' if num > 1 else ''}"
    blocks = []
    for title, lines in (("Scores", scores(figures)), ("Differences", differences(figures))):
        body = "\n".join(pipe_table(lines[0], lines[1:])) if markdown else aligned(lines)
        blocks.append(f"{'### ' if markdown else ''}{title}, {seeds}\n\n{body}\n")
    return "\n".join(blocks)
