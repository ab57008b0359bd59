"""How results are shown and written: a table at the end of a run, and the files of its folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.common.escape import csv_cell
from configs.common.escape import markdown as markdown_text
from configs.common.words import quoted
from configs.common.words import shown as inline

from ..runtime.files import write_bytes, write_json, write_text
from ..runtime.provenance import difference_in_words
from .join import part_in_words, warnings

PREDICTIONS, RESULTS, MARKDOWN, TABLE = "predictions.jsonl", "results.json", "results.md", "results.csv"
CHANCE = "chance"
"""Name of the metric that says a majority-answer baseline."""

CLASS, MANY_ROWS = "class/", 120
"""How groups of single classes begin, and rows of a table from which the terminal shows none of them."""

LONGEST_PROMPT = 1000
"""Characters of a prompt, or of where a rule is from, in a report."""
_COLUMNS = ("group", "name", "value", "num", "stderr", "low", "high", "kind", "part")


def write_results(folder: Path, predictions: bytes, results: Mapping[str, Any]) -> None:
    """Write predictions, results, Markdown and CSV, each at once.

    Args:
        folder: of the run.
        predictions: the whole predictions file.
        results: see ``pipeline/results/join.py``.
    """
    write_bytes(folder / PREDICTIONS, predictions)
    write_text(folder / TABLE, csv_table(results["metrics"], part_in_words(results)))
    write_text(folder / MARKDOWN, markdown(results, folder))
    write_json(folder / RESULTS, results)


def remove_results(folder: Path) -> None:
    """Remove an earlier run's results, so that they are not taken for those of the run that starts."""
    for name in (RESULTS, MARKDOWN, TABLE, PREDICTIONS):
        (folder / name).unlink(missing_ok=True)


def csv_table(metrics: Sequence[Mapping[str, Any]], part: str = "") -> str:
    """All metric rows, unrounded; an undefined value is empty, and no name is a formula to a spreadsheet.

    Args:
        metrics: the rows.
        part: which part of the benchmark they are of; "" for a whole one.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    texts = ("group", "name")
    for metric in metrics:
        cells = {name: csv_cell(metric[name]) if name in texts else metric[name] for name in _COLUMNS[:-1]}
        writer.writerow({**cells, "part": part})
    return stream.getvalue()


def markdown(results: Mapping[str, Any], folder: Path) -> str:
    """The results as a Markdown page, to stand in a folder."""
    number = results["counts"]
    title = f"# {markdown_text(inline(results['title']))}{in_brackets(part_in_words(results))}"
    lines = [title, "", *pipe_table(_HEADER, _rows(results["metrics"])), ""]
    if results.get("another_model"):
        lines.append(f"- not compared with published figures: {markdown_text(inline(results['another_model']))}")
    elif results["expected"]:
        lines += [*pipe_table(_EXPECTED_HEADER, _expected_rows(results["expected"])), ""]
    lines += [f"- {markdown_text(_paired(results['paired']))}"] if "paired" in results else []
    lines += [f"- {markdown_text(sentence)}" for sentence in warnings(results, folder)]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in number.items()]
    asked = results["asked"]
    if asked["prompt"]:  # a benchmark of the segmenter alone asks nothing
        lines.append(
            f"- asked with {asked['num_beams']} beam{'s' if asked['num_beams'] > 1 else ''}, at most "
            f"{asked['max_new_tokens']} tokens, prompt {markdown_text(quoted(asked['prompt'], LONGEST_PROMPT))}"
        )
    lines += [
        f"- scorer {asked['scorer']}, version {asked['version']} of the benchmark, after "
        f"{markdown_text(inline(asked['source'], LONGEST_PROMPT))}",
        f"- {markdown_text(rules_in_words(results))}",
    ]
    lines += [f"- {note}" for note in [difference_in_words(results)] if note]
    if "seconds" in results:
        lines.append(
            f"- {results['seconds']['this_session']} s in the last session; devices: "
            f"{markdown_text(inline(', '.join(results['devices'])))}"
        )
    if "decisions" in results and results["decisions"]["of"]:
        decisions = results["decisions"]
        lines.append(
            f"- replies that rounding could turn: {decisions['close']} of {decisions['of']}; sums of a fixed order: "
            f"{'yes' if decisions['fixed_order'] else 'not known of these devices'}"
        )
    return "\n".join([*lines, ""])


def headline(results: Mapping[str, Any]) -> str:
    """The first figures of a benchmark in one line."""
    names = [(f"{m['group']} " if m["group"] else "") + f"{m['name']} {shown(m)}" for m in results["metrics"][:3]]
    return ", ".join(map(inline, names)) + in_brackets(part_in_words(results))


def in_brackets(words: str) -> str:
    """Words to set behind others; "" for none."""
    return f" ({words})" if words else ""


def rules_in_words(results: Mapping[str, Any]) -> str:
    """By whose rules the scores were made, and what decided."""
    kind = "official rules" if results["asked"]["rules"] == "official" else "rules of the first CoLLaVO release"
    decided = results["judged"]["decided_by"]
    return f"{kind}; {inline(decided, LONGEST_PROMPT)}" if decided else kind


def plain_table(results: Mapping[str, Any]) -> str:
    """The results for the terminal, columns aligned."""
    rows = _rows(results["metrics"])
    whole = rows if len(rows) <= MANY_ROWS else [row for row in rows if not row[0].startswith(CLASS)]
    tables = [aligned([_HEADER, *whole])]
    if len(whole) < len(rows):
        tables.append(f"{len(rows) - len(whole)} figures of single classes are in {MARKDOWN}")
    if results["expected"] and not results.get("another_model"):
        tables.append(aligned([_EXPECTED_HEADER, *_expected_rows(results["expected"])]))
    if "paired" in results:
        tables.append(_paired(results["paired"]))
    about = "; ".join(filter(None, (rules_in_words(results), part_in_words(results))))
    return "\n\n".join([f"{inline(results['title'])} ({about})", *tables])


def _paired(row: Mapping[str, Any]) -> str:
    """Two runs, question by question."""
    against = inline(row["against"])
    if row["difference"] is None:
        return f"against {against}: no question has a score in both"
    return (
        f"against {against}, on {row['questions']} questions: {100 * row['difference']:+.2f} points of credit "
        f"({100 * row['low']:+.2f} to {100 * row['high']:+.2f}); better on {row['first_better']}, "
        f"worse on {row['second_better']}"
    )


_HEADER = ("group", "metric", "value", "95 % interval", "num")
_EXPECTED_HEADER = ("published", "value", "ours", "difference", "source")


def _rows(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of the table; what chance would give stands next to the figure that it belongs to."""
    chance = {m["group"]: f" (chance {shown(m)})" for m in metrics if m["name"] == CHANCE}
    return [
        (
            m["group"] or "all",
            m["name"],
            shown(m) + (chance.get(m["group"], "") if m["name"] == "accuracy" else ""),
            interval_words(m),
            str(m["num"]),
        )
        for m in metrics
        if m["name"] != CHANCE
    ]


def _expected_rows(expected: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in expected:
        got = "undefined" if row["got"] is None else f"{row['got']:.2f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        beyond = "" if row["within"] is not False else f" (more than {row['tolerance']:g})"
        rows.append((row["metric"], f"{row['published']:.2f}", got, difference + beyond, row["source"]))
    return rows


def shown(metric: Mapping[str, Any], digits: int = 2) -> str:
    """A value as tables show it: a rate in percent, a count whole."""
    value = metric["value"]
    if value is None:
        return "undefined"
    return str(value) if metric["kind"] == "count" else f"{value * _scale(metric):.{digits}f}"


def interval_words(metric: Mapping[str, Any]) -> str:
    """The 95 % interval of a figure on its table's scale; "" where there is none."""
    if metric["value"] is None or metric.get("low") is None:
        return ""
    return f"{metric['low'] * _scale(metric):.2f} to {metric['high'] * _scale(metric):.2f}"


def _scale(metric: Mapping[str, Any]) -> float:
    return 100.0 if metric["kind"] == "rate" else 1.0


def pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; whatever a cell holds is shown as it is."""
    cells = [[markdown_text(inline(cell)) for cell in row] for row in (header, *rows)]
    return ["| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(header), *cells[1:])]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal; the first row is its header, and every row is a line whatever a cell holds."""
    rows = [[inline(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
