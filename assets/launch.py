"""``accelerate launch`` for `bash run`: the same launcher, which leaves the last word to the processes that it started.

A process that ends with an error says why itself. torchrun would add its own table, two log lines and a traceback of
the launcher, with nothing in them that helps; here the launcher speaks only where no process could, because a signal
ended it. The exit code is that of the first process that failed.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Sequence

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

LOGGER = "torch.distributed.elastic.multiprocessing.api"
EXPECTED = ("failed (exitcode:", "Sending process", "Closing process")
"""What torchrun logs when a process has failed and the others are ended."""
SIGNALLED = 128
"""Added to the number of the signal that ended a process, as shells do."""


def main(arguments: Sequence[str]) -> int:
    """Launch.

    Args:
        arguments: those of ``accelerate launch``.
    Returns: the exit code.
    """
    logging.getLogger(LOGGER).addFilter(lambda record: not str(record.msg).startswith(EXPECTED))
    try:
        launch_command(launch_command_parser().parse_args(list(arguments)))
    except ChildFailedError as error:
        return report(error.failures)
    except subprocess.CalledProcessError as error:  # of a single process, which torchrun does not start
        return code_of(error.returncode)
    except SignalException as error:  # the launcher was asked to end, and has ended its processes
        return SIGNALLED + int(error.sigval)
    except KeyboardInterrupt:
        return SIGNALLED + int(signal.SIGINT)
    return 0


def report(failures: dict[int, ProcessFailure]) -> int:
    """Say which process a signal ended, if that is why the run ended; returns the exit code."""
    rank, first = min(failures.items(), key=lambda item: (item[1].exitcode == -signal.SIGTERM, item[1].timestamp))
    if first.exitcode < 0:
        name = first.signal_name()
        hint = "; the system does so where memory runs out" if name == "SIGKILL" else ""
        sys.stderr.write(f"error: process {rank} was ended by {name} (signal {-first.exitcode}){hint}\n")
    return code_of(first.exitcode)


def code_of(exitcode: int) -> int:
    """The exit code of a process as a shell has it."""
    return SIGNALLED - exitcode if exitcode < 0 else exitcode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
