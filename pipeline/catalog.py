"""The declared benchmarks: ``configs/benchmarks/*.yaml`` and those a user's files add, read and checked. No torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.common.words import did_you_mean, nearest, shown
from configs.load import REPOSITORY, ConfigError, find_file, read_with_bases, read_yaml
from datasets.declaration import Benchmark, Expected, check_template
from datasets.registration.formats.files import is_hidden

from .released import OTHER_SPLITS

FOLDER = REPOSITORY / "configs" / "benchmarks"
ALL = "all"
"""What ``DATASETS.TEST`` says for every declared benchmark of the model whose files are there."""
SECTION = "BENCHMARKS"
"""Key of a configuration file that holds further declarations, by name."""
READER = "tables"
"""The reader of a declaration that names none."""
GENERATE = {"num_beams": 1, "max_new_tokens": 128}
"""What a declaration leaves out. Beams belong to the model (``configs/models``), whose profile wins."""
_KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "dataset": (str,),
    "section": (str,),
    "pipeline": (str,),
    "title": (str,),
    "version": (int,),
    "source": (str,),
    "download": (str, list),
    "data": (dict,),
    "prompt": (str,),
    "generate": (dict,),
    "scorer": (dict, str),
    "released": (dict,),
    "expected": (dict, list),
}
_MARKS = ("data", "prompt", "scorer")
"""What a file must have to be a declaration; its name may be the file's."""
_REQUIRED = ("name", *_MARKS)
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


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
        benchmark = parse(declaration.values, declaration.where)
        _add(benchmarks, benchmark, declaration.where)
        own[benchmark.name] = declaration.values
    return Catalog(benchmarks, own)


@functools.lru_cache(maxsize=128)
def _declared(path: Path, changed: int, size: int) -> Benchmark:
    """A file's declaration, read once as long as the file does not change."""
    benchmark = parse(read_yaml(path), str(path))
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
    if settings or not (lower & set(_MARKS) or len(lower & set(_KEYS)) > 1):
        return
    lacking = [mark for mark in _MARKS if mark not in content]
    near = {mark: nearest(mark, set(keys) - set(_KEYS), 1) for mark in lacking}
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


def parse(values: Mapping[str, Any], where: str) -> Benchmark:
    """Check and type one declaration.

    Args:
        values: as the YAML says; ``scorer`` and ``data`` are checked further by the scorer and the reader they name.
        where: for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of another type.
    """
    _check_keys(values, where)
    data = {"reader": READER, **values["data"]}
    scorer = {"kind": values["scorer"]} if isinstance(values["scorer"], str) else dict(values["scorer"])
    for section, key in ((data, "reader"), (scorer, "kind")):
        if not isinstance(section.get(key), str):
            raise ConfigError(f"{where}: {'data.reader' if section is data else 'scorer.kind'} is missing")
    generate = _generate(values.get("generate", {}), where)
    expected = values.get("expected", [])
    return Benchmark(
        name=values["name"],
        dataset=values.get("dataset", values["name"]),
        section=values.get("section", re.sub(r"\W", "_", values["name"]).upper()),
        pipeline=values.get("pipeline", ""),
        title=values.get("title", values["name"]),
        version=values.get("version", 1),
        source=values.get("source", where),
        download=_download(values.get("download", []), where),
        reader=data.pop("reader"),
        data=data,
        prompt=_template(values["prompt"], where),
        num_beams=generate["num_beams"],
        max_new_tokens=generate["max_new_tokens"],
        scorer=scorer.pop("kind"),
        scoring=scorer,
        released=_released(values.get("released", {}), where),
        expected=tuple(_expected(item, where) for item in (expected if isinstance(expected, list) else [expected])),
    )


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS)
            raise ConfigError(f"{where}: unknown key '{shown(key)}'{hint} Known keys: {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in _KEYS[key])
            raise ConfigError(f"{where}: {key} is {type(value).__name__}, expected {wanted}")
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    for key in ("name", "dataset"):
        name = values.get(key, values["name"])
        if not _NAME.fullmatch(name) or name == ALL:
            raise ConfigError(f"{where}: {key} {name!r} cannot be used; take letters, digits and . _ + -")


def _download(given: Any, where: str) -> tuple[str, ...]:
    pages = [given] if isinstance(given, str) else given
    if not all(isinstance(page, str) for page in pages):
        raise ConfigError(f"{where}: download takes texts, each with an address: 'images: https://...'")
    return tuple(pages)


def _generate(given: Mapping[str, Any], where: str) -> dict[str, int]:
    if not set(given) <= set(GENERATE) or not all(type(v) is int and v > 0 for v in given.values()):
        raise ConfigError(f"{where}: generate takes {' and '.join(GENERATE)}, whole numbers from 1")
    return {**GENERATE, **given}


def _template(prompt: str, where: str) -> str:
    try:
        return check_template(prompt)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def _released(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    kinds = {"data": dict, "scorer": dict, "prompt": str}
    if not set(given) <= set(kinds) or not all(isinstance(value, kinds[key]) for key, value in given.items()):
        raise ConfigError(f"{where}: released takes data and scorer (mappings of what changes) and prompt")
    if "prompt" in given:
        _template(given["prompt"], where)
    return dict(given)


def _expected(item: Any, where: str) -> Expected:
    needed = {"metric", "value", "tolerance", "from"}
    if not isinstance(item, dict) or not needed <= set(item) <= {*needed, "title"}:
        raise ConfigError(f"{where}: each of expected takes metric, value, tolerance, from, and perhaps title")
    try:
        value, tolerance = float(item["value"]), float(item["tolerance"])
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: value and tolerance of expected are numbers") from None
    return Expected(
        metric=str(item["metric"]),
        value=value,
        tolerance=tolerance,
        source=str(item["from"]),
        title=str(item.get("title", "")),
    )
