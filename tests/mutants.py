"""Whether the tests notice when an important line is wrong: every mutation of ``tests/mutations.py``, tried out.

    python -m tests.mutants [--only TEXT] [--slice 2/5] [--list]

The tree is copied, without what git ignores; a mutation is made in the copy, its tests run there, and the file is put
back. A mutation is *killed* where a test fails, and *survives* where all pass or are skipped: then a test is missing.
The exit code is 1 where one survives, where a text is gone, or where its tests fail without any mutation.

Tests run in forked processes, so that torch and its kin are imported once. A limit of CPU time, not of the clock, ends
what a mutation made endless.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures import ROOT, fixtures_root
from tests.mutations import MUTATIONS, Mutation

LIBRARIES = (
    "numpy",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "hypothesis",
    "scipy.special",
    "pyarrow",
    "PIL.Image",
)
"""Imported once, before any test."""
CPU_SECONDS = 600
"""Of one mutation's tests; only what hangs takes so long."""
FAILED, PASSED = 1, 0
"""Exit codes of pytest."""


def copy_tree(root: Path, target: Path) -> None:
    """Copy what git would: tracked files, and new ones that it does not ignore."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=root, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


@contextmanager
def mutated(root: Path, mutation: Mutation) -> Iterator[None]:
    """Make a mutation within a copy of the tree, and take it back.

    Raises:
        LookupError: its text does not stand in the file exactly once.
    """
    file = root / mutation.file
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    if before.count(mutation.old) != 1:
        raise LookupError(f"{mutation.file}: stands there {before.count(mutation.old)} times: {mutation.old!r}")
    file.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


def run_tests(root: Path, tests: Sequence[str]) -> int:
    """Run tests of a copy in a process of its own.

    Returns: pytest's exit code; negative where a signal ended it.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 3  # pytest's own for an error of its own
        try:
            code = _tests_in_child(root, tests)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _tests_in_child(root: Path, tests: Sequence[str]) -> int:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    os.setpgid(0, 0)
    os.chdir(root)
    with open(root / ".mutants.log", "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # those of the tree that is not mutated
    words = ["-n0", "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(root), *tests]
    return int(pytest.main(words))


def verdict(root: Path, mutation: Mutation) -> str:
    """``killed``, or what is wrong: ``survived``, ``gone: ...`` or ``no verdict: ...``."""
    try:
        with mutated(root, mutation):
            code = run_tests(root, mutation.tests.split())
    except LookupError as error:
        return f"gone: {error}"
    if code == PASSED:
        return "survived"
    if code == FAILED or code < 0:
        return "killed"
    return f"no verdict: pytest ended with {code}\n{(root / '.mutants.log').read_text(errors='replace')[-2000:]}"


def chosen(mutations: Sequence[Mutation], only: str, part: str) -> list[Mutation]:
    """Those whose file or text holds ``only``; of them the ``part`` of n/N."""
    number, _, whole = part.partition("/")
    named = [m for m in mutations if only in f"{m.file} {m.old}"]
    return named[int(number) - 1 :: int(whole)]


def try_all(root: Path, mutations: Sequence[Mutation]) -> int:
    """Try mutations in a copy of the tree; the exit code."""
    whole = sorted({name for mutation in mutations for name in mutation.tests.split()})
    if code := run_tests(root, whole):
        log = (root / ".mutants.log").read_text(errors="replace")
        sys.stdout.write(f"the tests fail without any mutation (pytest's exit code {code}):\n{log[-4000:]}\n")
        return 1
    wrong = 0
    for number, mutation in enumerate(mutations, start=1):
        said = verdict(root, mutation)
        wrong += said != "killed"
        change = f"{mutation.old.strip()!r} -> {mutation.new.strip()!r}"
        sys.stdout.write(f"{number}/{len(mutations)} {said}: {mutation.file}: {change}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(mutations) - wrong} of {len(mutations)} mutations are killed\n")
    return int(wrong > 0)


def main(arguments: Sequence[str], mutations: Sequence[Mutation] = MUTATIONS, root: Path = ROOT) -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Try what the tests notice.")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutations whose file or text holds this")
    parser.add_argument("--slice", default="1/1", metavar="N/M", help="every M-th of them, from the N-th on")
    parser.add_argument("--list", action="store_true", help="name them, and try none")
    args = parser.parse_args(arguments)
    found = chosen(mutations, args.only, args.slice)
    if args.list:
        sys.stdout.write("".join(f"{m.file}: {m.old.strip()!r} -> {m.new.strip()!r}\n" for m in found))
        return 0
    if not found:
        sys.stdout.write("no mutation is chosen\n")
        return 1
    os.environ.setdefault("COLLAVO_TESTS", "quick")
    os.environ.setdefault("COLLAVO_FIXTURES", str(fixtures_root()))
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    sys.dont_write_bytecode = True  # a file that is put back within a second would leave a stale cache
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder).resolve()
        copy_tree(root, copy)
        sys.path[:] = [str(copy), *(path for path in sys.path if path not in ("", str(root)))]
        for name in LIBRARIES:
            importlib.import_module(name)
        return try_all(copy, found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
