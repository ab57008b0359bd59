"""Readers: release files into records. A reader is a module here; a declaration names it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from configs.common.words import did_you_mean, shown

from ..declaration import Benchmark
from ..options import build_options
from ..types import BadRecord, DataError, Record


def load_records(benchmark: Benchmark, roots: Sequence[Path]) -> tuple[list[Record], list[BadRecord]]:
    """Read a benchmark.

    Args:
        benchmark: names the reader and its options.
        roots: folders to search for its files.
    Returns: its records in data order, and what could not be read.

    Raises:
        DataError: unknown reader or option, or a missing or unreadable file.
    """
    where = f"benchmark {benchmark.name}, data"
    reader = named_module(__name__, __path__, benchmark.reader, where, "read")
    options = build_options(reader.Options, benchmark.data, where)
    records: list[Record] = []
    bad: list[BadRecord] = []
    for item in reader.read(roots, options):
        if isinstance(item, Record):
            records.append(item)
        else:
            bad.append(item)
    return records, bad


def named_module(package: str, path: Sequence[str], name: str, where: str, needs: str) -> ModuleType:
    """Import a module of a package that a declaration names.

    Args:
        package: the package's name.
        path: its ``__path__``.
        name: the module's name.
        where: for messages.
        needs: a function that the module must have to count.

    Raises:
        DataError: there is none; with the nearest and all there are.
    """
    found = {info.name for info in pkgutil.iter_modules(list(path)) if not info.ispkg}
    if name in found:
        module = importlib.import_module(f"{package}.{name}")
        if hasattr(module, needs) and hasattr(module, "Options"):
            return module
    known = sorted(n for n in found if hasattr(importlib.import_module(f"{package}.{n}"), needs))
    hint = did_you_mean(name, known)
    raise DataError(f"{where}: there is no '{shown(name)}'{hint} There are: {', '.join(known)}")
