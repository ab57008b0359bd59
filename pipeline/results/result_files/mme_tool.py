"""The folder of MME's evaluation tool: ``<subtask>.txt`` with lines ``image<TAB>question<TAB>ground truth<TAB>reply``.

Source: the benchmark's ``eval_tool.zip``, ``Your_Results`` and ``calculation.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets.registration.mme import COGNITION, PERCEPTION
from datasets.types import DataError

from .row import ResultFile, ResultRow

TOOL = "the folder of MME's evaluation tool"
_COLUMNS = 4


def read(path: Path) -> ResultFile | None:
    """Read a folder; None for a file, and for a folder without any of the 14 lists.

    Raises:
        DataError: a list is unreadable, or a line has no reply.
    """
    files = [file for name in (*PERCEPTION, *COGNITION) if (file := path / f"{name}.txt").is_file()]
    return ResultFile(tool=TOOL, rows=[row for file in files for row in _rows(file)]) if files else None


def _rows(path: Path) -> Iterator[ResultRow]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        where = f"{path}, line {number}"
        if len(cells) < _COLUMNS:
            raise DataError(
                f"{where}: expected image, question, ground truth and reply, separated by tabs; got {len(cells)} of "
                "these four. The tool's template has no replies yet."
            )
        image, question, target = cells[:3]
        yield ResultRow(
            where=where,
            reply="\t".join(cells[3:]),
            question=question,
            image=image,
            groups=(path.stem,),
            target=target,
        )
