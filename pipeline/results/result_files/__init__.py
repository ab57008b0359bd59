"""Result files of other tools: VLMEvalKit's, LLaVA's, lmms-eval's, and those of MME's and MathVista's authors.

What a tool calls a question is seldom what the benchmark's release calls it. So a file's rows are joined to records by
what they say of the question, its image, its options and its ground truth (``join.py``); a file in which that leaves
doubt is refused with the reason. How a file is recognised is said next to each reader.
"""

from __future__ import annotations

from pathlib import Path

from . import llava, lmms_eval, mathvista, mme_tool, vlmevalkit
from .row import ResultFile

READERS = (vlmevalkit.read, mme_tool.read, mathvista.read, lmms_eval.read, llava.read)
"""Each returns None for a file that is not of its tool."""


def read_result_file(path: Path) -> ResultFile | None:
    """Read a file or folder of another tool; None where it is of none that is known here.

    Raises:
        DataError: it is of a known tool, and unreadable, incomplete or of a form that cannot be used.
    """
    return next((found for reader in READERS if (found := reader(path)) is not None), None)
