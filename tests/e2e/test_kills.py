"""A training run that is killed at many moments, most of them while it writes a checkpoint, ends as if it never was."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.test_training import losses
from tests.tiny_training import STEP, settings
from tests.warm import run_warm

STEPS = 16


def go(tiny: Path, save: Path, seed: int, kills: int) -> list[int]:
    """Train, killed so many times at most; the exit codes of all attempts."""
    more = ("TRAIN.STAGE", "cit", "TRAIN.STEPS", STEPS, "TRAIN.SAVE_EVERY", 1, "TRAIN.KEEP", 2, "TRAIN.LOG_EVERY", 1)
    command = ["-m", "tests.e2e.killed", str(seed), str(kills), *settings(tiny, save, *more)]
    done = run_warm(command)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return [int(code) for code in re.findall(r"^exit code (-?\d+)", done.stdout, re.MULTILINE)]


def test_kills_at_any_moment_leave_no_trace(tiny: Path, tmp_path: Path) -> None:
    assert go(tiny, tmp_path / "straight", 0, 0) == [0]
    codes = go(tiny, tmp_path / "killed", 0, 8)
    assert len(codes) > 4 and set(codes[:-1]) == {-9} and codes[-1] == 0
    kept = [STEP.format(step).split("/")[1] for step in (STEPS - 1, STEPS)]
    for save in ("straight", "killed"):
        assert sorted(path.name for path in (tmp_path / save / "checkpoints").iterdir()) == kept
    for name in kept:
        here, there = (tmp_path / save / "checkpoints" / name for save in ("killed", "straight"))
        files = sorted(path.relative_to(there) for path in there.rglob("*.*") if path.is_file())
        assert sorted(path.relative_to(here) for path in here.rglob("*.*") if path.is_file()) == files
        for file in files:
            assert (here / file).read_bytes() == (there / file).read_bytes(), (name, file)
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
