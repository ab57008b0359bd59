"""Mappings of files as dataclasses: unknown keys bring the nearest names, values are checked by pydantic.

Types are strict (``1`` is no truth value, ``"8"`` no number), but for lists, which may stand for tuples, and whole
numbers, which may stand for others.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .words import did_you_mean, quoted, shown

T = TypeVar("T")
KEY = "key"
"""Entry of a field's metadata for a key that is no name in Python, such as ``from``."""
_NAMES = {"string": "str", "tuple": "a list", "list": "a list", "dict": "a mapping", "finite": "a finite number"}
"""How messages call a type, by the first word of pydantic's kind of error; others are called as they are."""


def dataclass_from_mapping(kind: type[T], values: Any, where: str, error: Callable[[str], Exception]) -> T:
    """Build a dataclass, and those in it and in its lists, from a mapping.

    A field has its name as its key, or what its ``metadata`` says under `KEY`.

    Args:
        kind: the dataclass.
        values: what a file says.
        where: the mapping's place, for messages; "" for the top of a file.
        error: makes the exception of a message.

    Raises:
        Exception: from ``error``, for an unknown or missing key, or a value of another type; the message names it.
    """
    if not isinstance(values, Mapping):
        raise error(f"{where or 'content'}: expected a mapping, got {quoted(values)}")
    head = f"{where}: " if where else ""
    fields = fields_by_key(kind)
    for key in values:
        if key not in fields:
            hint = did_you_mean(key, fields)
            raise error(f"{head}unknown key '{shown(str(key))}'{hint} Known keys: {', '.join(fields) or 'none'}")
    missing = [name for name, field in fields.items() if name not in values and _is_needed(field)]
    if missing:
        raise error(f"{head}missing key{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    path = f"{where}." if where else ""
    names = {key: fields[key].name for key in values}
    return kind(
        **{names[key]: _value(hints[names[key]], value, f"{path}{key}", error) for key, value in values.items()}
    )


def fields_by_key(kind: type) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass by the keys that `dataclass_from_mapping` reads them from."""
    return {field.metadata.get(KEY, field.name): field for field in dataclasses.fields(kind)}


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str, error: Callable[[str], Exception]) -> Any:
    if dataclasses.is_dataclass(hint):
        return dataclass_from_mapping(typing.cast(type, hint), value, where, error)
    if isinstance(value, list) and (item := _dataclass_in_tuple(hint)):
        return tuple(dataclass_from_mapping(item, one, f"{where}[{number}]", error) for number, one in enumerate(value))
    given = tuple(value) if isinstance(value, list) and _is_tuple(hint) else value
    try:
        return _adapter(hint).validate_python(given)
    except ValidationError as refused:
        first = refused.errors(include_url=False)[0]
    place = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    got = quoted(first["input"])
    if first["type"] == "literal_error":
        raise error(f"{where}: {got} is not one of {', '.join(map(str, _choices(hint)))}")
    if first["type"].endswith("_type") or first["type"] == "finite_number":
        name = first["type"].split("_")[0]
        raise error(f"{place}: expected {_NAMES.get(name, name)}, got {got}")
    if first["type"] == "value_error":
        raise error(f"{place}: {first['ctx']['error']}")
    raise error(f"{place}: must be {first['msg'].removeprefix('Input should be ')}, got {got}")


def _dataclass_in_tuple(hint: Any) -> type | None:
    """The dataclass that a tuple of any length holds; None for any other type."""
    item, *_ = get_args(hint) or (None,)
    return item if get_origin(hint) is tuple and dataclasses.is_dataclass(item) else None  # type: ignore[return-value]


def _is_tuple(hint: Any) -> bool:
    return tuple in (get_origin(hint), *map(get_origin, get_args(hint) if _is_union(hint) else ()))


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (typing.Union, types.UnionType)


def _choices(hint: Any) -> tuple[Any, ...]:
    literal = next(kind for kind in (hint, *get_args(hint)) if get_origin(kind) is typing.Literal)
    return get_args(literal)


@lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
