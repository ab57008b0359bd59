"""``list``: the benchmarks that can be evaluated, with what a user chooses among them by; and ``--version``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

from configs.common.words import shown
from configs.load import REPOSITORY
from datasets.declaration import Benchmark
from datasets.roots import data_roots
from datasets.types import DataError

from ..benchmarks import select_pipeline
from ..catalog import load_catalog
from ..config import EvalConfig, read_configuration
from ..results.judging import needs_judge
from ..runtime.provenance import git_commit

HEADER = ("DATASETS.TEST", "benchmark", "config section", "PIPELINE", "records", "scorer", "judge")
_PROJECT = REPOSITORY / "pyproject.toml"
_DIGITS = 10
"""Of a commit's name."""


def version() -> str:
    """The version of this code, and its commit in a git checkout."""
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    commit = git_commit()
    changed = "-changed" if commit and commit.endswith("-changed") else ""
    return f"{project['name']} {project['version']}" + (f" (commit {commit[:_DIGITS]}{changed})" if commit else "")


def list_rows(conf_files: Sequence[Path], overrides: Sequence[str], *, sizes: bool) -> list[tuple[str, ...]]:
    """A row for each benchmark, those that files declare included; the first is the header.

    Args:
        conf_files: may declare benchmarks.
        overrides: of the configuration; may name the dataset root.
        sizes: count the records, which reads the files of each benchmark.

    Raises:
        ConfigError: a file is wrong.
        DataError: sizes are asked for and no dataset root is known.
    """
    if not conf_files and not overrides:
        catalog, roots = load_catalog(), data_roots(None, os.environ) if sizes else ()
    else:
        config: EvalConfig
        config, catalog = read_configuration(conf_files, overrides)
        roots = data_roots(config.DATASETS.ROOT, os.environ) if sizes else ()
    rows: list[tuple[str, ...]] = [HEADER]
    for name, benchmark in catalog.benchmarks.items():
        pipeline = type(select_pipeline("", benchmark)).__name__
        size = _size(benchmark, roots) if sizes else "?"
        judge = "yes" if needs_judge(benchmark) else "no"
        rows.append((name, shown(benchmark.title), benchmark.section, pipeline, size, benchmark.scorer, judge))
    return rows if sizes else [(*row[:4], *row[5:]) for row in rows]


def _size(benchmark: Benchmark, roots: Sequence[Path]) -> str:
    """How many records a benchmark's files hold; "-" where they are not there."""
    try:
        return str(len(select_pipeline("", benchmark).load(roots)[0]))
    except DataError:
        return "-"
