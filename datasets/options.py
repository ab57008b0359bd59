"""Typed options of readers and scorers, built from a declaration's mapping; unknown keys and wrong types fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from configs.common.checked import checked

from .types import DataError

T = TypeVar("T")


def build_options(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a reader or scorer from a mapping of a declaration.

    Args:
        cls: its dataclass.
        values: what the YAML says.
        where: for messages, e.g. ``benchmark pope, data``.

    Raises:
        DataError: an unknown or missing key, or a value of another type; the message names key, nearest names and type.
    """
    return checked(cls, values, where, DataError)
