"""Command line of the comparison."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from datasets.writing import WriteError
from pipeline.runtime.console import say
from pipeline.runtime.files import write_text

from ..scores import SHIPPED
from .figures import read_figures, tables, write_figures
from .plan import ForgettingPlan, ForgettingSettings, measure


def main() -> int:
    """Command line; returns the exit code."""
    args = arguments()
    try:
        if args.figures is not None:
            figures = read_figures(args.figures)
        else:
            folder = args.directory.resolve()
            settings = ForgettingSettings(**{one.name: getattr(args, one.name) for one in fields(ForgettingSettings)})
            plan = ForgettingPlan(folder=folder, base=args.base.resolve(), settings=settings)
            plan.prepare()
            figures = measure(plan, args.seeds, args.at_once)
            write_figures(figures, folder / "forgetting.json")
            write_text(folder / "tables.md", tables(figures, markdown=True))
    except (RuntimeError, WriteError) as error:
        say(f"error: {error}")
        return 1
    sys.stdout.write(tables(figures, markdown=False))
    return 0


def arguments() -> argparse.Namespace:
    """The words of the command line; ends the process where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m assets.tiny.train.forgetting", description="What step 2 forgets, by its adapters."
    )
    parser.add_argument("directory", type=Path, nargs="?", help="gets everything; what is there is kept")
    parser.add_argument("--figures", type=Path, help="only print the tables of raw figures (forgetting.json)")
    parser.add_argument("--base", type=Path, default=SHIPPED / "base", help="where runs start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    numbers = (
        ("rank", 8, "of all adapters of a row together, even"),
        ("step1", 60, "updates of step 1"),
        ("visual", 80, "updates of step 2 on visual instructions"),
        ("batch", 16, "images of an update"),
        ("questions", 4, "on an image"),
        ("lessons", 3000, "scenes to train on"),
        ("scenes", 300, "scenes to evaluate on"),
        ("most", 200, "questions of each kind"),
        ("at-once", 2, "runs at once, a thread each"),
    )
    for name, default, words in numbers:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{words} (default: %(default)s)")
    args = parser.parse_args()
    if (args.directory is None) == (args.figures is None):
        parser.error("give a directory to train in, or --figures")
    for name in (name for name, _, _ in numbers if getattr(args, name.replace("-", "_")) < 1):
        parser.error(f"--{name} counts from 1")
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds takes different numbers from 0")
    if args.rank % 2:
        parser.error(f"--rank {args.rank}: two adapters share it equally; give an even number")
    return args


if __name__ == "__main__":
    sys.exit(main())
