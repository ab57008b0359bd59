"""The declared benchmarks: ``configs/benchmarks/*.yaml`` and those a user's files add, read and checked. No torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.common.words import did_you_mean, nearest, shown
from configs.load import REPOSITORY, ConfigError, find_file, read_with_bases, read_yaml
from datasets.declaration import Benchmark
from datasets.registration.formats.files import is_hidden

from .declaration_file import ALL, KEYS, parse_declaration
from .released import OTHER_SPLITS

FOLDER = REPOSITORY / "configs" / "benchmarks"
SECTION = "BENCHMARKS"
"""Key of a configuration file that holds further declarations, by name."""
_MARKS = ("data", "prompt", "scorer")
"""What a file must have to be a declaration; its name may be the file's."""


@dataclass(frozen=True)
class Declaration:
    """A declaration before it is checked.

    Attributes:
        where: its file, for messages.
        values: what it says.
    """

    where: str
    values: Mapping[str, Any]


class Catalog:
    """All declared benchmarks.

    Args:
        benchmarks: by the name that ``DATASETS.TEST`` uses.
        added: declarations of the user's own files among them, by name.
    """

    def __init__(self, benchmarks: Mapping[str, Benchmark], added: Mapping[str, Mapping[str, Any]] = {}) -> None:
        self.benchmarks = dict(benchmarks)
        self.added = dict(added)

    @property
    def sections(self) -> tuple[str, ...]:
        """Config sections of the benchmarks, each once."""
        return tuple(dict.fromkeys(benchmark.section for benchmark in self.benchmarks.values()))

    def select(self, names: str) -> list[Benchmark]:
        """Benchmarks by their dataset names.

        Args:
            names: as in ``DATASETS.TEST``, separated by commas; ``all`` is every one that asks the model.

        Raises:
            ConfigError: no name, or an unknown one; with the nearest and all there are.
        """
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if not wanted:
            raise ConfigError(f"DATASETS.TEST names no dataset; there are: {ALL}, {', '.join(self.benchmarks)}")
        for name in wanted:
            if name not in self.benchmarks and name != ALL:
                known = f"{ALL}, {', '.join(self.benchmarks)}"
                raise ConfigError(f"DATASETS.TEST: {self._absent(name)} There are: {known}")
        asked = [name for name, benchmark in self.benchmarks.items() if not benchmark.measures_maps]
        chosen = [key for name in wanted for key in (asked if name == ALL else (name,))]
        return [self.benchmarks[name] for name in dict.fromkeys(chosen)]

    def _absent(self, name: str) -> str:
        """A sentence on a dataset that there is not."""
        if name in OTHER_SPLITS:
            return f"'{name}' has no declaration here; {OTHER_SPLITS[name]} is what has answers, and is scored."
        return f"there is no '{shown(name)}'{did_you_mean(name, self.benchmarks, cutoff=0.4)}"


def load_catalog(folder: Path = FOLDER, added: Iterable[Declaration] = ()) -> Catalog:
    """Read all declarations of a folder, and add those of a user's files.

    Raises:
        ConfigError: a declaration is wrong, or two claim one dataset name; with its file.
    """
    benchmarks: dict[str, Benchmark] = {}
    own: dict[str, Mapping[str, Any]] = {}
    for path in sorted(path for path in folder.glob("*.yaml") if not is_hidden(path)):
        stamp = path.stat()
        _add(benchmarks, _declared(path, stamp.st_mtime_ns, stamp.st_size), str(path))
    for declaration in added:
        benchmark = parse_declaration(declaration.values, declaration.where)
        _add(benchmarks, benchmark, declaration.where)
        own[benchmark.name] = declaration.values
    return Catalog(benchmarks, own)


@functools.lru_cache(maxsize=128)
def _declared(path: Path, changed: int, size: int) -> Benchmark:
    """A file's declaration, read once as long as the file does not change."""
    benchmark = parse_declaration(read_yaml(path), str(path))
    if benchmark.name != path.stem:
        raise ConfigError(f"{path}: name is '{benchmark.name}'; it must be the file's name, '{path.stem}'")
    return benchmark


def _add(benchmarks: dict[str, Benchmark], benchmark: Benchmark, where: str) -> None:
    if benchmark.dataset in benchmarks:
        raise ConfigError(f"{where}: the dataset '{benchmark.dataset}' is declared twice")
    benchmarks[benchmark.dataset] = benchmark


def split_files(conf_files: Sequence[str | Path]) -> tuple[list[Declaration], list[str | Path]]:
    """Tell declarations of benchmarks from configuration files.

    Args:
        conf_files: each a configuration, which may declare benchmarks under ``BENCHMARKS``, or a declaration as it
            stands in ``configs/benchmarks``.
    Returns: the declarations, later ones of a name in place of earlier ones; and the configuration files.

    Raises:
        ConfigError: a file is missing or unreadable, or ``BENCHMARKS`` is no mapping of declarations.
    """
    declarations: dict[str, Declaration] = {}
    others: list[str | Path] = []
    for file in conf_files:
        path = find_file(file)
        content = read_yaml(path)
        if content.keys() >= set(_MARKS):
            values = {"name": path.stem, **content}
            declarations[str(values["name"])] = Declaration(str(path), values)
            continue
        _check_no_declaration(content, path)
        others.append(file)
        for source, values in read_with_bases(path):
            for name, declared in _section(values.get(SECTION), source).items():
                declarations[name] = Declaration(f"{source}, {SECTION}.{name}", {"name": name, **declared})
    return list(declarations.values()), others


def _check_no_declaration(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a file that is meant as a declaration and lacks a part, rather than call its keys unknown settings.

    Raises:
        ConfigError: it has parts of a declaration and no setting; with those that it lacks.
    """
    keys = [str(key) for key in content]
    lower = {key.lower() for key in keys}
    settings = [key for key in keys if key.isupper() or key.startswith("_")]
    if settings or not (lower & set(_MARKS) or len(lower & KEYS) > 1):
        return
    lacking = [mark for mark in _MARKS if mark not in content]
    near = {mark: nearest(mark, set(keys) - KEYS, 1) for mark in lacking}
    near |= {mark: [key] for mark in lacking for key in keys if key.lower() == mark}
    hints = [f"'{found[0]}' may be meant as {mark}" for mark, found in near.items() if found]
    listed = ", ".join(f"`{mark}`" for mark in lacking)
    raise ConfigError(
        f"{path}: looks like a benchmark but lacks {listed}" + (f" ({'; '.join(hints)})" if hints else "") + ". A "
        f"benchmark needs {', '.join(_MARKS[:-1])} and {_MARKS[-1]}; its name is the file's where it gives none"
    )


def _section(content: Any, path: Path) -> dict[str, dict[str, Any]]:
    if content is None:
        return {}
    if isinstance(content, dict) and all(isinstance(v, dict) and isinstance(k, str) for k, v in content.items()):
        return content
    raise ConfigError(f"{path}: {SECTION} takes declarations by name: {SECTION}: {{my_benchmark: {{data: ...}}}}")
