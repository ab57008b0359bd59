"""Typed options of readers and scorers, built from a declaration's mapping; unknown keys and wrong types fail."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from configs.common.words import did_you_mean, quoted, shown

from .types import DataError

T = TypeVar("T")


def build_options(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a frozen options dataclass from a mapping of a declaration.

    Args:
        cls: the dataclass; fields may be str, int, float, bool, Literal, tuple[str, ...], dict[str, str], ``X | None``.
        values: what the YAML says; a list becomes a tuple.
        where: for messages, e.g. ``benchmark pope, data``.

    Raises:
        DataError: an unknown or missing key, or a value of another type; the message names key, nearest names and type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise DataError(f"{where}: unknown key '{shown(str(key))}'{hint} Known keys: {', '.join(fields) or 'none'}")
    converted = {key: _convert(value, hints[key], f"{where}.{key}") for key, value in values.items()}
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise DataError(f"{where}: missing key{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return cls(**converted)


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), where)
    if origin is typing.Literal:
        if value in args:
            return value
        raise DataError(f"{where}: {quoted(value)} is not one of {', '.join(map(str, args))}")
    if origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        raise DataError(f"{where}: expected a list, got {quoted(value)}")
    if origin is dict:
        if isinstance(value, Mapping):
            return {_convert(k, args[0], where): _convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
        raise DataError(f"{where}: expected a mapping, got {quoted(value)}")
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise DataError(f"{where}: expected {hint.__name__}, got {quoted(value)}")
