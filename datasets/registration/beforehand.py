"""What can be known of a benchmark before its files are read: whether they are there, and what a prompt may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..declaration import Benchmark, placeholders
from ..options import build_options
from . import __name__ as package
from . import __path__ as path
from . import named_module


def missing_files(benchmark: Benchmark, roots: Sequence[Path]) -> list[str]:
    """Files of a benchmark that are nowhere, in words with the places that were looked at.

    Args:
        benchmark: names the reader and its options.
        roots: see `datasets.roots.data_roots`.

    Raises:
        DataError: unknown reader or option.
    """
    reader, options = _reader(benchmark)
    if not hasattr(reader, "needed"):
        return []
    found = []
    for choices in reader.needed(options):
        places = [root / choice for choice in choices for root in roots]
        if not any(place.exists() for place in places):
            found.append(f"not found; looked for {', '.join(map(str, places))}")
    return found


def unknown_placeholders(benchmark: Benchmark) -> tuple[list[str], Sequence[str]]:
    """Fields that a prompt names and no record will have; and those that they will have.

    Both are empty where only the files can tell, as for tables with columns of their own.

    Raises:
        DataError: unknown reader or option.
    """
    reader, _ = _reader(benchmark)
    known: Sequence[str] = getattr(reader, "FIELDS", ())
    return [name for name in placeholders(benchmark.prompt) if known and name not in known], known


def _reader(benchmark: Benchmark) -> tuple[ModuleType, Any]:
    where = f"benchmark {benchmark.name}, data"
    reader = named_module(package, list(path), benchmark.reader, where, "read")
    return reader, build_options(reader.Options, benchmark.data, where)
