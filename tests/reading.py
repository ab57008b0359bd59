"""A benchmark's release files as records, before a scorer has seen them."""

from collections.abc import Sequence
from pathlib import Path

from datasets.declaration import Benchmark
from datasets.registration.formats.files import without_bad
from datasets.registration.registry import reader_of
from datasets.types import BadRecord, Record


def load_records(benchmark: Benchmark, roots: Sequence[Path]) -> tuple[list[Record], list[BadRecord]]:
    """Its records in data order, and what could not be read.

    Raises:
        DataError: unknown reader or option, or a missing or unreadable file.
    """
    return without_bad(reader_of(benchmark).read(roots))
