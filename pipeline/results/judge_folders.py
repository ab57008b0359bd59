"""Results by who decided: the rules, or one judge; none of them ever replaces another's.

``score`` writes what the rules decide into its folder, and what a judge decides into a folder of that judge's own below
it. A run writes into its one folder; what it finds there of another judge is moved into that judge's folder first.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from configs.common.safe_json import read_json

from ..runtime.files import make_folder
from .judging import VERDICTS
from .report import MARKDOWN, PREDICTIONS, RESULTS, TABLE

RULES = ""
"""Who decides where no judge does."""
_FILES = (RESULTS, MARKDOWN, TABLE, PREDICTIONS, VERDICTS)
_LONGEST = 60


def folder_of(base: Path, decider: str) -> Path:
    """The folder below ``base`` that keeps what someone decided.

    Args:
        base: of the answers.
        decider: see `judging.decider`.
    """
    if decider == RULES:
        return base / "rules"
    kind = "" if decider.startswith("verdicts of ") else "judge-"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", decider.partition(" at ")[0]).strip("-.")[:_LONGEST]
    return base / f"{kind}{name}-{hashlib.sha256(decider.encode()).hexdigest()[:8]}"


def decider_of(folder: Path) -> str | None:
    """Who decided the results that a folder holds; None where it holds none that can be read."""
    try:
        content: Any = read_json(folder / RESULTS)
        judged = content["judged"]
        said = judged.get("judge", judged["decided_by"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(said, str) or said.startswith("no judge"):
        return RULES
    return said.removeprefix("judge: ")


def set_aside(folder: Path, decider: str) -> tuple[Path, str] | None:
    """Move the results that a folder holds of another decider into a folder of that one's own.

    Args:
        folder: where ``decider`` is about to write.
        decider: who decides now.
    Returns: where they are now and who had decided them; None where there was nothing to move.
    """
    held = decider_of(folder)
    if held is None or held == decider:
        return None
    own = folder_of(folder, held)
    make_folder(own)
    for name in _FILES:
        if (folder / name).is_file():
            os.replace(folder / name, own / name)
    return own, held


def in_words(decider: str) -> str:
    """Who decided, for messages."""
    return decider or "the rules alone"
