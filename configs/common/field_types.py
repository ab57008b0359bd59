"""Types of configuration fields that several packages use: a type, its range, and how it is checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from .paths import path_text


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) else value


PositiveInt = Annotated[int, Field(ge=1)]
"""A whole number from 1. Pydantic's own has the bound "above 0", which messages would repeat."""
NonNegativeFloat = Annotated[float, Field(ge=0)]
"""A number from 0."""
Fraction = Annotated[float, Field(ge=0, le=1)]
"""A share or a probability, 0..1."""
PathText = Annotated[str, AfterValidator(path_text)]
"""A path as it is written, with ``~`` replaced."""
Label = Annotated[str, BeforeValidator(_number_as_text)]
"""A text of a table; YAML reads some as numbers (``from: 2023``)."""
