"""Mistakes of a user that concern the model; the entry shows their message without a traceback."""


class CheckpointError(Exception):
    """A checkpoint that cannot be loaded: the message names directory, file or key and says what was expected."""
