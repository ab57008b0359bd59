"""Mistakes of a user that concern the model; the entry shows their message without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CheckpointError(Exception):
    """A checkpoint that cannot be loaded: the message names directory, file or key and says what was expected."""


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn any failure of a library over a checkpoint's files into a `CheckpointError`.

    Files that were changed make libraries fail in every way, down to a panic of compiled code, which is no `Exception`.

    Args:
        what: begins the message.

    Raises:
        CheckpointError: the library failed.
    """
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
            raise
        raise CheckpointError(f"{what} ({error!r})") from error
