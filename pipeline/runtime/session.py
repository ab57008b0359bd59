"""What one process knows of the run it takes part in, how processes agree, and how one that fails ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from collavo.errors import CheckpointError
from configs.common.escape import terminal_lines
from configs.common.memory_errors import is_out_of_memory
from configs.errors import ConfigError
from datasets.types import DataError
from modeling.segmenters.errors import SegmenterError

from .console import Verbosity, complain, say
from .errors import RunError, SampleError
from .files import WriteError, make_folder, write_text
from .lock import sole_use

if TYPE_CHECKING:
    from accelerate import Accelerator

    from datasets.evaluation.judges.base import Judge

    from .options import RunConfig

T = TypeVar("T")
USER_ERRORS = (ConfigError, RunError, DataError, CheckpointError, SegmenterError, WriteError)
"""Mistakes in settings, files and data, and disks that are full: shown as a message, without a traceback."""


class AgreedError(RunError):
    """An error that every process knows of, so that only the main one needs to show it."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A process's part in a run.

    Attributes:
        accelerator: joins the processes.
        options: section ``EVAL`` of the configuration.
        roots: dataset folders.
        devices: of all processes.
        about: copied into every result: configuration hash, commit, versions.
        config_yaml: the resolved configuration, saved next to every result.
        tracked: whether metrics also go to the accelerator's trackers.
        step: updates of the training run that this is a part of, for the trackers; None outside of one.
        another_model: see `pipeline.run.plan.another_model`.
        judge: helps to score, on the main process; None where there is none.
        brief: say little of each benchmark, since a table of several follows.
    """

    accelerator: Accelerator
    options: RunConfig
    roots: Sequence[Path]
    devices: Sequence[str]
    about: Mapping[str, Any]
    config_yaml: str
    tracked: bool = False
    step: int | None = None
    another_model: str = ""
    judge: Judge | None = None
    brief: bool = False

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def first_on_machine(self) -> int:
        """Number of the first process on this machine; a launcher numbers those of a machine one after the other."""
        return self.rank - int(self.accelerator.local_process_index)

    @property
    def is_main(self) -> bool:
        """Whether this process talks and writes results."""
        return self.rank == 0

    def track(self, metrics: Mapping[str, float | int]) -> None:
        """Hand metrics to the trackers, if there are any; those of the main process take them."""
        if self.tracked:
            self.accelerator.log(dict(metrics), step=self.step)

    def gather(self, value: T) -> list[T]:
        """One value of each process, by rank, on every process. All must call it."""
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def together(self, do: Callable[[], T]) -> T:
        """Do something on every process, and go on only if it succeeded on all. All must call it.

        Returns: what ``do`` returned on this process; it goes to no other.

        Raises:
            AgreedError: the errors of the processes on which it failed.
        """
        done: list[T] = []
        reason = ""
        try:
            done.append(do())
        except (*USER_ERRORS, OSError) as error:
            reason = str(error) or type(error).__name__
        failed = {rank: why for rank, why in enumerate(self.gather(reason)) if why}
        if failed:
            raise AgreedError(_merged(failed, self.world))
        return done[0]

    @contextmanager
    def sole_use(self, folders: Sequence[Path]) -> Iterator[None]:
        """Let the main process hold folders for the run alone. All must call it.

        Raises:
            AgreedError: another run has one of them, or it cannot be written to.
        """
        with ExitStack() as held:
            self.together(lambda: held.enter_context(sole_use(folders)) if self.is_main else None)
            yield


def _merged(failed: Mapping[int, str], world: int) -> str:
    """Errors of several processes as one message; said once if all have the same."""
    by_reason: dict[str, list[int]] = {}
    for rank, why in failed.items():
        by_reason.setdefault(why, []).append(rank)
    if list(by_reason.values()) in ([list(range(world))], [[0]]):  # what the main process alone looked at, too
        return next(iter(by_reason))
    return "\n".join(f"[process {', '.join(map(str, ranks))}] {why}" for why, ranks in by_reason.items())


def report_failure(error: BaseException, folder: Path | None, rank: int) -> None:
    """Say why this process ends, and leave the details in a file.

    Args:
        error: a user's mistake is shown as its message alone.
        folder: of the run, where ``errors/process-<rank>.log`` is written; None where there is none yet.
        rank: of this process.
    """
    if isinstance(error, USER_ERRORS):
        say(f"error: {error}" if rank == 0 else f"[process {rank}] error: {error}", Verbosity.QUIET)
        return
    cause, samples = error, ""
    if isinstance(error, SampleError):
        cause, samples = error.__cause__ or error, f" while answering {error}"
    head = f"[process {rank}] {type(cause).__name__}{samples}: {cause}{_hint(cause)}"
    details = "".join(traceback.format_exception(error))
    log = _write_log(folder, rank, f"{head}\n\n{details}")
    complain(f"{head}\n" + (f"details: {log}" if log else details))


def _hint(error: BaseException) -> str:
    if is_out_of_memory(error):
        return " Use a smaller EVAL.MAX_BATCH, LLM.BITS 4, or more memory."
    return ""


def _write_log(folder: Path | None, rank: int, text: str) -> Path | None:
    if folder is None:
        return None
    log = folder / "errors" / f"process-{rank}.log"
    try:
        make_folder(log.parent)
        write_text(log, terminal_lines(text))
    except OSError:
        return None  # a full or lost disk may be the very reason; the caller then shows everything
    return log


def exit_at_once(code: int) -> None:
    """End this process at once, without waiting for others or for threads; the launcher then ends the rest."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
