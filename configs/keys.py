"""Keys of a configuration, taken from dataclasses: what type each has, and how text is read as that type.

A field's annotation says all: its type, its choices (``Literal``) and its range (``Annotated`` with pydantic's
``Field``). Text is never read as YAML first and converted afterwards: a key of type ``str`` takes any text as it is
(``{question}``, ``007``, ``no``), ``1e-5`` is a number for a key of type ``float``, and ``None`` a missing value where
the type has one. Values are checked by pydantic.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .common.words import did_you_mean, quoted, shown
from .errors import ConfigError
from .nodes import compose, construct, is_null

T = TypeVar("T")
Section = dict[str, "Key | Section"]
"""Keys by name; a section holds further ones."""
NONE = ("None", "null", "~")
"""Words for a missing value, where a key may have none."""
_LARGEST = 2**63 - 1
"""Whole numbers beyond this are no counts of anything, and libraries in C cannot hold them."""
_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
_TYPE_ERRORS = ("_type", "_parsing", "_from_float", "finite_number", "_size")


def section_of(cls: type) -> Section:
    """The keys of a dataclass, those of nested ones below their field's name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name: section_of(hints[field.name])
        if dataclasses.is_dataclass(hints[field.name])
        else Key(hints[field.name])
        for field in dataclasses.fields(cls)
        if field.init
    }


def leaves(section: Section, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys that hold a value rather than a section."""
    for name, node in section.items():
        if isinstance(node, Key):
            yield prefix + name
        else:
            yield from leaves(node, f"{prefix}{name}.")


def build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Make a dataclass from values by dotted name; fields without one keep their defaults."""
    hints = typing.get_type_hints(cls)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            given[field.name] = build(typing.cast(type, hints[field.name]), values, f"{name}.")
        elif name in values:
            given[field.name] = values[name]
    return cls(**given)


class Key:
    """A key that holds a value.

    Args:
        hint: the field's annotation.
    """

    def __init__(self, hint: Any) -> None:
        self._hint = hint
        bare, self._constraints = _unwrapped(hint)
        self.optional = _is_union(bare) and type(None) in typing.get_args(bare)
        if self.optional:
            (bare,) = (arg for arg in typing.get_args(bare) if arg is not type(None))
            bare, inner = _unwrapped(bare)
            self._constraints += inner
        self._choices = typing.get_args(bare) if typing.get_origin(bare) is typing.Literal else ()
        self._kind = type(self._choices[0]) if self._choices else typing.get_origin(bare) or bare
        self._items = typing.get_args(bare)

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._hint, config=ConfigDict(allow_inf_nan=False))

    @cached_property
    def _item(self) -> Key | Section:
        """What a list holds."""
        (item,) = self._items
        return section_of(typing.cast(type, item)) if dataclasses.is_dataclass(item) else Key(item)

    def from_text(self, text: str) -> Any:
        """Read an override.

        Raises:
            ConfigError: the text is no such value; without the key's name.
        """
        if self.optional and text in NONE:
            return None
        if self._kind not in (list, dict):
            return self._check(text)
        opening = "[" if self._kind is list else "{"
        if not text.lstrip().startswith(opening):
            raise self._misfit(text)
        node = compose(text)
        return self.from_node(node) if node is not None else None

    def from_node(self, node: yaml.Node) -> Any:
        """Read a node of a YAML file.

        Raises:
            ConfigError: it is no such value; without the key's name.
        """
        if is_null(node):
            if not self.optional:
                raise ConfigError(f"expected {self.described}, got nothing")
            return None
        if self._kind is list and isinstance(node, yaml.SequenceNode):
            return self._check([self._from_item(item, number) for number, item in enumerate(node.value)])
        if self._kind is dict and isinstance(node, yaml.MappingNode):
            return self._check(construct(node))
        if self._kind in (list, dict) or not isinstance(node, yaml.ScalarNode):
            raise self._misfit(construct(node))
        if self.optional and not node.style and node.value in NONE:
            return None
        return self._check(node.value)

    def _from_item(self, node: yaml.Node, number: int) -> Any:
        try:
            if isinstance(self._item, Key):
                return self._item.from_node(node)
            given = dict(self._fields(self._item, node))
            if lacking := [name for name in _needed(self._items[0]) if name not in given]:
                raise ConfigError(f"lacks {', '.join(lacking)}")
            return build(self._items[0], given)
        except ConfigError as error:
            raise ConfigError(f"entry {number + 1}: {error}") from None

    @staticmethod
    def _fields(section: Section, node: yaml.Node) -> Iterator[tuple[str, Any]]:
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"expected {', '.join(section)}, got {quoted(construct(node))}")
        for key_node, value in node.value:
            key = section.get(key_node.value)
            if not isinstance(key, Key):
                hint = did_you_mean(key_node.value, section)
                raise ConfigError(f"unknown key {shown(key_node.value)}{hint} There are: {', '.join(section)}")
            try:
                yield key_node.value, key.from_node(value)
            except ConfigError as error:
                raise ConfigError(f"{key_node.value}: {error}") from None

    def _check(self, value: Any) -> Any:
        """Let pydantic convert and check a value.

        Raises:
            ConfigError: it does not fit.
        """
        raw = value
        if isinstance(value, str):
            if any("\ud800" <= c <= "\udfff" for c in value):
                raise ConfigError(f"{quoted(value)} holds bytes that are no UTF-8 text")
            if self._choices and self._kind is int:
                value = int(value) if value.strip().isdecimal() else value
        try:
            found = self._adapter.validate_python(value)
        except ValidationError as error:
            raise self._explained(raw, error) from None
        if isinstance(found, int) and abs(found) > _LARGEST:
            raise ConfigError(f"{shown(raw)} is too large")
        return found

    def _explained(self, value: Any, error: ValidationError) -> ConfigError:
        """What pydantic says, in our words."""
        first = error.errors(include_url=False)[0]
        if self._choices:
            number = self._kind is int and isinstance(value, str) and value.strip().lstrip("+-").isdecimal()
            if self._kind is int and not number:
                return self._misfit(value)
            got = value.strip() if number else quoted(value)
            return ConfigError(f"{shown(got) if number else got} is not one of {', '.join(map(str, self._choices))}")
        if first["type"] == "value_error":
            return ConfigError(str(first["ctx"]["error"]))
        if first["type"].endswith(_TYPE_ERRORS):
            return self._misfit(value)
        if first["type"] == "multiple_of":
            return ConfigError(f"must be a multiple of {first['ctx']['multiple_of']}, got {shown(value)}")
        return ConfigError(f"must be {self._range or first['msg']}, got {shown(value)}")

    def _misfit(self, value: Any) -> ConfigError:
        return ConfigError(f"expected {self.described}, got {quoted(value)}")

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that it may have; empty where there are too many to list."""
        return self._choices

    @property
    def described(self) -> str:
        """How a message calls the key's type."""
        if self._choices and self._kind is str:
            name = "one of " + ", ".join(self._choices)
        else:
            name = _NAMES.get(self._kind, "a list, like [a, b]" if self._kind is list else "a mapping, like {a: b}")
        return f"{name} or None" if self.optional else name

    @property
    def _range(self) -> str:
        """The range in words; "" where there is none."""
        bounds = {
            name: getattr(constraint, name)
            for constraint in self._constraints
            for name in ("ge", "gt", "le", "lt")
            if getattr(constraint, name, None) is not None
        }
        low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
        if low is None and high is None:
            return ""
        if high is None:
            return f"at least {low:g}" if "ge" in bounds else f"above {low:g}"
        if low is None:
            return f"at most {high:g}" if "le" in bounds else f"below {high:g}"
        if "ge" in bounds and "le" in bounds:
            return f"between {low:g} and {high:g}"
        return f"{'from' if 'ge' in bounds else 'above'} {low:g} to {'at most' if 'le' in bounds else 'below'} {high:g}"


def _needed(cls: Any) -> list[str]:
    """Names of a dataclass's fields that have no default."""
    absent = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(cls) if f.init and f.default is absent and f.default_factory is absent]


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _unwrapped(hint: Any) -> tuple[Any, list[Any]]:
    """A type without ``Annotated``, and the constraints that it held."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, []
    bare, *extras = typing.get_args(hint)
    return bare, list(_constraints(extras))


def _constraints(extras: Iterable[Any]) -> Iterator[Any]:
    for extra in extras:
        yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)
