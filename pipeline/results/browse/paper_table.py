"""Several runs in the paper's table: a row for each, a column for each benchmark; as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from configs.common.escape import csv_cell
from configs.common.words import shown as inline

from ...models.profile import profile_names, published_rows
from ..report import pipe_table
from ..summary import PUBLISHED, SummaryColumn, columns_of, in_order
from .runs import BenchmarkRun

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of figures.

    Attributes:
        titles: of the columns.
        rows: name of a run -> figure by title; a figure that is missing has no entry.
        sources: name of a row of published figures -> where they were published.
    """

    titles: Sequence[str]
    rows: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, str] = field(default_factory=dict)

    def best(self) -> dict[str, float]:
        """The best figure of each column in which several are known."""
        found = {title: [number_in(row[title]) for row in self.rows.values() if title in row] for title in self.titles}
        known = {title: [value for value in values if value is not None] for title, values in found.items()}
        return {title: max(values) for title, values in known.items() if len(values) > 1}

    def lines(self) -> Iterable[tuple[str, ...]]:
        """Header and rows; "" where a figure is missing."""
        yield ("model", *self.titles)
        for name, row in self.rows.items():
            yield (name, *(row.get(title, "") for title in self.titles))

    def markdown(self) -> str:
        """As Markdown."""
        header, *rows = self.lines()
        notes = [f"\n{inline(name)}: {inline(source)}" for name, source in self.sources.items()]
        return "\n".join([*pipe_table(header, rows), *notes, ""])

    def csv(self) -> str:
        """As CSV; no cell is a formula to a spreadsheet."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(map(csv_cell, line) for line in self.lines())
        return stream.getvalue()

    def latex(self) -> str:
        """As LaTeX, for booktabs; the best figure of a column is bold."""
        header, *rows = self.lines()
        best = self.best()
        body = []
        for name, *cells in rows:
            marked = [_marked(cell, best.get(title)) for cell, title in zip(cells, self.titles, strict=True)]
            body.append(" & ".join([latex_text(name), *marked]) + r" \\")
        return "\n".join(
            [
                rf"\begin{{tabular}}{{l{'c' * len(self.titles)}}}",
                r"\toprule",
                " & ".join(map(latex_text, ("", *header[1:]))) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                "",
            ]
        )


def paper_table(runs: Sequence[BenchmarkRun], *, published: bool = False) -> PaperTable:
    """The table of some runs' results, in the paper's order of columns.

    Args:
        runs: all benchmarks of all runs; those of one run have the same name.
        published: add a row of the published figures of CoLLaVO-7B, and one of each model that its runs' profiles know
            published figures of.
    """
    rows: dict[str, dict[str, str]] = {run.name: {} for run in runs}
    reported: dict[str, str] = {}
    columns: dict[str, SummaryColumn] = {}
    for run in runs:
        if not run.results:
            continue
        for column in columns_of(run.results):
            columns.setdefault(column.title, column)
            rows[run.name][column.title] = column.ours
        for expected in run.results.get("expected", ()):
            reported.setdefault(expected["title"] or run.results["title"], f"{expected['published']:.1f}")
    sources: dict[str, str] = {}
    if published and reported:
        rows[PUBLISHED] = reported
    if published:
        for name, (row, source) in _published_of_profiles(runs).items():
            rows[name], sources[name] = row, source
    titles = [column.title for column in in_order(list(columns.values()))]
    return PaperTable(titles=titles, rows=rows, sources=sources)


def _published_of_profiles(runs: Sequence[BenchmarkRun]) -> dict[str, tuple[dict[str, str], str]]:
    """Rows of the published figures of the models that were run, with their sources, on benchmarks that were run."""
    titles: dict[str, str] = {}
    profiles: set[str] = set()
    for run in runs:
        expected = [*run.results.get("expected", ()), {"title": ""}]
        titles.setdefault(run.results.get("benchmark", ""), expected[0]["title"] or run.results.get("title", ""))
        profiles.add(run.results.get("model", {}).get("profile", ""))
    found: dict[str, tuple[dict[str, str], str]] = {}
    for model, figures in published_rows(sorted(profiles & set(profile_names()))).items():
        known = [figure for figure in figures if figure.benchmark in titles]
        row = {figure.title or titles[figure.benchmark]: f"{figure.value:.1f}" for figure in known}
        if row:
            found[f"{model}, published"] = row, "; ".join(dict.fromkeys(figure.source for figure in known))
    return found


def latex_text(text: str) -> str:
    """A text inside a table cell of LaTeX, shown as it is."""
    return _SPECIAL.sub(lambda match: _LATEX[match[0]], inline(text))


def _marked(cell: str, best: float | None) -> str:
    return rf"\textbf{{{latex_text(cell)}}}" if best is not None and number_in(cell) == best else latex_text(cell)


def number_in(cell: str) -> float | None:
    """The figure in a cell; None where it holds a word."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
