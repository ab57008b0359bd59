"""Command line of the tiny world."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.types import DataError
from datasets.writing import WriteError

from . import write_lessons, write_world
from .lessons import ABOUT


def main() -> int:
    """Write a world; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m assets.tiny.world", description="Draw a tiny world in the release formats of real datasets."
    )
    parser.add_argument("directory", type=Path, help="where it goes")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=24, help="images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of an image in pixels (default: %(default)s)")
    parser.add_argument("--lessons", action="store_true", help="write scenes and questions to train on instead")
    parser.add_argument("--renew", action="store_true", help="replace a world of other settings that is there")
    parser.add_argument(
        "--without", nargs="+", choices=ABOUT, default=[], metavar="KIND", help="what no lesson asks: %(choices)s"
    )
    args = parser.parse_args()
    if args.without and not args.lessons:
        parser.error("--without leaves something out of the lessons; give --lessons too")
    drawn = (args.directory, args.seed, args.scenes, args.size, args.renew)
    try:
        made = write_lessons(*drawn, without=args.without) if args.lessons else write_world(*drawn)
    except (DataError, WriteError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    state = "" if made else ", as it was"
    what = "lessons" if args.lessons else "world"
    sys.stdout.write(f"tiny {what} ({args.scenes} scenes, seed {args.seed}): {args.directory}{state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
