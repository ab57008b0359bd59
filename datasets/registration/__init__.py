"""Readers: release files into records. A declaration names one of `registry.READERS`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..declaration import Benchmark
from ..types import BadRecord, Record
from .registry import reader_of


def load_records(benchmark: Benchmark, roots: Sequence[Path]) -> tuple[list[Record], list[BadRecord]]:
    """Read a benchmark.

    Args:
        benchmark: names the reader and its options.
        roots: folders to search for its files.
    Returns: its records in data order, and what could not be read.

    Raises:
        DataError: unknown reader or option, or a missing or unreadable file.
    """
    records: list[Record] = []
    bad: list[BadRecord] = []
    for item in reader_of(benchmark).read(roots):
        if isinstance(item, Record):
            records.append(item)
        else:
            bad.append(item)
    return records, bad
