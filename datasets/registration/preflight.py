"""What can be known of a benchmark before its files are read: whether they are there, and what a prompt may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..declaration import Benchmark, placeholders
from ..roots import candidate_paths, first_existing
from .registry import reader_of


def missing_files(benchmark: Benchmark, roots: Sequence[Path]) -> list[str]:
    """Files of a benchmark that are nowhere, in words with the places that were looked at.

    Args:
        benchmark: names the reader and its options.
        roots: see `datasets.roots.data_roots`.

    Raises:
        DataError: unknown reader or option.
    """
    absent = _absent(reader_of(benchmark).needed(), roots)
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
    reader = reader_of(benchmark)
    besides = reader.besides(roots, placeholders(benchmark.prompt))
    said: set[Path] = set()
    found = []
    for choices in _absent([*reader.needed(), *besides], roots):
        found.append([place for place in choices if place not in said] or choices)
        said.update(choices)
    return found


def _absent(wanted: Sequence[Sequence[str]], roots: Sequence[Path]) -> list[list[Path]]:
    """Places of each of the files that none of its places has."""
    return [candidate_paths(roots, *choices) for choices in wanted if first_existing(roots, *choices) is None]


def unknown_placeholders(benchmark: Benchmark) -> tuple[list[str], Sequence[str]]:
    """Fields that a prompt names and no record will have; and those that they will have.

    Both are empty where only the files can tell, as for tables with columns of their own.

    Raises:
        DataError: unknown reader or option.
    """
    known = reader_of(benchmark).prompt_fields
    return [name for name in placeholders(benchmark.prompt) if known and name not in known], known
