"""Our scores next to those of the benchmarks' own scorers, on recorded answers, through the code of ``score``.

    python -m tests.parity.scores [DIR]

DIR holds a folder per dataset (default: the golden data next to the checkout), each with annotations in the release's
format, ``predictions.json`` and ``expected.json``. Exits with 1 if a figure differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from datasets.types import DataError
from tests.fixtures import fixtures_root
from tests.parity.official import choice, judged, short
from tests.parity.official.case import Case, Row, cases

BENCHMARKS: dict[str, Callable[[Case], Iterator[Row]]] = {
    "ai2d": choice.ai2d,
    "gqa_testdev_balanced": short.gqa,
    "hallusionbench": judged.hallusion,
    "mathvista_testmini": judged.mathvista,
    "mm-vet": judged.mmvet,
    "mmbench": choice.mmbench,
    "mmbench_cn": choice.mmbench,
    "mme": short.mme,
    "pope": short.pope,
    "qbench_dev": choice.qbench,
    "scienceqa_test": choice.scienceqa,
    "seed": choice.seed,
    "textvqa_val": short.textvqa,
}


def find_cases(directory: Path) -> list[Case]:
    """All cases of the benchmarks that are known here, in order."""
    return [case for name in BENCHMARKS for case in cases(directory / name)]


def compare(case: Case) -> list[Row]:
    """All comparisons of a case; a figure that cannot be made is a difference."""
    try:
        return list(BENCHMARKS[case.top.name](case))
    except (DataError, KeyError, ValueError, TypeError, OSError) as error:
        return [Row(figure="the whole case", expected="figures", ours=f"{type(error).__name__}: {error}")]


def show(case: Case, rows: list[Row], everything: bool) -> int:
    """Print a case; returns how many figures differ."""
    differ = [row for row in rows if not row.ok]
    sys.stdout.write(f"{case.name}: {len(rows) - len(differ)} of {len(rows)} figures agree\n")
    for row in rows:
        if everything or not row.ok:
            mark = "  " if row.ok else "! "
            sys.stdout.write(f"  {mark}{row.figure:<52} expected {row.expected!s:<24} ours {row.ours!s}\n")
    if left := case.left():
        sys.stdout.write(f"  not compared: {', '.join(left)}\n")
    return len(differ)


def main() -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Compare our scores with recorded official ones.")
    parser.add_argument("directory", nargs="?", type=Path, default=fixtures_root() / "benchmarks")
    parser.add_argument("--quiet", action="store_true", help="show figures that differ only")
    args = parser.parse_args()
    if not args.directory.is_dir():
        sys.stderr.write(f"{args.directory}: no such folder\n")
        return 2
    found = find_cases(args.directory)
    unknown = sorted(path.name for path in args.directory.iterdir() if path.is_dir() and path.name not in BENCHMARKS)
    for name in unknown:
        sys.stdout.write(f"{name}: not a benchmark that is compared here\n")
    if not found:
        sys.stderr.write(f"{args.directory}: holds no case (a folder named after a dataset, with expected.json)\n")
        return 2
    differ = sum(show(case, compare(case), not args.quiet) for case in found)
    sys.stdout.write(f"{len(found)} cases; {differ or 'no'} figure{'s' * (differ != 1)} differ{'s' * (differ == 1)}\n")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
