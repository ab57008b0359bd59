"""The error of a run that cannot start or go on."""


class RunError(Exception):
    """The message says why and what to do, and is shown without a traceback."""
