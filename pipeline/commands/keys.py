"""``keys``: what each key of the configuration means, its type, its default, and what it is here."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.common.words import did_you_mean, shown
from configs.keys import Key
from configs.load import ConfigError

from ..config import BenchmarkSection, EvalSchema

WIDTH = 100
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class KeyHelp:
    """One key.

    Attributes:
        name: dotted.
        kind: what it takes, in words.
        default: its value where nothing is set.
        meaning: from the documentation of its class.
    """

    name: str
    kind: str
    default: Any
    meaning: str


def key_helps(schema: type, prefix: str = "") -> Iterator[KeyHelp]:
    """All keys of a configuration's dataclass, those of nested ones below their field's name."""
    hints = typing.get_type_hints(schema, include_extras=True)
    meanings = _meanings(schema)
    for field in dataclasses.fields(schema):
        if not field.init:
            continue
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            yield from key_helps(typing.cast(type, hints[field.name]), f"{name}.")
        else:
            key = Key(hints[field.name])
            kind = f"one of {', '.join(map(str, key.choices))}" if key.choices else key.described
            yield KeyHelp(name=name, kind=kind, default=_default(field), meaning=meanings.get(field.name, ""))


def _meanings(schema: type) -> dict[str, str]:
    """What a class's documentation says of its attributes; those of the classes that it extends included."""
    found: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        text = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        found |= {name: " ".join(words.split()) for name, words in _ENTRY.findall(text)}
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def explain_keys(schema: type, sections: typing.Sequence[str], values: Mapping[str, Any], prefix: str) -> str:
    """The keys that a prefix names, for the terminal.

    Args:
        schema: of the configuration, of which that of an evaluation is a part.
        sections: of the benchmarks; their keys are shown where the prefix names one.
        values: the resolved configuration.
        prefix: beginning of a dotted name, in either case; "" for all but the benchmarks' own.

    Raises:
        ConfigError: no key begins so.
    """
    general = list(key_helps(schema))
    evaluation = {one.name: one for one in key_helps(EvalSchema)}
    own = [one for name in sections for one in key_helps(BenchmarkSection, f"{name}.")]
    wanted = prefix.upper().rstrip(".")
    chosen = [one for one in (*general, *own) if _begins(one.name, wanted)] if wanted else general
    if not chosen:
        names = {one.name for one in (*general, *own)}
        names |= {name.rpartition(".")[0] for name in names if "." in name}
        raise ConfigError(f"no key begins with {shown(prefix)}{did_you_mean(wanted, names)}")
    more = f"\n<SECTION>.TEST.* for each benchmark: keys POPE ({', '.join(sections[:3])}, ...)\n" if not wanted else ""
    return "\n".join(_shown(one, _value(values, one.name), evaluation.get(one.name, one)) for one in chosen) + more


def _begins(name: str, wanted: str) -> bool:
    return name.upper() == wanted or name.upper().startswith(wanted)


def _value(values: Mapping[str, Any], name: str) -> Any:
    found: Any = values
    for part in name.split("."):
        found = found[part]
    return found


def _shown(one: KeyHelp, value: Any, evaluation: KeyHelp) -> str:
    """A key with its type, default and value, and its meaning below; for ``train`` too, where it has others there.

    Args:
        one: the key.
        value: in the resolved configuration.
        evaluation: the key as ``eval`` has it.
    """
    here = "" if value in (one.default, evaluation.default) else f"; here: {_written(value)}"
    training = "" if one.default == evaluation.default else f" (train: {_written(one.default)})"
    head = f"{one.name}: {one.kind}; default: {_written(evaluation.default)}{training}{here}"
    meanings = [evaluation.meaning, *([f"train: {one.meaning}"] if one.meaning != evaluation.meaning else [])]
    body = [textwrap.fill(each, WIDTH, initial_indent="    ", subsequent_indent="    ") for each in meanings]
    return "\n".join([shown(head, 400), *body, ""])


def _written(value: Any) -> str:
    return repr(value) if isinstance(value, str) else shown(value)
