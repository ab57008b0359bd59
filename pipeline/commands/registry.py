"""The commands of ``lbk_entry.py`` that stand in modules of their own; the others are in ``cli.py``."""

from __future__ import annotations

from .ask import ASK
from .compare import COMPARE
from .demo import DEMO
from .report import REPORT

COMMANDS = (ASK, DEMO, REPORT, COMPARE)
