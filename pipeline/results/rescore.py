"""``score``: the scores of answers that a file holds, without a model; by rules, recorded verdicts, or a judge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.common.safe_json import read_json
from configs.common.words import listed
from configs.load import ConfigError
from datasets.declaration import Benchmark
from datasets.evaluation.judges.base import Judge
from datasets.evaluation.scorable import keep_scorable
from datasets.roots import data_roots
from datasets.types import BadRecord, DataError, Record

from ..base import BenchmarkPipeline
from ..benchmarks import select_pipeline
from ..catalog import Catalog
from ..config import EvalConfig
from ..run.identity import remarks_of
from ..run.plan import another_model
from ..run.task import about_model, about_part, publish
from ..runtime.console import say, warn
from ..runtime.errors import RunError
from ..runtime.files import make_folder
from ..runtime.lock import sole_use
from ..runtime.provenance import git_commit, versions
from .join import AnsweredBenchmark, paired, summary
from .judge_folders import RULES, decider_of, folder_of, in_words, set_aside
from .judging import FileVerdicts, decider, held_in, judge_of, make_judge, needs_judge, score, to_be_asked
from .predictions_file import SCORES
from .replies import read_answers


@dataclass(frozen=True, kw_only=True)
class ScoringInput:
    """What is to be scored.

    Attributes:
        predictions: file or folder of replies, see ``predictions_file.py`` and ``result_files`` next to this file.
        verdicts: file of a judge's verdicts to use instead of asking one; None for none.
        against: file of another run's answers to compare with, question by question; None for none.
    """

    predictions: Path
    verdicts: Path | None = None
    against: Path | None = None


def rescore(config: EvalConfig, catalog: Catalog, source: ScoringInput, dataset: str | None, out: Path | None) -> int:
    """Score a file of answers, write the results and show them.

    Args:
        config: resolved; says how the benchmark is scored, where its files are, and who judges.
        catalog: of the declared benchmarks.
        source: see `ScoringInput`.
        dataset: name of the benchmark; None for what the configuration or the folder of the predictions says.
        out: folder of the results; None for one next to the predictions, and in it one for each judge.

    Returns: the exit code.

    Raises:
        ConfigError: no such benchmark.
        DataError, RunError: a file is missing or unreadable, or the judge cannot be used.
    """
    benchmark = benchmark_of_answers(config, catalog, source.predictions, dataset)
    pipeline = select_pipeline(config.PIPELINE, config.declared(benchmark))
    records, bad, check = keep_scorable(pipeline, *pipeline.load(data_roots(config.DATASETS.ROOT, os.environ)))
    say(f"{benchmark.dataset}: {check.sentence}")
    run = config.EVAL
    whole, records = records, pipeline.part(records, run.LIMIT, run.SEED)  # as the run was limited that wrote them
    asked = source.verdicts is None and needs_judge(pipeline.declaration) and _leaves_to_ask(pipeline, whole, source)
    chosen = judge_of(config.JUDGE, os.environ) if asked else None
    judge = None if chosen is None else make_judge(chosen, os.environ)
    held = _held(pipeline, source).path if judge is None else None
    with sole_use([out or source.predictions.parent / SCORES]):
        folder = _folder(source, out, decider(pipeline.declaration, judge, source.verdicts or held))
        return _score_into(folder, config, pipeline, records, bad, source, judge, whole)


def _score_into(
    folder: Path,
    config: EvalConfig,
    pipeline: BenchmarkPipeline,
    records: list[Record],
    bad: list[BadRecord],
    source: ScoringInput,
    judge: Judge | None,
    whole: list[Record],
) -> int:
    """Score, write and show; see `rescore`."""
    answered, stray = score_file(pipeline, records, bad, source, judge, folder, whole)
    if stray:
        warn(f"{len(stray)} answers are to ids of no record that can be asked, and count for nothing: {listed(stray)}")
    about: dict[str, Any] = {
        **about_model(config.EVAL, another_model(config), pipeline.declaration.dataset),
        **about_part(config.EVAL, len(records), len(whole)),
        **remarks_of(source.predictions.parent / "run.json"),
        "predictions": str(source.predictions),
        "config_hash": config.config_hash,
        "git_commit": git_commit(),
        "versions": versions(),
    }
    if source.against is not None:
        other, _ = score_file(
            pipeline,
            records,
            bad,
            ScoringInput(predictions=source.against),
            judge,
            make_folder(folder / "against"),
            whole,
        )
        about["paired"] = {"against": str(source.against), **paired(answered.evaluation, other.evaluation)}
    roots = data_roots(config.DATASETS.ROOT, os.environ)
    publish(folder, answered, pipeline.declaration, summary(pipeline, answered, None, about), roots=roots)
    return 0


def _folder(source: ScoringInput, out: Path | None, by: str) -> Path:
    """Where the results go: what the rules decide next to the answers, what each judge does in a folder of its own.

    Raises:
        RunError: the folder that is named holds another judge's results.
    """
    if out is None:
        base = source.predictions.parent / SCORES
        if kept := set_aside(base, RULES):
            say(f"the earlier results, decided by {in_words(kept[1])}, are kept in {kept[0]}")
        return make_folder(base if by == RULES else folder_of(base, by))
    held = decider_of(out)
    if held is not None and held != by:
        raise RunError(
            f"--out {out} holds results that were decided by {in_words(held)}; these would be decided by "
            f"{in_words(by)}, and replace none: name another folder"
        )
    return make_folder(out)


def score_file(
    pipeline: BenchmarkPipeline,
    records: list[Record],
    bad: list[BadRecord],
    source: ScoringInput,
    judge: Judge | None,
    folder: Path,
    whole: list[Record] | None = None,
) -> tuple[AnsweredBenchmark, list[str]]:
    """Score a file of answers to a benchmark's records.

    Args:
        pipeline: of the benchmark.
        records: its records.
        bad: what could not be read of it.
        source: see `ScoringInput`.
        judge: to be asked where the benchmark needs one; None for none.
        folder: where its verdicts are kept.
        whole: all records of the benchmark, where only a part is scored.
    Returns: the scores, and the ids of answers that no record has.

    Raises:
        DataError: a file is unreadable, belongs to another benchmark, or holds no text.
    """
    every, stray = read_answers(whole or records, source.predictions)
    entries = {record.id: every[record.id] for record in records}
    errors = [entry.error for entry in entries.values() if entry.error is not None]
    if len(errors) == len(records):
        raise DataError(f"{source.predictions}: none of {len(records)} records has a text; the first: {errors[0]}")
    texts = [(record, entries[record.id].reply) for record in records]
    held = _held(pipeline, source)
    evaluation, judgement = score(pipeline, texts, judge, folder, source.verdicts, held)
    answered = AnsweredBenchmark(records=records, bad=bad, entries=entries, evaluation=evaluation, judgement=judgement)
    return answered, stray


def _held(pipeline: BenchmarkPipeline, source: ScoringInput) -> FileVerdicts:
    """Verdicts that stand next to the replies in their file; none where others are to be used."""
    return FileVerdicts() if source.verdicts is not None else held_in(source.predictions, pipeline.declaration)


def _leaves_to_ask(pipeline: BenchmarkPipeline, records: list[Record], source: ScoringInput) -> bool:
    """Whether a file of replies leaves anything to a judge, or holds all verdicts next to them."""
    held = _held(pipeline, source)
    if not held.verdicts or source.against is not None:
        return True
    entries, _ = read_answers(records, source.predictions)
    texts = [(record, text) for record in records if (text := entries[record.id].reply) is not None]
    return bool(to_be_asked(pipeline.declaration, texts, held))


def benchmark_of_answers(config: EvalConfig, catalog: Catalog, predictions: Path, dataset: str | None) -> Benchmark:
    """The benchmark that a file of answers belongs to.

    Raises:
        ConfigError: none is named, several are, or there is no such one.
    """
    name = dataset or _of_run(predictions.parent) or config.DATASETS.TEST
    if not name:
        raise ConfigError(
            f"which benchmark do the answers in {predictions} belong to? Name it: "
            f"lbk_entry.py score pope_test --predictions {predictions}"
        )
    chosen = catalog.select(name)
    if len(chosen) > 1:
        raise ConfigError(f"{predictions} belongs to one benchmark, but {name} names {len(chosen)}")
    return chosen[0]


def _of_run(folder: Path) -> str:
    """The dataset of a run by what it left next to its predictions; "" if it is no run's folder."""
    try:
        content: Any = read_json(folder / "results.json")
    except (OSError, ValueError):
        return ""
    name = content.get("dataset") if isinstance(content, Mapping) else None
    return name if isinstance(name, str) else ""
