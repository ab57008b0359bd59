"""The launcher of `bash run` leaves the last word to the processes that it started, and keeps their exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.limits import LIMIT, free_port

SCRIPT = """
import os, sys, time
if os.environ["RANK"] != "1":
    {others}
sys.stderr.write("error: because\\n")
sys.stderr.flush()
{ends}
"""
QUIET = f"time.sleep({LIMIT})"


def launch(script: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    words = ["--config_file", str(ROOT / "configs/accel/cpu_accel.yaml"), "--num_processes", str(processes)]
    return subprocess.run(
        [sys.executable, str(ROOT / "assets/launch.py"), *words, "--main_process_port", str(free_port()), str(script)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        ("sys.exit(3)", 3, "error: because\n"),
        (
            f"os.kill(os.getpid(), {int(signal.SIGKILL)})",
            137,
            "error: because\n"
            "error: process 1 was ended by SIGKILL (signal 9); the system does so where memory runs out\n",
        ),
    ],
)
def test_the_process_that_fails_has_the_last_word(tmp_path: Path, ends: str, code: int, said: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(others=QUIET, ends=ends))
    done = launch(tmp_path / "script.py")
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")


def test_success_is_success(tmp_path: Path) -> None:
    line = 'b"rank " + os.environ["RANK"].encode() + b"\\n"'  # in one microbatch, whatever the other process writes
    (tmp_path / "script.py").write_text(f"import os\nos.write(1, {line})\n")
    done = launch(tmp_path / "script.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["rank 0", "rank 1"]
