"""The benchmarks of a run with what their files hold: read, and their scorers tried, before anything is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets.evaluation.scorable import UnscorableError, check_scoring, without_ids
from datasets.types import BadRecord, DataError, Record

from ..base import BenchmarkPipeline
from ..runtime.console import say
from ..runtime.session import AgreedError, Session
from .spool import SpooledValue, spooled, unspool


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark of a run.

    Attributes:
        pipeline: with the declaration as the configuration has it.
        batch_size_total: questions that a process answers at a time at first; memory and ``EVAL.MAX_BATCH`` decide
            how many later.
        folder: where its journal and results go.
        optional: whether the run goes on without it where its files are missing (``all``).
        search: further settings of `Generation`, which the model's profile has.
    """

    pipeline: BenchmarkPipeline
    batch_size_total: int
    folder: Path
    optional: bool = False
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """What ``DATASETS.TEST`` calls it."""
        return self.pipeline.declaration.dataset


@dataclass(frozen=True)
class LoadedTask:
    """A task with what its files hold.

    Attributes:
        task: see `Task`.
        records: in data order.
        bad: what could not be read.
    """

    task: Task
    records: list[Record]
    bad: list[BadRecord]


SPOOL_SECONDS = 1.0
"""How long reading the annotations takes at least for the processes of a machine to share what one of them has read."""


def load_tasks(tasks: Sequence[Task], session: Session) -> tuple[list[LoadedTask], dict[str, str]]:
    """Read the files of all benchmarks, and try their scorers, before anything is asked. All processes must call it.

    Returns: the benchmarks that can be run, and why others cannot, by dataset name: optional ones without their files,
        and, where there are several, those that cannot be scored.

    Raises:
        AgreedError: the files of one that is not optional are missing or unreadable on some machine, or those of all;
            or the only one cannot be scored.
    """
    found, absent, malformed = _load_once(tasks, session)
    shares = session.gather((absent, malformed))
    missing = {name: why for share, _ in shares for name, why in share.items()}
    unscorable = {name: bad for _, share in shares for name, bad in share.items()}
    loaded = [
        replace(item, records=without_ids(item.records, bad), bad=[*item.bad, *bad.values()])
        for item in found
        if item.task.dataset not in missing
        for bad in [unscorable.get(item.task.dataset, {})]
    ]
    if not loaded:
        raise AgreedError("no benchmark can be run:\n" + "\n".join(f"{n}: {why}" for n, why in missing.items()))
    return loaded, missing


def _load_once(
    tasks: Sequence[Task], session: Session
) -> tuple[list[LoadedTask], dict[str, str], dict[str, Mapping[str, BadRecord]]]:
    """Read all benchmarks, see `_load_all`; where that takes long, once on each machine. All processes must call it.

    The first process of a machine reads, and the others take over what it found: they would read the same files at the
    same time. What is read quickly, they read for themselves.

    Raises:
        AgreedError: see `load_tasks`.
    """
    first = session.first_on_machine
    serves = session.gather(first).count(session.rank) > 1
    begun = time.monotonic()
    read = session.together(lambda: _load_all(tasks, session) if session.rank == first else None)
    with ExitStack() as held:
        spool = None
        if read is not None and serves and time.monotonic() - begun >= SPOOL_SECONDS:
            loaded, missing, _ = read
            spool = held.enter_context(
                spooled(([(tasks.index(item.task), item.records, item.bad) for item in loaded], missing))
            )
        theirs = session.gather(spool)[first]
        found = session.together(lambda: read or _unspool(tasks, theirs) or _load_all(tasks, session))
    return found


def _unspool(
    tasks: Sequence[Task], spool: SpooledValue | None
) -> tuple[list[LoadedTask], dict[str, str], dict[str, Mapping[str, BadRecord]]] | None:
    """What another process has read; None where it left nothing that can be used here."""
    value = None if spool is None else unspool(spool)
    if value is None:
        return None
    loaded, missing = value
    return [LoadedTask(tasks[index], records, bad) for index, records, bad in loaded], missing, {}


def _load_all(
    tasks: Sequence[Task], session: Session
) -> tuple[list[LoadedTask], dict[str, str], dict[str, Mapping[str, BadRecord]]]:
    """Read all benchmarks.

    Returns: those that can be read; why others cannot be run here, by dataset; and, on the main process, records that
        cannot be scored, by dataset and id.
    """
    found: list[LoadedTask] = []
    missing: dict[str, str] = {}
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
            missing[task.dataset] = str(error)
    return found, missing, bad


def _load(task: Task, session: Session) -> LoadedTask:
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
    return LoadedTask(task, records, bad)


def _try_scorer(loaded: LoadedTask, session: Session) -> Mapping[str, BadRecord]:
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
    if bad and session.options.STRICT:
        raise DataError(f"{bad[0].where}: {bad[0].reason} (EVAL.STRICT False counts it and goes on)")
