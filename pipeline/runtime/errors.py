"""The errors of a run."""


class RunError(Exception):
    """The message says why and what to do, and is shown without a traceback."""


class SampleError(Exception):
    """An unexpected error, with the questions that were being answered; the error itself is its cause."""
