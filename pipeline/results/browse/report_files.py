"""The report: one HTML page per benchmark and an index, which open from disk without a server or a network."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from configs.common.words import shown as inline
from configs.load import ConfigError
from datasets.types import ImageSource

from ...runtime.files import make_folder, write_text
from ..join import part_in_words
from ..report import headline
from ..summary import PUBLISHED, SummaryColumn, columns_of, in_order
from .page import data_page, plain_page
from .prediction import FAULTS
from .report_data import page_data
from .runs import BenchmarkRun, RecordImages, read_runs
from .thumbnails import Thumbnail, make_thumbnails

FOLDER, INDEX = "report", "index.html"
MEGABYTE = 2**20
BUDGET = 20.0
"""Megabytes of thumbnails that a page carries inside, unless another budget is given."""

FindSights = Callable[[BenchmarkRun], RecordImages]


def write_report(
    runs: Sequence[Sequence[BenchmarkRun]],
    find: FindSights,
    out: Path,
    budget: float = BUDGET,
    others: Sequence[BenchmarkRun] = (),
) -> Path:
    """Write the pages of some benchmarks.

    Args:
        runs: of each benchmark, one run or two that are set side by side.
        find: images and maps of a run.
        out: folder of the report.
        budget: megabytes of thumbnails that a page carries inside.
        others: benchmarks whose pages are there already; the index lists them too.
    Returns: the index.

    Raises:
        WriteError: the folder cannot be written to.
    """
    make_folder(out)
    links: list[tuple[str, Sequence[BenchmarkRun]]] = []
    for file, each in zip(page_names([each[0].dataset for each in runs]), runs, strict=True):
        sights = find(each[0])
        thumbnails = _thumbnails(each, sights, out)
        data = page_data(each, sights, thumbnails, budget * MEGABYTE)
        write_text(out / file, data_page(f"{data['title']} – report", data))
        links.append((file, each))
    links += [(page_names([run.dataset])[0], [run]) for run in others]
    write_text(out / INDEX, index_page(sorted(links, key=lambda link: link[0])))
    return out / INDEX


def _thumbnails(runs: Sequence[BenchmarkRun], sights: RecordImages, out: Path) -> Mapping[str, Thumbnail]:
    """Thumbnails of the images of all records that the page shows."""
    ids = dict.fromkeys(p.id for run in runs for p in run.predictions)
    sources: list[ImageSource] = [sights.images[name] for name in ids if name in sights.images]
    return make_thumbnails(sources, out)


def page_names(datasets: Sequence[str]) -> list[str]:
    """File names of the benchmarks' pages, each once, of harmless letters alone."""
    names: list[str] = []
    for dataset in datasets:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset).strip("-")[:80] or "benchmark"
        name, number = stem, 2
        while f"{name}.html" in (*names, INDEX):
            name, number = f"{stem}-{number}", number + 1
        names.append(f"{name}.html")
    return names


def index_page(links: Sequence[tuple[str, Sequence[BenchmarkRun]]]) -> str:
    """A table of the benchmarks, each with a link to its page; without any script.

    Args:
        links: file of a page, and the runs that it shows.
    """
    rows = "".join(_row(file, run) for file, runs in links for run in runs)
    heads = "".join(f"<th>{name}</th>" for name in ("benchmark", "run", "figures", "records", "to look at"))
    body = f'<div class="index"><h1>Report</h1>{_paper_table(links)}<table><tr>{heads}</tr>{rows}</table></div>'
    return plain_page("Report", body)


def _row(file: str, run: BenchmarkRun) -> str:
    faults = sum(p.verdict in FAULTS for p in run.predictions)
    part = part_in_words(run.results) if run.results else ""
    cells = [
        f'<a href="{html.escape(file)}">{_text(run.title)}</a>',
        _text(run.name),
        _text(headline({**run.results, "part": None}) if run.results else "no results.json next to the predictions"),
        _text(part or str(len(run.predictions))),
        str(faults),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _paper_table(links: Sequence[tuple[str, Sequence[BenchmarkRun]]]) -> str:
    """The summary in the paper's shape: a line for each run; "" where no run has results."""
    columns = in_order(list({c.title: c for _, runs in links for run in runs for c in _columns(run)}.values()))
    names = list(dict.fromkeys(run.name for _, runs in links for run in runs if run.results))
    if not columns:
        return ""
    head = "".join(f"<th>{_text(column.title)}</th>" for column in columns)
    lines = []
    for name in names:
        ours = {c.title: c.ours for _, runs in links for run in runs if run.name == name for c in _columns(run)}
        cells = "".join(f"<td>{_text(ours.get(column.title, ''))}</td>" for column in columns)
        lines.append(f"<tr><td>{_text(name)}</td>{cells}</tr>")
    published = "".join(f"<td>{_text(column.published)}</td>" for column in columns)
    if any(column.published for column in columns):
        lines.append(f"<tr><td>{PUBLISHED}</td>{published}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _columns(run: BenchmarkRun) -> list[SummaryColumn]:
    return list(columns_of(run.results)) if run.results and "expected" in run.results else []


def _text(text: str) -> str:
    return html.escape(inline(text, 1000))


def side_by_side(paths: Sequence[Path]) -> list[list[BenchmarkRun]]:
    """The benchmarks of some runs; those that two runs have stand side by side.

    Args:
        paths: predictions files, folders of results, or whole runs.

    Raises:
        ConfigError: three runs have the same benchmark.
        DataError: see `read_runs`.
    """
    found: dict[str, list[BenchmarkRun]] = {}
    for path in paths:
        for run in read_runs(path):
            found.setdefault(run.dataset, []).append(run)
    for dataset, runs in found.items():
        if len(runs) > 2:
            raise ConfigError(f"{inline(dataset)} is in {len(runs)} of the runs; a page sets two side by side at most")
    return [_distinguished(runs) for runs in found.values()]


def _distinguished(runs: list[BenchmarkRun]) -> list[BenchmarkRun]:
    """Runs of different names: where folders are called alike, their paths tell them apart."""
    if len({run.name for run in runs}) == len(runs):
        return runs
    return [replace(run, name=str(run.folder)) for run in runs]
