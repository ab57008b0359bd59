"""Which errors say that memory ran out, on a GPU or on the host. Asking loads no torch."""

from __future__ import annotations

_NAME = "OutOfMemoryError"
"""Torch's class, by its name: what has not loaded torch cannot have raised it."""

_MESSAGES = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "alloc_failed")
"""What allocators say that raise a plain RuntimeError, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError) or any(kind.__name__ == _NAME for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)
