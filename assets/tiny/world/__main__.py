"""Command line of the tiny world."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.types import DataError
from datasets.writing import WriteError

from . import write_lessons, write_world


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
    args = parser.parse_args()
    try:
        made = (write_lessons if args.lessons else write_world)(
            args.directory, args.seed, args.scenes, args.size, args.renew
        )
    except (DataError, WriteError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    state = "" if made else ", as it was"
    what = "lessons" if args.lessons else "world"
    sys.stdout.write(f"tiny {what} ({args.scenes} scenes, seed {args.seed}): {args.directory}{state}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
