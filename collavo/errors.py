"""What can go wrong with a model: the entry shows the messages without a traceback. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .reply import Reply


class CheckpointError(Exception):
    """A checkpoint that cannot be loaded: the message names directory, file or key and says what was expected."""


class ImageError(Exception):
    """An image that cannot be used: the message names it and says what was expected."""


@contextmanager
def as_checkpoint_error(what: str) -> Iterator[None]:
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


class NonFiniteError(Exception):
    """The model's scores for a question were NaN or infinite, so that what was generated is no answer.

    Attributes:
        replies: to all questions of the batch, in order; None for those without an answer.
    """

    def __init__(self, message: str, replies: Sequence[Reply | None]) -> None:
        super().__init__(message)
        self.replies = tuple(replies)
