"""The declared benchmarks: ``configs/benchmarks/*.yaml``, read and checked. Importing this loads no torch."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.load import REPOSITORY, ConfigError, read_yaml
from datasets.declaration import Benchmark, Expected

FOLDER = REPOSITORY / "configs" / "benchmarks"
_KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "dataset": (str,),
    "section": (str,),
    "pipeline": (str,),
    "title": (str,),
    "version": (int,),
    "source": (str,),
    "data": (dict,),
    "prompt": (str,),
    "generate": (dict,),
    "scorer": (dict,),
    "expected": (dict, list),
}
_REQUIRED = ("name", "version", "source", "data", "prompt", "generate", "scorer")


class Catalog:
    """All declared benchmarks.

    Args:
        benchmarks: by the name that ``DATASETS.TEST`` uses.
    """

    def __init__(self, benchmarks: Mapping[str, Benchmark]) -> None:
        self.benchmarks = dict(benchmarks)

    @property
    def sections(self) -> tuple[str, ...]:
        """Config sections of the benchmarks, each once."""
        return tuple(dict.fromkeys(benchmark.section for benchmark in self.benchmarks.values()))

    def select(self, names: str) -> list[Benchmark]:
        """Benchmarks by their dataset names.

        Args:
            names: as in ``DATASETS.TEST``, separated by commas.

        Raises:
            ConfigError: no name, or an unknown one; with the nearest and all there are.
        """
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if not wanted:
            raise ConfigError(f"DATASETS.TEST names no dataset; there are: {', '.join(self.benchmarks)}")
        for name in wanted:
            if name not in self.benchmarks:
                near = difflib.get_close_matches(name, self.benchmarks, n=2, cutoff=0.4)
                hint = f"; did you mean {' or '.join(near)}?" if near else "."
                raise ConfigError(f"DATASETS.TEST: there is no '{name}'{hint} There are: {', '.join(self.benchmarks)}")
        return [self.benchmarks[name] for name in dict.fromkeys(wanted)]


def load_catalog(folder: Path = FOLDER) -> Catalog:
    """Read all declarations of a folder.

    Raises:
        ConfigError: a declaration is wrong, or two claim one dataset name; with its file.
    """
    benchmarks: dict[str, Benchmark] = {}
    for path in sorted(folder.glob("*.yaml")):
        benchmark = parse(read_yaml(path), str(path))
        if benchmark.name != path.stem:
            raise ConfigError(f"{path}: name is '{benchmark.name}'; it must be the file's name, '{path.stem}'")
        if benchmark.dataset in benchmarks:
            raise ConfigError(f"{path}: the dataset '{benchmark.dataset}' is declared twice")
        benchmarks[benchmark.dataset] = benchmark
    return Catalog(benchmarks)


def parse(values: Mapping[str, Any], where: str) -> Benchmark:
    """Check and type one declaration.

    Args:
        values: as the YAML says; ``scorer`` and ``data`` are checked further by the scorer and the reader they name.
        where: for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of another type.
    """
    _check_keys(values, where)
    data, scorer = dict(values["data"]), dict(values["scorer"])
    generate = values["generate"]
    if set(generate) != {"num_beams", "max_new_tokens"} or not all(type(v) is int and v > 0 for v in generate.values()):
        raise ConfigError(f"{where}: generate takes num_beams and max_new_tokens, both whole numbers from 1")
    for section, key in ((data, "reader"), (scorer, "kind")):
        if not isinstance(section.get(key), str):
            raise ConfigError(f"{where}: {'data.reader' if section is data else 'scorer.kind'} is missing")
    for _, name, spec, conversion in string.Formatter().parse(values["prompt"]):
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise ConfigError(f"{where}: the prompt holds {{{name}}}; only plain {{field}} placeholders are allowed")
    expected = values.get("expected", [])
    return Benchmark(
        name=values["name"],
        dataset=values.get("dataset", values["name"]),
        section=values.get("section", values["name"].upper().replace("-", "_")),
        pipeline=values.get("pipeline", ""),
        title=values.get("title", values["name"]),
        version=values["version"],
        source=values["source"],
        reader=data.pop("reader"),
        data=data,
        prompt=values["prompt"],
        num_beams=generate["num_beams"],
        max_new_tokens=generate["max_new_tokens"],
        scorer=scorer.pop("kind"),
        scoring=scorer,
        expected=tuple(_expected(item, where) for item in (expected if isinstance(expected, list) else [expected])),
    )


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise ConfigError(f"{where}: unknown key '{key}'{hint} Known keys: {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in _KEYS[key])
            raise ConfigError(f"{where}: {key} is {type(value).__name__}, expected {wanted}")
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")


def _expected(item: Any, where: str) -> Expected:
    if not isinstance(item, dict) or set(item) != {"metric", "value", "tolerance", "from"}:
        raise ConfigError(f"{where}: each of expected takes metric, value, tolerance, from")
    return Expected(
        metric=str(item["metric"]),
        value=float(item["value"]),
        tolerance=float(item["tolerance"]),
        source=str(item["from"]),
    )
