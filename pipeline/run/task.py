"""One benchmark of a run: divide its questions among the processes, answer, score, and write the results.

There are two moments when processes talk: at the start, when they put together which questions are already answered
(journals of all machines count), and at the end, when the main process collects the answers. In between a process that
has finished takes over what others have left, through files (``pipeline/run/claims.py``). A process that fails ends at
once, and the launcher ends the others; nothing that was answered is lost.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.common.words import listed, quoted
from configs.common.words import shown as inline
from datasets.declaration import Benchmark
from datasets.evaluation.registry import scorer_of
from datasets.evaluation.submission import write_submission
from datasets.types import BadRecord, Record

from ..base import EngineSource, LoadsAhead, StreamingAnswerer
from ..models.segmenter_maps import MapSource
from ..results.browse.crayons import kept_maps, remove_crayons
from ..results.join import AnsweredBenchmark, RunEffort, flat, part_in_words, predictions, summary, warnings
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
from ..runtime.session import AgreedError, Session
from .claims import PREFIX, ClaimFolder, FolderGroup, find_groups, group_of, remove_claims
from .identity import RunIdentity, remarks_of, run_parts, settle
from .journal import Journal, JournalEntry, answers_by_record, file_name, read_folder, usable_answers
from .loading import LoadedTask, Task
from .loop import LoopSettings, answer_all, answer_stream
from .questions import Question, QuestionKey, WorkQueue, distinct_questions, divide

if TYPE_CHECKING:
    from ..runtime.options import RunConfig

MISSING = "missing_ids.txt"
"""File of a run's folder on each of several machines without a common file system: ids that its journal lacks."""
FAILED_SHARE = 0.5
"""Share of a benchmark's questions without an answer above which a run ends with an error, once it scored the rest."""


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
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
class _Data:
    """What is asked of a benchmark: records and their questions, out of how many records in all."""

    records: list[Record]
    bad: list[BadRecord]
    questions: list[Question]
    of: int

    def digest(self) -> str:
        """Equal on processes that would ask the same."""
        return hashlib.sha256(repr([(question.key, question.ids) for question in self.questions]).encode()).hexdigest()


def run_task(loaded: LoadedTask, source: EngineSource, session: Session) -> TaskOutcome:
    """Run one benchmark from its records to its results. All processes must call it.

    Raises:
        AgreedError: it cannot start; every process raises the same.
        DataError: ``strict``, and an image is unreadable.
        SampleError: the engine failed.
        RunError: the answers are incomplete.
    """
    begun = time.monotonic()
    task, journal = loaded.task, loaded.task.folder / "journal"
    data = _word(loaded, session)
    if task.pipeline.declaration.measures_maps:  # what answers is the segmenter alone
        source = MapSource(source, loaded.records, task.folder)
    identity, token = _begin(loaded, data, source, session)
    groups = find_groups(journal / f"{PREFIX}{token}", session)
    group = group_of(session.rank, groups)
    known = session.gather(session.together(lambda: _answered_before(journal, data, session.rank == group.ranks[0])))
    answers = usable_answers((entry for entries in known for entry in entries), identity.accepted)
    answers = {question.key: answers[question.key] for question in data.questions if question.key in answers}
    entries = _answer_share(task, source, session, data, answers, identity.accepted[0], group, token)
    shares = session.gather(entries)
    new = {entry.key: entry for share in shares for entry in share}
    if session.rank == group.ranks[0]:
        remove_claims(journal)
        (task.folder / MISSING).unlink(missing_ok=True)
    if len(groups) > 1:
        _name_missing(task, session, data.questions, groups, [[*k, *s] for k, s in zip(known, shares, strict=True)])
    failure = _failure(task.dataset, data.questions, {**answers, **new})
    results = None
    if session.is_main and not all(entry.error for entry in {**answers, **new}.values()):
        effort = RunEffort(
            seconds=time.monotonic() - begun, answered=len(new), processes=session.world, devices=session.devices
        )
        results = _finish(task, session, data, {**answers, **new}, effort, identity)
    return TaskOutcome(dataset=task.dataset, results=results, failure=failure)


def _failure(dataset: str, questions: Sequence[Question], answers: Mapping[QuestionKey, JournalEntry]) -> str:
    """Why a benchmark with these answers is no success: most or all of its questions have none; "" if it is one."""
    errors = [entry.error for question in questions if (entry := answers.get(question.key)) and entry.error]
    if len(errors) <= FAILED_SHARE * len(questions):
        return ""
    if len(errors) == len(questions):
        return f"{dataset}: none of its {len(questions)} questions has an answer, nothing is scored; {errors[0]}"
    return f"{dataset}: {len(errors)} of {len(questions)} questions have no answer; the first: {errors[0]}"


def _word(loaded: LoadedTask, session: Session) -> _Data:
    """Draw the part that is asked, and word its questions. All processes must call it.

    Raises:
        AgreedError: a prompt names a field that a record lacks.
    """
    task, options = loaded.task, session.options

    def word() -> _Data:
        asked = task.pipeline.part(loaded.records, options.LIMIT, options.SEED)
        questions = distinct_questions((record, task.pipeline.prompt(record)) for record in asked)
        return _Data(asked, loaded.bad, questions, len(loaded.records))

    return session.together(word)


def _begin(loaded: LoadedTask, data: _Data, source: EngineSource, session: Session) -> tuple[RunIdentity, str]:
    """Settle the run's identity, on the main process, and see that all would ask the same. All processes must call it.

    Returns: the identity, and a token of this session.

    Raises:
        AgreedError: the folder holds answers of another run, or the processes have read other records.
    """
    identity = session.together(
        lambda: _settle(loaded.task, source, session, loaded.records) if session.is_main else None
    )
    starts = session.gather((data.digest(), identity, secrets.token_hex(4)))
    first, settled, token = starts[0]
    odd = [str(rank) for rank, (digest, *_) in enumerate(starts) if digest != first]
    if settled is None or odd:
        raise AgreedError(f"the benchmark's files differ between machines: process {listed(odd)} read other records")
    return settled, token


def _answered_before(journal: Path, data: _Data, reads: bool) -> list[JournalEntry]:
    """The answers of earlier sessions that lie in a group's folder; its first process reads them for all."""
    if not reads:
        return []
    wanted = {question.key for question in data.questions}
    return [entry for entry in read_folder(journal) if entry.key in wanted and entry.settled]


def _settle(task: Task, source: EngineSource, session: Session, records: Sequence[Record]) -> RunIdentity:
    """Compare with what the folder holds, and describe the run in it."""
    parts = run_parts(task.pipeline.declaration, records, source.parts())
    identity = settle(task.folder / "run.json", parts, session.options.ON_CHANGE, session.about)
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
    answers: dict[QuestionKey, JournalEntry],
    run: str,
    group: FolderGroup,
    token: str,
) -> list[JournalEntry]:
    """Answer this process's part of what is left, then what others in its group have not begun.

    The model is loaded only if the process has a part.
    """
    name, journal_folder = task.dataset, task.folder / "journal"
    left = [question for question in data.questions if question.key not in answers]
    shares = divide(left, session.world)
    share = shares[session.rank]
    # batches of a small share stay small, so that others can take over what is left of it
    most = min(session.options.MAX_BATCH, max(task.batch_size_total, len(share) // 8))
    size = min(task.batch_size_total, most)
    if session.is_main:
        say(_introduction(task.pipeline.declaration, data, len(left), most))
        if left and (loading := source.weights()):
            say(loading)
    if not share:
        return []
    from collavo.engine import Generation

    begun, first = time.monotonic(), bool(source.weights())
    engine = source.engine_ahead() if isinstance(source, LoadsAhead) else source.engine()
    if session.is_main and first:
        say(f"{name}: model ready after {duration(time.monotonic() - begun)}")
    declaration = task.pipeline.declaration
    settings = LoopSettings(
        run=run,
        batch_size=size,
        most=most,
        options=session.options,
        generation=Generation(
            num_beams=declaration.num_beams, max_new_tokens=declaration.max_new_tokens, **task.search
        ),
    )
    label = name if session.world == 1 else f"{name} (process 0 of {session.world})"
    unit = "images" if declaration.measures_maps else "questions"
    with (
        Journal(journal_folder / file_name(session.rank, token)) as journal,
        kept_maps(engine, task.folder, session.rank),
        Progress(label, len(share), shown=session.is_main, unit=unit) as progress,
    ):
        if isinstance(engine, StreamingAnswerer):  # its questions are under way all at once
            return answer_stream(share, engine, journal, settings, progress)
        claims = ClaimFolder(journal_folder / f"{PREFIX}{token}") if len(group.ranks) > 1 else None
        queue = WorkQueue(shares, session.rank, group.ranks, claims, progress.expect)
        return answer_all(queue, engine, journal, settings, progress)


def _name_missing(
    task: Task,
    session: Session,
    questions: Sequence[Question],
    groups: Sequence[FolderGroup],
    entries: Sequence[Sequence[JournalEntry]],
) -> None:
    """Say which answers the folder of each group of processes lacks, and leave the whole list in it.

    Args:
        task: of the benchmark.
        session: of this process.
        questions: all of them.
        groups: of processes; those of one share a folder.
        entries: that each process has read or written, by rank.
    """
    lines = []
    for group in groups:
        held = {entry.key for rank in group.ranks for entry in entries[rank] if entry.settled}
        missing = [name for question in questions if question.key not in held for name in question.ids]
        if session.rank == group.ranks[0]:
            write_text(task.folder / MISSING, "".join(f"{inline(name)}\n" for name in missing))
        ranks = ", ".join(map(str, group.ranks))
        lines.append(f"  {', '.join(group.hosts)} (process {ranks}): {len(missing)} records: {listed(missing)}")
    if session.is_main:
        say(
            f"note: {task.dataset}: the processes share no folder, so none takes work over from another, and each "
            f"folder's journal lacks what others have answered ({MISSING} lists it there; docs/machines.md "
            "brings journals together):\n" + "\n".join(lines)
        )


def _introduction(benchmark: Benchmark, data: _Data, left: int, most: int) -> str:
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
        f"at most {most} at a time on each process",
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
    answers: dict[QuestionKey, JournalEntry],
    effort: RunEffort,
    identity: RunIdentity,
) -> dict[str, Any]:
    """Score, write, and show."""
    entries = answers_by_record(data.records, data.questions, answers)
    texts = [(record, entries[record.id].reply) for record in data.records]
    if kept := set_aside(task.folder, decider(task.pipeline.declaration, session.judge)):
        say(f"{task.dataset}: the earlier results, decided by {in_words(kept[1])}, are kept in {kept[0]}")
    evaluation, judgement = score(task.pipeline, texts, session.judge, task.folder)
    answered = AnsweredBenchmark(
        records=data.records, bad=data.bad, entries=entries, evaluation=evaluation, judgement=judgement
    )
    about = {
        **about_model(session.options, session.another_model, task.dataset),
        **about_part(session.options, len(data.records), data.of),
        "fingerprint": identity.fingerprint,
        **remarks_of(task.folder / "run.json"),
        **session.about,
    }
    results = summary(task.pipeline, answered, effort, about)
    publish(task.folder, answered, task.pipeline.declaration, results, brief=session.brief, roots=session.roots)
    session.track(flat(results["scores"], task.pipeline.declaration.name + in_brackets(part_in_words(results))))
    return results


def about_model(options: RunConfig, another_model: str, dataset: str) -> dict[str, Any]:
    """What results say of the model that answered, see `pipeline.run.plan.another_model`."""
    return {"another_model": another_model, "untaught": dataset in options.UNTAUGHT}


def about_part(options: RunConfig, asked: int, of: int) -> dict[str, Any]:
    """What results say of a limited run; ``part`` is None where the limit left nothing out."""
    part = {"records": asked, "of": of, "seed": options.SEED} if asked < of else None
    return {"limit": options.LIMIT, "part": part}


def publish(
    folder: Path,
    answered: AnsweredBenchmark,
    benchmark: Benchmark,
    results: Mapping[str, Any],
    *,
    brief: bool = False,
    roots: Sequence[Path] = (),
) -> None:
    """Write a benchmark's results and the file for its server, and show them.

    Args:
        folder: where they go.
        answered: see `AnsweredBenchmark`.
        benchmark: the declaration.
        results: see `pipeline.results.join.summary`.
        brief: show a line instead of all figures, since a table of several benchmarks follows.
        roots: dataset folders, below which the predictions file names images.
    """
    write_results(folder, predictions(answered, benchmark, roots), results)
    shown = [("predictions", folder / PREDICTIONS), ("results", folder / RESULTS)]
    submission = scorer_of(benchmark).submission
    if submission is not None and results.get("part") is None:  # a server takes whole ones
        shown.append(("submission", write_submission(submission, answered.evaluation.scored, folder)))
    for sentence in warnings(results, folder):
        warn(sentence)
    if brief:
        say(f"{benchmark.dataset}: {headline(results)}; {folder / MARKDOWN}")
        return
    files = "".join(f"\n{label + ':':<13}{file}" for label, file in shown)
    tell(f"\n{plain_table(results)}\n{files}\n")
