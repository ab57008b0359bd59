"""``report``: pages of finished runs to look at."""

from __future__ import annotations

import argparse

from configs.load import ConfigError

from ..results.browse.report_files import BUDGET, FOLDER, side_by_side, write_report
from ..results.browse.runs import RecordImages, find_record_images
from ..runtime.console import tell, warn
from .cli import Command, path_argument

EXAMPLES = """\
  lbk_entry.py report outputs/collavo_step2
  lbk_entry.py report outputs/before outputs/after --out outputs/compared --budget 50
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        type=path_argument,
        metavar="RUN",
        help="SAVE_DIR of a run, or the folder of one of its benchmarks; two runs of a benchmark stand side by side",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", type=path_argument, metavar="DIR", help=f"folder of the pages (default: {FOLDER}/ in the first RUN)"
    )
    group.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        metavar="MB",
        help="of thumbnails that a page carries inside; the others lie next to it (default: %(default)g)",
    )


def _report(args: argparse.Namespace) -> int:
    if not 0 <= args.budget < float("inf"):
        raise ConfigError(f"--budget must be 0 or more megabytes, got {args.budget:g}")
    runs = side_by_side(args.runs)
    first = args.runs[0] if args.runs[0].is_dir() else args.runs[0].parent

    def find(run: object) -> RecordImages:
        sights = find_record_images(run, args.conf_files, args.overrides)  # type: ignore[arg-type]
        if sights.missing:
            warn(f"images are not shown: {sights.missing}")
        return sights

    index = write_report(runs, find, args.out or first / FOLDER, args.budget)
    tell(f"report:      {index}\n")
    return 0


REPORT = Command(
    name="report",
    help="write HTML pages of finished runs, with every record's image, map and reply",
    options=_options,
    run=_report,
    examples=EXAMPLES,
)
