"""One benchmark of a run: divide its questions among the processes, answer, score, and write the results.

There are two moments when processes talk: at the start, when they put together which questions are already answered
(journals of all machines count), and at the end, when the main process collects the answers. A process that fails in
between ends at once, and the launcher ends the others; nothing that was answered is lost.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.types import BadRecord, DataError, Record

from .base import BenchmarkPipeline
from .files import write_text
from .identity import Identity, run_parts, settle
from .journal import Entry, Journal, read_folder, usable_answers
from .loop import LoopSettings, answer_all
from .progress import Progress, duration, say, warn
from .report import PREDICTIONS, RESULTS, plain_table, remove_results, write_results
from .results import Effort, flat, judge, listed, predictions, summary, warnings
from .session import AgreedError, EngineSource, Session
from .shard import Question, QuestionKey, batch_size_per_process, distinct_questions, divide


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark of a run.

    Attributes:
        pipeline: with the declaration as the configuration has it.
        batch_size_total: questions answered at a time by all processes together.
        folder: where its journal and results go.
    """

    pipeline: BenchmarkPipeline
    batch_size_total: int
    folder: Path


@dataclass(frozen=True)
class _Data:
    """A benchmark's records and the questions they ask."""

    records: list[Record]
    bad: list[BadRecord]
    questions: list[Question]


@dataclass(frozen=True)
class _Start:
    """What a process brings to the start: a digest of its questions, the identity (main process), answers on disk."""

    digest: str
    identity: Identity | None
    entries: list[Entry]


def run_task(task: Task, source: EngineSource, session: Session) -> None:
    """Run one benchmark from its files to its results. All processes must call it.

    Raises:
        AgreedError: it cannot start; every process raises the same.
        DataError: ``strict``, and a picture is unreadable.
        SampleError: the engine failed.
        RunError: the answers are incomplete.
    """
    begun = time.monotonic()
    data: list[_Data] = []
    starts = session.agree(lambda: _prepare(task, source, session, data))
    identity = starts[0].identity
    if identity is None or len({start.digest for start in starts}) > 1:
        odd = [str(rank) for rank, start in enumerate(starts) if start.digest != starts[0].digest]
        raise AgreedError(f"the benchmark's files differ between machines: process {listed(odd)} read other records")
    answers = usable_answers((entry for start in starts for entry in start.entries), identity.accepted)
    answers = {question.key: answers[question.key] for question in data[0].questions if question.key in answers}
    entries = _answer_share(task, source, session, data[0], answers, identity.accepted[0])
    gathered = session.gather(entries)
    if session.is_main:
        new = {entry.key: entry for share in gathered for entry in share}
        effort = Effort(
            seconds=time.monotonic() - begun, answered=len(new), processes=session.world, devices=session.devices
        )
        _finish(task, session, data[0], {**answers, **new}, effort, identity)


def _prepare(task: Task, source: EngineSource, session: Session, data: list[_Data]) -> _Start:
    """Read the benchmark (into ``data``) and what has been answered; the main process settles the identity.

    Raises:
        DataError, RunError, CheckpointError: see ``session.py``, `USER_ERRORS`.
    """
    records, bad = task.pipeline.load(session.roots)
    if bad and session.options.strict:
        raise DataError(f"{bad[0].where}: {bad[0].reason} (EVAL.STRICT False counts it and goes on)")
    if not records:
        raise DataError(f"{task.pipeline.declaration.name}: the files hold no record" + (f": {bad[0]}" if bad else ""))
    asked = records if session.options.limit is None else records[: session.options.limit]
    questions = distinct_questions((record, task.pipeline.prompt(record)) for record in asked)
    data.append(_Data(asked, bad, questions))
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
    name = task.pipeline.declaration.dataset
    left = [question for question in data.questions if question.key not in answers]
    share = divide(left, session.world)[session.rank]
    size = batch_size_per_process(task.batch_size_total, session.world)
    if session.is_main:
        say(_introduction(name, data, len(left), size))
        if left:
            say(source.weights())
    if not share:
        return []
    from collavo.engine import Generation

    begun = time.monotonic()
    engine = source.engine()
    if session.is_main:
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
    with Journal(file) as journal, Progress(label, len(share), shown=session.is_main) as progress:
        return answer_all(
            share,
            engine,
            journal,
            lambda record, text: task.pipeline.score(by_id[record], text).extracted,
            settings,
            progress,
            session.between,
        )


def _introduction(name: str, data: _Data, left: int, batch_size: int) -> str:
    """What is about to be asked, with the first question as the model gets it."""
    first = data.questions[0]
    pictures = len({question.image.name for question in data.questions if question.image is not None})
    done = len(data.questions) - left
    lines = [
        f"{name}: {len(data.records)} records, {pictures} pictures, {len(data.questions)} distinct questions; "
        f"{done} answered before, {left} to answer, {batch_size} at a time on each process",
        f"  first picture:  {first.image.name if first.image else 'none'}",
        f"  first question: {first.prompt!r}",
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
) -> None:
    """Score, write, and show."""
    answered = judge(task.pipeline, data.records, data.bad, data.questions, answers)
    about = {
        "limit": session.options.limit,
        "fingerprint": identity.fingerprint,
        "changes": list(identity.changes),
        **session.about,
    }
    results = summary(task.pipeline, answered, effort, about)
    write_results(task.folder, predictions(answered), results)
    for sentence in warnings(results):
        warn(sentence)
    sys.stdout.write(
        f"\n{plain_table(results)}\n\npredictions: {task.folder / PREDICTIONS}\nresults:     {task.folder / RESULTS}\n"
    )
    sys.stdout.flush()
    session.track(flat(results["scores"], task.pipeline.declaration.name))
