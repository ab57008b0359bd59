"""What two runs must agree on in their predictions files: all but the seconds that a reply took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def predicted(file: Path) -> list[dict[str, Any]]:
    """The lines of a predictions file, each without its seconds."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert all(line.pop("seconds") is not None for line in lines)
    return lines
