"""What can be known of a benchmark before its files are read: whether they are there, and what a prompt may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..declaration import Benchmark, placeholders
from ..options import build_options
from ..roots import first, places
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
    absent = _absent(reader.needed(options) if hasattr(reader, "needed") else [], roots)
    return [f"not found; looked for {', '.join(map(str, choices))}" for choices in absent]


def missing_places(benchmark: Benchmark, roots: Sequence[Path]) -> list[list[Path]]:
    """Files of a benchmark that are nowhere, and folders of images: all that can be known before any is read.

    Args:
        benchmark: names the reader and its options.
        roots: see `datasets.roots.data_roots`.
    Returns: for each, the places where it may be; none twice.

    Raises:
        DataError: unknown reader or option.
    """
    reader, options = _reader(benchmark)
    besides = reader.besides(roots, options, placeholders(benchmark.prompt)) if hasattr(reader, "besides") else []
    said: set[Path] = set()
    found = []
    for choices in _absent([*reader.needed(options), *besides], roots):
        found.append([place for place in choices if place not in said] or choices)
        said.update(choices)
    return found


def _absent(wanted: Sequence[Sequence[str]], roots: Sequence[Path]) -> list[list[Path]]:
    """Places of each of the files that none of its places has."""
    return [places(roots, *choices) for choices in wanted if first(roots, *choices) is None]


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
