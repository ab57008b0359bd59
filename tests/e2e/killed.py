"""A training run that is killed again and again, and goes on each time until it is done; for test_kills.py.

    python -m tests.e2e.killed SEED KILLS KEY VALUE ...

Each attempt is a forked process that kills itself (as ``kill -9`` does) at a moment drawn from the seed: before one of
the file operations below ``checkpoints``, which falls into the writing or the removal of a checkpoint, or some while
after one of its first updates began, which falls anywhere. Prints one line an attempt.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import threading
from typing import Any

import trainer.loop
from trainer.config import read_training
from trainer.run import train

OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
"""Of a checkpoint; as Python's audit events name them."""


def die() -> None:
    """As a kill from outside: nothing is flushed, closed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_operation(number: int) -> None:
    """Die before the instance number file operation on a checkpoint that is being written or removed."""
    left = [number]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in OPERATIONS and any("checkpoints/.step" in str(arg) for arg in args):
            left[0] -= 1
            if left[0] < 0:
                die()

    sys.addaudithook(hook)


def die_after(updates: int, seconds: float) -> None:
    """Die some while after the update begins that follows so many."""
    update, begun = trainer.loop.TrainingLoop._update, itertools.count()

    def timed(self: trainer.loop.TrainingLoop, *args: Any) -> trainer.loop.Update | None:
        if next(begun) == updates:
            if not seconds:
                die()
            timer = threading.Timer(seconds, die)
            timer.daemon = True
            timer.start()
        return update(self, *args)

    setattr(trainer.loop.TrainingLoop, "_update", timed)  # noqa: B010 - what is replaced has a narrower type


def attempt(rng: random.Random, words: list[str], kill: bool) -> int:
    """Go on in a process of its own; its exit code, negative where a signal ended it."""
    in_writing, number, updates, seconds = rng.random() < 0.6, rng.randrange(24), rng.randrange(3), rng.random() / 20
    child = os.fork()
    if child == 0:
        if kill and in_writing:
            die_before_operation(number)
        elif kill:
            die_after(updates, seconds)
        os._exit(train(*read_training(["configs/collavo_tiny_train.yaml"], words)))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    how = f"before operation {number}" if in_writing else f"{seconds:.3f} s after {updates} updates"
    sys.stdout.write(f"exit code {code}, to be killed {how if kill else 'never'}\n")
    return code


def main() -> int:
    """See the top of the file."""
    seed, kills, *words = sys.argv[1:]
    rng, code = random.Random(int(seed)), -signal.SIGKILL
    for number in range(int(kills) + 1):
        code = attempt(rng, [*words, "RESUME", "True"], kill=number < int(kills))
        if code != -signal.SIGKILL:
            break
    return code


if __name__ == "__main__":
    sys.exit(main())
