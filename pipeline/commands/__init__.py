"""Commands of ``lbk_entry.py`` beside those of ``pipeline/commands/cli.py``. Importing this loads no torch."""

from __future__ import annotations

from .report import REPORT

COMMANDS = (REPORT,)
