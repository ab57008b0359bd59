"""The commands of ``lbk_entry.py`` that stand in modules of their own; the others are in ``cli.py``."""

from __future__ import annotations

from .compare import COMPARE
from .report import REPORT

COMMANDS = (REPORT, COMPARE)
