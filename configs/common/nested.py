"""Nested mappings under names with dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flattened(values: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Values of nested mappings by their joined names; an empty mapping is a value.

    Args:
        values: nested to any depth.
        separator: between the names.
        prefix: of every name.
    Returns: e.g. ``{"a.b": 1}`` for ``{"a": {"b": 1}}``.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, separator, f"{prefix}{name}{separator}")
        else:
            found[f"{prefix}{name}"] = value
    return found
