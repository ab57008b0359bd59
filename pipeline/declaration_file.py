"""The YAML of a benchmark's declaration: its keys and their types, and the benchmark that they make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator

from configs.common.checked import dataclass_from_mapping, fields_by_key
from configs.common.field_types import PositiveInt
from configs.common.words import quoted
from configs.errors import ConfigError
from datasets.declaration import Benchmark, Expected, PromptTemplate, ReleasedRules

ALL = "all"
"""What ``DATASETS.TEST`` says for every declared benchmark of the model whose files are there."""
READER = "tables"
"""The reader of a declaration that names none."""
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


def _usable(name: str) -> str:
    """A name that can be a folder's and stand in ``DATASETS.TEST``.

    Raises:
        ValueError: it cannot.
    """
    if not _NAME.fullmatch(name) or name == ALL:
        raise ValueError(f"{name!r} cannot be used; take letters, digits and . _ + -")
    return name


BenchmarkName = Annotated[str, AfterValidator(_usable)]


@dataclass(frozen=True, kw_only=True)
class GenerateKeys:
    """How a reply is generated. Beams belong to the model (``configs/models``), whose profile wins.

    Attributes:
        num_beams: beams of the search; 1 is greedy.
        max_new_tokens: longest reply in tokens.
    """

    num_beams: PositiveInt = 1
    max_new_tokens: PositiveInt = 128


@dataclass(frozen=True, kw_only=True)
class DeclarationKeys:
    """The keys of a declaration; see `datasets.declaration.Benchmark` for their meaning and for what None becomes.

    Attributes:
        data: ``reader``, and the options of that.
        scorer: ``kind``, and the options of that.
    """

    name: BenchmarkName
    dataset: BenchmarkName | None = None
    section: str | None = None
    pipeline: str = ""
    title: str | None = None
    version: int = 1
    source: str | None = None
    download: tuple[str, ...] = ()
    data: dict[str, Any]
    prompt: PromptTemplate
    generate: GenerateKeys = field(default_factory=GenerateKeys)
    scorer: dict[str, Any]
    released: ReleasedRules = field(default_factory=ReleasedRules)
    expected: tuple[Expected, ...] = ()


KEYS = frozenset(fields_by_key(DeclarationKeys))
"""Names of the keys."""


def parse_declaration(values: Mapping[str, Any], where: str) -> Benchmark:
    """Check and type one declaration.

    Args:
        values: as the YAML says; ``scorer`` and ``data`` are checked further by the scorer and the reader they name.
        where: for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of another type.
    """

    def error(message: str) -> ConfigError:
        return ConfigError(f"{where}: {message}")

    keys = dataclass_from_mapping(DeclarationKeys, _in_full(values), "", error)
    data, scorer = {"reader": READER, **keys.data}, dict(keys.scorer)
    for section, options, key in (("data", data, "reader"), ("scorer", scorer, "kind")):
        if not isinstance(options.get(key), str):
            said = f": expected str, got {quoted(options[key])}" if key in options else " is missing"
            raise error(f"{section}.{key}{said}")
    return Benchmark(
        name=keys.name,
        dataset=keys.name if keys.dataset is None else keys.dataset,
        section=re.sub(r"\W", "_", keys.name).upper() if keys.section is None else keys.section,
        pipeline=keys.pipeline,
        title=keys.name if keys.title is None else keys.title,
        version=keys.version,
        source=where if keys.source is None else keys.source,
        download=keys.download,
        reader=data.pop("reader"),
        data=data,
        prompt=keys.prompt,
        num_beams=keys.generate.num_beams,
        max_new_tokens=keys.generate.max_new_tokens,
        scorer=scorer.pop("kind"),
        scoring=scorer,
        released=keys.released,
        expected=keys.expected,
    )


def _in_full(values: Mapping[str, Any]) -> dict[str, Any]:
    """A declaration without its short forms: the scorer's name alone, and one address or figure without a list."""
    full = dict(values)
    if isinstance(full.get("scorer"), str):
        full["scorer"] = {"kind": full["scorer"]}
    for key, alone in (("download", str), ("expected", Mapping)):
        if isinstance(full.get(key), alone):
            full[key] = [full[key]]
    return full
