"""The paper's three figures, from any set of runs, as SVG and PNG. Needs matplotlib, which is an optional extra.

Source: arXiv 2402.11248: the radar over benchmarks (MME's scores divided by 20 to share an axis with percent),
SEED-IMG accuracy against the number of parameters, and POPE's four metrics on its three lists.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.common.words import shown as inline

from ...runtime.errors import RunError
from ...runtime.files import make_folder, write_bytes
from .paper_table import PaperTable, number_in
from .runs import BenchmarkRun

LISTS = ("random", "popular", "adversarial")
METRICS = ("accuracy", "precision", "recall", "f1")
MME, MME_SHARE = ("MME-P", "MME-C"), 20
SEED, POPE = "SEED-IMG", "POPE"
FORMATS = ("svg", "png")
DASHES = ("-", "--", "-.", ":")
"""Of the lines of a radar, so that one over another can be seen."""
LEAST_AXES = 3
"""Axes that a radar needs."""


def library() -> Any:
    """Matplotlib's figures, without any window.

    Raises:
        RunError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise RunError("figures need matplotlib: bash install --extras figures, or pip install matplotlib") from None
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "collavo"  # so that the same figures give the same file
    matplotlib.rcParams["text.parse_math"] = False  # a name may hold $
    from matplotlib import pyplot

    return pyplot


def draw_figures(
    table: PaperTable, runs: Sequence[BenchmarkRun], parameters: Mapping[str, float], out: Path
) -> tuple[list[Path], list[str]]:
    """Draw what the runs have figures for.

    Args:
        table: of the runs.
        runs: all benchmarks of all runs.
        parameters: of each run's model, in billions, where it is known.
        out: folder of the files.
    Returns: the files, and why figures are left out.

    Raises:
        RunError: matplotlib is not installed.
        WriteError: the folder cannot be written to.
    """
    plots = library()
    drawings: dict[str, Callable[[], Any]] = {
        "radar": lambda: radar(plots, radar_values(table)),
        "seed_parameters": lambda: against_parameters(plots, seed_points(table, parameters)),
        "pope": lambda: pope_bars(plots, pope_values(runs)),
    }
    files, missing = [], []
    make_folder(out)
    for name, draw in drawings.items():
        try:
            figure = draw()
        except LookupError as error:
            missing.append(f"{name}: {error.args[0]}")
            continue
        for kind in FORMATS:
            files.append(out / f"{name}.{kind}")
            write_bytes(files[-1], _encoded(figure, kind))
        plots.close(figure)
    return files, missing


def _encoded(figure: Any, kind: str) -> bytes:
    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(content, format=kind, dpi=160, bbox_inches="tight", metadata=metadata)
    return content.getvalue()


def radar_values(table: PaperTable) -> dict[str, dict[str, float]]:
    """Figures by run and axis, on a scale up to 100; MME's scores are divided by 20.

    Raises:
        LookupError: there are too few benchmarks.
    """
    found: dict[str, dict[str, float]] = {}
    for name, row in table.rows.items():
        for title, cell in row.items():
            value = number_in(cell)
            if value is not None:
                axis, scaled = (f"{title} / {MME_SHARE}", value / MME_SHARE) if title in MME else (title, value)
                found.setdefault(name, {})[axis] = scaled
    axes = {axis for row in found.values() for axis in row}
    if len(axes) < LEAST_AXES:
        raise LookupError(f"needs at least {LEAST_AXES} figures of benchmarks, the runs have {len(axes)}")
    return found


def seed_points(table: PaperTable, parameters: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Billions of parameters and SEED-IMG accuracy, by run.

    Raises:
        LookupError: no run has both.
    """
    found = {
        name: (parameters[name], value)
        for name, row in table.rows.items()
        if name in parameters and (value := number_in(row.get(SEED, ""))) is not None
    }
    if not found:
        raise LookupError(f"no run has both {SEED} and a known number of parameters (--parameters)")
    return found


def pope_values(runs: Sequence[BenchmarkRun]) -> dict[str, dict[tuple[str, str], float]]:
    """POPE's figures in percent, by run and by list and metric.

    Raises:
        LookupError: no run has them.
    """
    found: dict[str, dict[tuple[str, str], float]] = {}
    for run in runs:
        if run.results.get("title") == POPE:
            for metric in run.results["metrics"]:
                if metric["group"] in LISTS and metric["name"] in METRICS and metric["value"] is not None:
                    found.setdefault(run.name, {})[metric["group"], metric["name"]] = 100 * metric["value"]
    if not found:
        raise LookupError(f"no run has {POPE}")
    return found


def radar(plots: Any, values: Mapping[str, Mapping[str, float]]) -> Any:
    """A line for each run around the benchmarks."""
    axes = list(dict.fromkeys(axis for row in values.values() for axis in row))
    angles = [2 * math.pi * index / len(axes) for index in range(len(axes))]
    figure, plot = plots.subplots(figsize=(7, 7), subplot_kw={"projection": "polar"})
    plot.set_theta_offset(math.pi / 2)
    plot.set_theta_direction(-1)
    for (name, row), dash in zip(values.items(), itertools.cycle(DASHES), strict=False):
        points = [(angle, row[axis]) for angle, axis in zip(angles, axes, strict=True) if axis in row]
        plot.plot(*zip(*points, points[0], strict=True), linestyle=dash, marker="o", markersize=3, label=inline(name))
        if len(points) == len(axes):
            plot.fill(*zip(*points, strict=True), alpha=0.08)
    plot.set_xticks(angles, [inline(axis) for axis in axes])
    for label, angle in zip(plot.get_xticklabels(), angles, strict=True):
        side = math.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
    plot.tick_params(axis="x", pad=6)
    plot.set_ylim(0, 100)
    plot.set_rlabel_position(180 / len(axes))  # between the first two axes
    plot.legend(loc="upper left", bbox_to_anchor=(1.25, 1.05), frameon=False)
    return figure


def against_parameters(plots: Any, points: Mapping[str, tuple[float, float]]) -> Any:
    """A point for each run: its model's size and its accuracy on SEED-IMG."""
    figure, plot = plots.subplots(figsize=(6, 4))
    names: dict[tuple[float, float], list[str]] = {}
    for name, point in points.items():
        names.setdefault(point, []).append(inline(name))
    for (size, accuracy), alike in names.items():
        plot.scatter([size], [accuracy], s=60)
        plot.annotate(", ".join(alike), (size, accuracy), xytext=(6, 5), textcoords="offset points")
    plot.set_xscale("log")
    plot.margins(x=0.2)  # room for the last name
    for axis in (plot.xaxis.set_major_formatter, plot.xaxis.set_minor_formatter):
        axis(lambda number, _: f"{number:g}" if f"{number:e}"[0] in "125" else "")
    plot.set_xlabel("parameters (billions)")
    plot.set_ylabel(f"{SEED} accuracy (%)")
    plot.grid(alpha=0.3)
    return figure


def pope_bars(plots: Any, values: Mapping[str, Mapping[tuple[str, str], float]]) -> Any:
    """A panel for each metric, in it a group of bars for each list."""
    figure, panels = plots.subplots(1, len(METRICS), figsize=(13, 3.4), sharey=True)
    width = 0.8 / len(values)
    for panel, metric in zip(panels, METRICS, strict=True):
        for index, (name, row) in enumerate(values.items()):
            places = [place + (index - (len(values) - 1) / 2) * width for place in range(len(LISTS))]
            heights = [row.get((each, metric), math.nan) for each in LISTS]
            panel.bar(places, heights, width, label=inline(name))
        panel.set_title(metric)
        panel.set_xticks(range(len(LISTS)), LISTS)
        panel.set_ylim(0, 100)
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("percent")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False)
    return figure
