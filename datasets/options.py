"""Typed options of readers and scorers, built from a declaration's mapping; unknown keys and wrong types fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from configs.common.checked import dataclass_from_mapping
from configs.common.words import no_such

from .types import DataError

T = TypeVar("T")


def build_named(kinds: Mapping[str, type[T]], name: str, values: Mapping[str, Any], where: str) -> T:
    """Build the reader or scorer that a declaration names from its mapping.

    Args:
        kinds: the dataclasses by the names that declarations use.
        name: what the declaration says.
        values: its options, as the YAML has them.
        where: for messages, e.g. ``benchmark pope, data``.

    Raises:
        DataError: an unknown name, an unknown or missing key, or a value of another type; the message names it, with
            the nearest names or the type.
    """
    if name not in kinds:
        raise DataError(f"{where}: {no_such(name, kinds)}")
    return dataclass_from_mapping(kinds[name], values, where, DataError)
