"""One benchmark of a run: divide its questions among the processes, answer, score, and write the results.

There are two moments when processes talk: at the start, when they put together which questions are already answered
(journals of all machines count), and at the end, when the main process collects the answers. A process that fails in
between ends at once, and the launcher ends the others; nothing that was answered is lost.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.common.words import quoted
from configs.common.words import shown as inline
from datasets.declaration import Benchmark
from datasets.evaluation.scorable import UnscorableError
from datasets.evaluation.submission import SUBMISSIONS, write_submission
from datasets.types import BadRecord, DataError, Record

from ..base import BenchmarkPipeline, EngineSource
from ..results.browse.crayons import kept_maps, remove_crayons
from ..results.join import Answered, Effort, flat, join, listed, part_in_words, predictions, summary, text_of, warnings
from ..results.judge_folders import in_words, set_aside
from ..results.judging import decider, score
from ..results.report import (
    LONGEST_PROMPT,
    MARKDOWN,
    PREDICTIONS,
    RESULTS,
    headline,
    in_brackets,
    plain_table,
    remove_results,
    write_results,
)
from ..runtime.console import Progress, duration, say, tell, warn
from ..runtime.files import write_text
from ..runtime.session import AgreedError, Options, Session
from .identity import Identity, run_parts, settle, told_of
from .journal import Entry, Journal, read_folder, usable_answers
from .loop import LoopSettings, answer_all
from .questions import Question, QuestionKey, batch_size_per_process, distinct_questions, divide
from .scoring_check import check_scoring, without


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark of a run.

    Attributes:
        pipeline: with the declaration as the configuration has it.
        batch_size_total: questions answered at a time by all processes together.
        folder: where its journal and results go.
        optional: whether the run goes on without it where its files are missing (``all``).
    """

    pipeline: BenchmarkPipeline
    batch_size_total: int
    folder: Path
    optional: bool = False

    @property
    def dataset(self) -> str:
        """What ``DATASETS.TEST`` calls it."""
        return self.pipeline.declaration.dataset


@dataclass(frozen=True)
class Loaded:
    """A task with what its files hold.

    Attributes:
        task: see `Task`.
        records: in data order.
        bad: what could not be read.
    """

    task: Task
    records: list[Record]
    bad: list[BadRecord]


FAILED_SHARE = 0.5
"""Share of a benchmark's questions without an answer above which a run ends with an error, once it scored the rest."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a benchmark.

    Attributes:
        dataset: its name.
        results: what `results.json` holds, on the main process; None on others, and where nothing could be scored.
        failure: why the run must not end as if all were well; "" where it may. The same on every process.
    """

    dataset: str
    results: dict[str, Any] | None
    failure: str = ""


@dataclass(frozen=True)
class _Found:
    """What a process found of all benchmarks' files.

    Attributes:
        missing: dataset -> why it cannot be run here.
        bad: dataset -> records that cannot be scored, by id; on the main process.
    """

    missing: dict[str, str]
    bad: dict[str, Mapping[str, BadRecord]]


@dataclass(frozen=True)
class _Data:
    """What is asked of a benchmark: records and their questions, out of how many records in all."""

    records: list[Record]
    bad: list[BadRecord]
    questions: list[Question]
    of: int


@dataclass(frozen=True)
class _Start:
    """What a process brings to the start: a digest of its questions, the identity (main process), answers on disk."""

    digest: str
    identity: Identity | None
    entries: list[Entry]


def load_tasks(tasks: Sequence[Task], session: Session) -> tuple[list[Loaded], dict[str, str]]:
    """Read the files of all benchmarks, and try their scorers, before anything is asked. All processes must call it.

    Returns: the benchmarks that can be run, and why others cannot, by dataset name: optional ones without their files,
        and, where there are several, those that cannot be scored.

    Raises:
        AgreedError: the files of one that is not optional are missing or unreadable on some machine, or those of all;
            or the only one cannot be scored.
    """
    found: list[Loaded | str] = []
    shares = session.agree(lambda: _load_all(tasks, session, found))
    missing = {name: why for share in shares for name, why in share.missing.items()}
    unscorable = {name: bad for share in shares for name, bad in share.bad.items()}
    loaded = [
        replace(item, records=without(item.records, bad), bad=[*item.bad, *bad.values()])
        for item in found
        if isinstance(item, Loaded) and item.task.dataset not in missing
        for bad in [unscorable.get(item.task.dataset, {})]
    ]
    if not loaded:
        raise AgreedError("no benchmark can be run:\n" + "\n".join(f"{n}: {why}" for n, why in missing.items()))
    return loaded, missing


def _load_all(tasks: Sequence[Task], session: Session, found: list[Loaded | str]) -> _Found:
    """Read all benchmarks into ``found``; returns what cannot be run or scored here."""
    bad: dict[str, Mapping[str, BadRecord]] = {}
    for task in tasks:
        try:
            loaded = _load(task, session)
            if session.is_main:  # once for all of them: the scorer is the same everywhere
                bad[task.dataset] = _try_scorer(loaded, session)
            found.append(loaded)
        except DataError as error:
            if not task.optional and (len(tasks) == 1 or not isinstance(error, UnscorableError)):
                raise
            found.append(str(error))
    missing = {task.dataset: item for task, item in zip(tasks, found, strict=True) if isinstance(item, str)}
    return _Found(missing, bad)


def _load(task: Task, session: Session) -> Loaded:
    """Read a benchmark's files.

    Raises:
        UnscorableError: they hold no record that can be read and scored.
        DataError: they are missing or unreadable, or (``strict``) a record is malformed.
    """
    records, bad = task.pipeline.load(session.roots)
    _check_strict(bad, session)
    if not records:
        first = f": {bad[0].where}: {bad[0].reason}" if bad else ""
        raise UnscorableError(f"{task.dataset}: the files hold no record that can be read{first}")
    return Loaded(task, records, bad)


def _try_scorer(loaded: Loaded, session: Session) -> Mapping[str, BadRecord]:
    """Score a benchmark's records with their own targets and say the finding; returns those that cannot be scored.

    Raises:
        UnscorableError: nothing can be scored.
        DataError: ``strict``, and one record cannot.
    """
    check = check_scoring(loaded.task.pipeline, loaded.records)
    say(f"{loaded.task.dataset}: {check.sentence}")
    _check_strict(list(check.bad.values()), session)
    return check.bad


def _check_strict(bad: Sequence[BadRecord], session: Session) -> None:
    if bad and session.options.strict:
        raise DataError(f"{bad[0].where}: {bad[0].reason} (EVAL.STRICT False counts it and goes on)")


def run_task(loaded: Loaded, source: EngineSource, session: Session) -> Outcome:
    """Run one benchmark from its records to its results. All processes must call it.

    Raises:
        AgreedError: it cannot start; every process raises the same.
        DataError: ``strict``, and an image is unreadable.
        SampleError: the engine failed.
        RunError: the answers are incomplete.
    """
    begun = time.monotonic()
    task = loaded.task
    data: list[_Data] = []
    starts = session.agree(lambda: _prepare(loaded, source, session, data))
    identity = starts[0].identity
    if identity is None or len({start.digest for start in starts}) > 1:
        odd = [str(rank) for rank, start in enumerate(starts) if start.digest != starts[0].digest]
        raise AgreedError(f"the benchmark's files differ between machines: process {listed(odd)} read other records")
    answers = usable_answers((entry for start in starts for entry in start.entries), identity.accepted)
    answers = {question.key: answers[question.key] for question in data[0].questions if question.key in answers}
    entries = _answer_share(task, source, session, data[0], answers, identity.accepted[0])
    new = {entry.key: entry for share in session.gather(entries) for entry in share}
    failure = _failure(task.dataset, data[0].questions, {**answers, **new})
    results = None
    if session.is_main and not all(entry.error for entry in {**answers, **new}.values()):
        effort = Effort(
            seconds=time.monotonic() - begun, answered=len(new), processes=session.world, devices=session.devices
        )
        results = _finish(task, session, data[0], {**answers, **new}, effort, identity)
    return Outcome(dataset=task.dataset, results=results, failure=failure)


def _failure(dataset: str, questions: Sequence[Question], answers: Mapping[QuestionKey, Entry]) -> str:
    """Why a benchmark with these answers is no success: most or all of its questions have none; "" if it is one."""
    errors = [entry.error for question in questions if (entry := answers.get(question.key)) and entry.error]
    if len(errors) <= FAILED_SHARE * len(questions):
        return ""
    if len(errors) == len(questions):
        return f"{dataset}: none of its {len(questions)} questions has an answer, nothing is scored; {errors[0]}"
    return f"{dataset}: {len(errors)} of {len(questions)} questions have no answer; the first: {errors[0]}"


def _prepare(loaded: Loaded, source: EngineSource, session: Session, data: list[_Data]) -> _Start:
    """Word the questions (into ``data``) and find what has been answered; the main process settles the identity.

    Raises:
        DataError, RunError, CheckpointError: see ``session.py``, `USER_ERRORS`.
    """
    task, records = loaded.task, loaded.records
    asked = task.pipeline.part(records, session.options.limit, session.options.seed)
    questions = distinct_questions((record, task.pipeline.prompt(record)) for record in asked)
    data.append(_Data(asked, loaded.bad, questions, len(records)))
    identity = _settle(task, source, session, records) if session.is_main else None
    wanted = {question.key for question in questions}
    visible = read_folder(task.folder / "journal") if session.accelerator.is_local_main_process else ()
    digest = hashlib.sha256(repr([(question.key, question.ids) for question in questions]).encode()).hexdigest()
    return _Start(digest, identity, [entry for entry in visible if entry.key in wanted and entry.error is None])


def _settle(task: Task, source: EngineSource, session: Session, records: Sequence[Record]) -> Identity:
    """Compare with what the folder holds, and describe the run in it."""
    parts = run_parts(task.pipeline.declaration, records, source.parts())
    identity = settle(task.folder / "run.json", parts, session.options.on_change, session.about)
    if identity.changed:
        remove_results(task.folder)
        remove_crayons(task.folder)
    write_text(task.folder / "config.yaml", session.config_yaml)
    return identity


def _answer_share(
    task: Task,
    source: EngineSource,
    session: Session,
    data: _Data,
    answers: dict[QuestionKey, Entry],
    run: str,
) -> list[Entry]:
    """Answer this process's part of what is left; the model is loaded only if there is such a part."""
    name = task.dataset
    left = [question for question in data.questions if question.key not in answers]
    share = divide(left, session.world)[session.rank]
    size = batch_size_per_process(task.batch_size_total, session.world)
    if session.is_main:
        say(_introduction(task.pipeline.declaration, data, len(left), size))
        if left and (loading := source.weights()):
            say(loading)
    if not share:
        return []
    from collavo.engine import Generation

    begun, first = time.monotonic(), bool(source.weights())
    engine = source.engine()
    if session.is_main and first:
        say(f"{name}: model ready after {duration(time.monotonic() - begun)}")
    declaration = task.pipeline.declaration
    settings = LoopSettings(
        run=run,
        batch_size=size,
        workers=session.options.workers,
        strict=session.options.strict,
        generation=Generation(num_beams=declaration.num_beams, max_new_tokens=declaration.max_new_tokens),
    )
    by_id = {record.id: record for record in data.records}
    label = name if session.world == 1 else f"{name} (process 0 of {session.world})"
    file = task.folder / "journal" / f"process-{session.rank}.jsonl"
    unit = "images" if declaration.measures_maps else "questions"
    with (
        Journal(file) as journal,
        kept_maps(engine, task.folder, session.rank),
        Progress(label, len(share), shown=session.is_main, unit=unit) as progress,
    ):
        return answer_all(
            share,
            engine,
            journal,
            lambda record, text: task.pipeline.score(by_id[record], text).extracted,
            settings,
            progress,
        )


def _introduction(benchmark: Benchmark, data: _Data, left: int, batch_size: int) -> str:
    """What is about to be asked, with the first question as the model gets it, or what is to be segmented."""
    first = data.questions[0]
    images = len({question.image.name for question in data.questions if question.image is not None})
    done = len(data.questions) - left
    asked = [f"  first question: {quoted(first.prompt, LONGEST_PROMPT)}"]
    if benchmark.measures_maps:
        asked = ["  the segmenter's maps are compared with the true ones; no language model is asked"]
    part = f"a random {len(data.records)} of {data.of}" if len(data.records) < data.of else str(data.of)
    lines = [
        f"{benchmark.dataset}: {part} records, {images} images, "
        f"{len(data.questions)} distinct questions; {done} answered before, {left} to answer, "
        f"{batch_size} at a time on each process",
        f"  first image:  {inline(first.image.name) if first.image else 'none'}",
        *asked,
    ]
    if data.bad:
        lines.append(f"  bad records:    {len(data.bad)}, the first at {data.bad[0].where}: {data.bad[0].reason}")
    return "\n".join(lines)


def _finish(
    task: Task,
    session: Session,
    data: _Data,
    answers: dict[QuestionKey, Entry],
    effort: Effort,
    identity: Identity,
) -> dict[str, Any]:
    """Score, write, and show."""
    entries = join(data.records, data.questions, answers)
    texts = [(record, text_of(entries[record.id])) for record in data.records]
    if kept := set_aside(task.folder, decider(task.pipeline.declaration, session.judge)):
        say(f"{task.dataset}: the earlier results, decided by {in_words(kept[1])}, are kept in {kept[0]}")
    evaluation, judgement = score(task.pipeline, texts, session.judge, task.folder)
    answered = Answered(records=data.records, bad=data.bad, entries=entries, evaluation=evaluation, judgement=judgement)
    about = {
        **about_model(session.options, task.dataset),
        **about_part(session.options, len(data.records), data.of),
        "fingerprint": identity.fingerprint,
        **told_of(task.folder / "run.json"),
        **session.about,
    }
    results = summary(task.pipeline, answered, effort, about)
    publish(task.folder, answered, task.pipeline.declaration, results, brief=session.brief, roots=session.roots)
    session.track(flat(results["scores"], task.pipeline.declaration.name + in_brackets(part_in_words(results))))
    return results


def about_model(options: Options, dataset: str) -> dict[str, Any]:
    """What results say of the model that answered, see `Options`."""
    return {"another_model": options.another_model, "untaught": dataset in options.untaught}


def about_part(options: Options, asked: int, of: int) -> dict[str, Any]:
    """What results say of a limited run; ``part`` is None where the limit left nothing out."""
    part = {"records": asked, "of": of, "seed": options.seed} if asked < of else None
    return {"limit": options.limit, "part": part}


def publish(
    folder: Path,
    answered: Answered,
    benchmark: Benchmark,
    results: Mapping[str, Any],
    *,
    brief: bool = False,
    roots: Sequence[Path] = (),
) -> None:
    """Write a benchmark's results and the file for its server, and show them.

    Args:
        folder: where they go.
        answered: see `Answered`.
        benchmark: the declaration.
        results: see `pipeline.results.join.summary`.
        brief: show a line instead of all figures, since a table of several benchmarks follows.
        roots: dataset folders, below which the predictions file names images.
    """
    write_results(folder, predictions(answered, benchmark, roots), results)
    shown = [("predictions", folder / PREDICTIONS), ("results", folder / RESULTS)]
    if benchmark.scorer in SUBMISSIONS and results.get("part") is None:  # a server takes whole ones
        shown.append(("submission", write_submission(benchmark.scorer, answered.evaluation.scored, folder)))
    for sentence in warnings(results, folder):
        warn(sentence)
    if brief:
        say(f"{benchmark.dataset}: {headline(results)}; {folder / MARKDOWN}")
        return
    files = "".join(f"\n{label + ':':<13}{file}" for label, file in shown)
    tell(f"\n{plain_table(results)}\n{files}\n")
