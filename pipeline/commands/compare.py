"""``compare``: runs against the first of them, record by record; tables in the paper's shape; the paper's figures."""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from collavo.checkpoint.examine import describe_checkpoint
from collavo.errors import CheckpointError
from configs.common.escape import csv_cell
from configs.common.escape import markdown as markdown_text
from configs.common.words import listed, shown
from configs.load import ConfigError

from ..config import EvalConfig, read_configuration
from ..results.browse.comparison import Comparison, Difference, compare_runs
from ..results.browse.figures import draw_figures, library
from ..results.browse.paper_table import paper_table
from ..results.browse.runs import SETTINGS, BenchmarkRun, read_runs
from ..results.report import aligned, pipe_table
from ..runtime.console import tell, warn
from ..runtime.files import json_line, make_folder, write_bytes, write_text
from .cli import Command, path_argument

OUT = Path("outputs/compare")
CHANGES, PAIRS, TABLE = "changes.jsonl", "compare", "summary"
HEADER = (
    *("benchmark", "group", "run", "records", "first", "this run", "difference", "95 % interval"),
    *("better", "worse", "McNemar p"),
)  # fmt: skip
EXAMPLES = """\
  lbk_entry.py compare outputs/before outputs/after
  lbk_entry.py compare outputs/a outputs/b outputs/c --names "no crayon" semantic full --figures --out outputs/paper
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=path_argument,
        metavar="RUN",
        help="SAVE_DIR of a run, or the folder of one of its benchmarks; the others are compared with the first",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--names", nargs="+", metavar="NAME", help="of the runs (default: those of their folders)")
    group.add_argument(
        "--out", type=path_argument, default=OUT, metavar="DIR", help="folder of the files (default: %(default)s)"
    )
    group.add_argument(
        "--published",
        action="store_true",
        help="add published figures, of CoLLaVO-7B and of the runs' models",
    )
    group = parser.add_argument_group("figures")
    group.add_argument("--figures", action="store_true", help="draw the paper's figures too; needs matplotlib")
    group.add_argument(
        "--parameters",
        nargs="+",
        type=float,
        metavar="BILLIONS",
        help="of the runs' models, for the figure over sizes (default: counted from RESUME_FROM, where it is there)",
    )


def _compare(args: argparse.Namespace) -> int:
    names = _names(args.runs, args.names)
    if args.parameters is not None and len(args.parameters) != len(args.runs):
        raise ConfigError(f"--parameters gives {len(args.parameters)} numbers, for {len(args.runs)} runs")
    if args.parameters is not None and not all(0 < size < float("inf") for size in args.parameters):
        raise ConfigError("--parameters must be billions above 0")
    if args.figures:
        library()  # what is missing is said before anything is read
    runs = [read_runs(path, name=name) for path, name in zip(args.runs, names, strict=True)]
    out = make_folder(args.out)
    files = _write_pairs(runs, out) if len(runs) > 1 else []
    every = [benchmark for run in runs for benchmark in run]
    table = paper_table(every, published=args.published)
    if table.titles:
        notes = "".join(f"{name}: {source}\n" for name, source in table.sources.items())
        tell(f"{aligned(list(table.lines()))}\n{notes}\n")
        contents = {".md": table.markdown(), ".csv": table.csv(), ".tex": table.latex()}
        for suffix, content in contents.items():
            files.append(out / f"{TABLE}{suffix}")
            write_text(files[-1], content)
    else:
        warn("no table: no run has results.json next to its predictions")
    if args.figures:
        sizes = dict(zip(names, args.parameters, strict=True)) if args.parameters else _sizes(runs)
        drawn, missing = draw_figures(table, every, sizes, out)
        files += drawn
        for reason in missing:
            warn(f"no figure {reason}")
    tell("".join(f"{file}\n" for file in files))
    return 0


def _names(paths: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """A name for each run, all different.

    Raises:
        ConfigError: names are given, but not one for each, or one twice.
    """
    if given is not None:
        if len(given) != len(paths) or len(set(given)) != len(given):
            raise ConfigError(f"--names needs {len(paths)} different names, one for each run, got {shown(list(given))}")
        return list(given)
    names = [path.resolve().name for path in paths]
    if len(set(names)) == len(names):
        return names
    longer = [str(path) for path in paths]
    return longer if len(set(longer)) == len(longer) else [f"{name} ({n})" for n, name in enumerate(longer, start=1)]


def _write_pairs(runs: Sequence[Sequence[BenchmarkRun]], out: Path) -> list[Path]:
    """Compare every run with the first, show it, and write it.

    Raises:
        ConfigError: they have no benchmark in common.
    """
    first = {run.dataset: run for run in runs[0]}
    pairs = [(first[b.dataset], b) for run in runs[1:] for b in run if b.dataset in first]
    if not pairs:
        held = [", ".join(sorted(run.dataset for run in each)) for each in runs]
        raise ConfigError(f"the runs have no benchmark in common: {'; '.join(map(shown, held))}")
    found = [(one, other, compare_runs(one.predictions, other.predictions)) for one, other in pairs]
    rows = [_row(one, other, comparison.overall) for one, other, comparison in found]
    tell(f"{aligned([HEADER, *rows])}\n\n")
    for one, other, comparison in found:
        for sentence in _remarks(one, other, comparison):
            tell(f"{sentence}\n")
    tell("\n")
    every = [_row(one, other, each) for one, other, c in found for each in (c.overall, *c.groups)]
    write_text(out / f"{PAIRS}.md", _markdown(found, every))
    write_text(out / f"{PAIRS}.csv", _csv([HEADER, *every]))
    changes = [
        {**change.as_row(one.dataset), "runs": [one.name, other.name]}
        for one, other, c in found
        for change in c.changes
    ]
    write_bytes(out / CHANGES, b"".join(map(json_line, changes)))
    return [out / f"{PAIRS}.md", out / f"{PAIRS}.csv", out / CHANGES]


def _row(one: BenchmarkRun, other: BenchmarkRun, found: Difference) -> tuple[str, ...]:
    def points(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{100 * value:{sign}.2f}"

    interval = "" if found.low is None else f"{points(found.low, '+')} to {points(found.high, '+')}"
    return (
        *(one.title, found.group or "all", other.name, str(found.num), points(found.first), points(found.second)),
        *(points(found.value, "+"), interval, str(found.second_better), str(found.first_better)),
        "" if found.p_value is None else f"{found.p_value:.2g}",
    )


def _remarks(one: BenchmarkRun, other: BenchmarkRun, found: Comparison) -> list[str]:
    """What the table does not say: ids that changed, and records that only one of the runs has."""
    title = f"{shown(one.title)}, {shown(other.name)} against {shown(one.name)}"
    sentences = []
    for kind, words in (("worse", "worse on"), ("better", "better on"), ("reply", "another reply, same credit, on")):
        ids = [change.id for change in found.changes if change.change == kind]
        if ids:
            sentences.append(f"{title}: {words} {len(ids)}: {listed(ids)}")
    for name, ids_alone in ((one.name, found.only_first), (other.name, found.only_second)):
        if ids_alone:
            sentences.append(f"{title}: {len(ids_alone)} records are only in {shown(name)}, and are not compared")
    if found.undecided:
        sentences.append(f"{title}: {found.undecided} records have no credit in one of the runs, and are not compared")
    return sentences


def _markdown(found: Sequence[tuple[BenchmarkRun, BenchmarkRun, Comparison]], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["# Comparison", "", *pipe_table(HEADER, rows), ""]
    lines += [
        "Credits in percent; the difference is this run less the first, with an interval clustered by image. McNemar's "
        "exact test takes records as independent, and is left out where a credit is neither 0 nor 1.",
        "",
    ]
    for one, other, comparison in found:
        lines += [f"- {markdown_text(sentence)}" for sentence in _remarks(one, other, comparison)]
    return "\n".join([*lines, f"- all of them: {CHANGES}", ""])


def _csv(rows: Sequence[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return stream.getvalue()


def _sizes(runs: Sequence[Sequence[BenchmarkRun]]) -> dict[str, float]:
    """Billions of parameters of each run's model, where its checkpoint is at hand."""
    found: Mapping[str, float | None] = {each[0].name: _parameters(each[0].folder / SETTINGS) for each in runs}
    return {name: size for name, size in found.items() if size is not None}


def _parameters(settings: Path) -> float | None:
    """Billions of parameters of the checkpoint that a run's configuration names; None where it is not there."""
    if not settings.is_file():
        return None
    config: EvalConfig
    try:
        config, _ = read_configuration([settings], [])
        tensors = describe_checkpoint(Path(config.RESUME_FROM).expanduser()).tensors if config.RESUME_FROM else {}
    except (ConfigError, CheckpointError):
        return None
    sizes = [stored.shape for _, stored in tensors.values()]
    return sum(map(math.prod, sizes)) / 1e9 if sizes else None


COMPARE = Command(
    name="compare",
    help="compare runs record by record, and write the paper's tables and figures",
    options=_options,
    run=_compare,
    configured=False,
    examples=EXAMPLES,
)
