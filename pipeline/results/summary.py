"""The table at the end of a run over several benchmarks: the published figures, ours, and the difference."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from configs.common.escape import csv_cell
from configs.common.escape import markdown as markdown_text
from configs.common.words import shown as inline

from ..runtime.console import tell
from ..runtime.files import write_text
from .join import part_in_words
from .report import LONGEST_PROMPT, aligned, pipe_table, rules_in_words, shown

WIDTH = 110
"""Characters of a line on the terminal, from which the table goes on below itself."""
MARKDOWN, TABLE = "summary.md", "summary.csv"
ORDER = ("GQA", "SQA-IMG", "TextVQA", "POPE", "MME-P", "MME-C", "MMBench", "MMBench-CN", "MM-Vet", "Q-Bench")
"""Columns of the paper's table; others follow."""
PUBLISHED = "CoLLaVO-7B, published"
ROWS = ("", PUBLISHED, "this run", "difference", "random part, records", "among its lessons")
"""Of the table; those that hold nothing are left out."""


@dataclass(frozen=True, kw_only=True)
class SummaryColumn:
    """One figure of a benchmark.

    Attributes:
        title: of the benchmark, or of the figure where it has several.
        published: as published; "" where nothing is.
        ours: of this run, or why there is none.
        difference: ours minus the published one; "" where either is missing, or they cannot be compared.
        part: how many records were asked out of how many; "" for all.
        taught: "no" where the model never learned such questions; else "".
    """

    title: str
    published: str
    ours: str
    difference: str = ""
    part: str = ""
    taught: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """From top to bottom, as `ROWS` has them."""
        return self.title, self.published, self.ours, self.difference, self.part, self.taught


def show_summary(
    results: Sequence[Mapping[str, Any]], missing: Mapping[str, str], failed: Mapping[str, str], folder: Path
) -> None:
    """Write ``summary.md`` and ``summary.csv``, and show the table.

    Args:
        results: of every benchmark that ran, as in its ``results.json``.
        missing: dataset -> why it could not be run.
        failed: dataset -> why it failed: most or all of its questions have no answer.
        folder: where the files go.
    """
    columns = in_order([column for result in results for column in columns_of(result)])
    write_text(folder / MARKDOWN, markdown(columns, results, missing, failed))
    write_text(folder / TABLE, _csv(columns))
    left_out = f"\nleft out, for reasons said above: {', '.join(missing)}\n" if missing else ""
    tell(f"\n{plain(columns)}\n{left_out}\nsummary:     {folder / MARKDOWN}\n")


def in_order(columns: Sequence[SummaryColumn]) -> list[SummaryColumn]:
    """Columns as the paper's table has them, then the others as they come."""
    return sorted(columns, key=lambda column: ORDER.index(column.title) if column.title in ORDER else len(ORDER))


def columns_of(result: Mapping[str, Any]) -> Iterator[SummaryColumn]:
    """A benchmark's columns: the figures that were published, or else its first one."""
    about = {"part": _part(result), "taught": "no" if result.get("untaught") else ""}
    for row in result["expected"]:
        ours = _not_scored(result) if row["got"] is None else f"{row['got']:.1f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.1f}"
        title = row["title"] or result["title"]
        published = "" if result.get("another_model") else f"{row['published']:.1f}"
        yield SummaryColumn(title=title, published=published, ours=ours, difference=difference, **about)
    if not result["expected"]:
        first = result["metrics"][0]
        ours = _not_scored(result) if first["value"] is None else shown(first, digits=1)
        yield SummaryColumn(title=result["title"], published="", ours=ours, **about)


def _part(result: Mapping[str, Any]) -> str:
    part = result.get("part")
    return f"{part['records']} of {part['of']}" if part else ""


def _not_scored(result: Mapping[str, Any]) -> str:
    return "no judge" if result["judged"]["decided_by"].startswith("no judge") else "undefined"


def plain(columns: Sequence[SummaryColumn]) -> str:
    """The table for a terminal, cut into blocks that fit its width."""
    blocks: list[list[SummaryColumn]] = [[]]
    used = len(max(ROWS, key=len))
    for column in columns:
        width = max(len(inline(cell)) for cell in column.cells) + 2
        if blocks[-1] and used + width > WIDTH:
            blocks.append([])
            used = len(max(ROWS, key=len))
        blocks[-1].append(column)
        used += width
    kept = _held(columns)
    return "\n\n".join(aligned(list(_lines(block, kept))) for block in blocks)


def markdown(
    columns: Sequence[SummaryColumn],
    results: Sequence[Mapping[str, Any]],
    missing: Mapping[str, str],
    failed: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The table as a Markdown page, with what is behind each column."""
    header, *rows = _lines(columns)
    lines = ["# Summary", "", *pipe_table(header, rows), ""]
    for result in results:
        number = result["counts"]
        lines.append(
            f"- {markdown_text(inline(result['title']))} (`{result['dataset']}`): {number['answered']} of "
            f"{number['records']} records answered{_not_all(number)}, {markdown_text(rules_in_words(result))}"
            f"{_remarks(result)}"
        )
    others = {result["another_model"] for result in results if result.get("another_model")}
    lines += [f"- not compared with published figures: {markdown_text(inline(why))}" for why in sorted(others)]
    for verb, reasons in (("failed", failed), ("is left out", missing)):
        lines += [
            f"- `{name}` {verb}: {markdown_text(inline(' '.join(why.split()), LONGEST_PROMPT))}"
            for name, why in reasons.items()
        ]
    return "\n".join([*lines, ""])


def _not_all(counts: Mapping[str, int]) -> str:
    """Which records have no score, and why; "" if all have one."""
    found = [f"{counts[name]} {name}" for name in ("unscored", "withheld", "errors", "bad_records") if counts[name]]
    return f" ({', '.join(found).replace('_', ' ')})" if found else ""


def _remarks(result: Mapping[str, Any]) -> str:
    """What limits the figures of a benchmark."""
    part, forced = part_in_words(result), "; ".join(map(inline, result.get("forced", ())))
    return (
        (f"; {part} (EVAL.LIMIT)" if part else "")
        + ("; not among the model's lessons" if result.get("untaught") else "")
        + (f"; {markdown_text(forced)} (CRAYON.FORCE)" if forced else "")
    )


def _held(columns: Sequence[SummaryColumn]) -> list[int]:
    """Numbers of the rows that hold something; what this run found always does."""
    return [n for n in range(len(ROWS)) if n in (0, ROWS.index("this run")) or any(c.cells[n] for c in columns)]


def _lines(columns: Sequence[SummaryColumn], rows: Sequence[int] | None = None) -> Iterator[tuple[str, ...]]:
    """The table's lines; of the given rows, or those that hold something."""
    for row in _held(columns) if rows is None else rows:
        yield (ROWS[row], *(column.cells[row] for column in columns))


def _csv(columns: Sequence[SummaryColumn]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(map(csv_cell, line) for line in _lines(columns))
    return stream.getvalue()
