"""Remarks of libraries that are not for the reader of a run: bars of every process, and advice on optional packages."""

from __future__ import annotations

import logging

_UNWANTED = {"bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward"}
"""Logger, and how its message begins: 4-bit weights are multiplied by another routine, with the same result."""


def quiet_libraries() -> None:
    """Keep the terminal for our own lines; errors and other warnings of the libraries still come through."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # one bar per process would run through our own lines
    for name, beginning in _UNWANTED.items():
        logging.getLogger(name).addFilter(_Begins(beginning))


class _Begins(logging.Filter):
    """Drops messages by how they begin."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning = beginning

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._beginning)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Begins) and other._beginning == self._beginning

    def __hash__(self) -> int:
        return hash(self._beginning)
