"""A launcher that is killed while it starts leaves no process behind, and a process that never starts is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_pope_processes import ROOT
from tests.limits import LIMIT, free_port, wait_for
from tests.robustness.test_loop import finish
from tests.tiny_training import settings


def launch(*command: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accel/cpu_accel.yaml"]
    environ = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*launcher, "--num_processes", "2", "--main_process_port", str(free_port()), *command],
        cwd=ROOT,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def running(mark: str, launcher: int) -> list[int]:
    """Processes, but for the launcher and what it has just forked, whose command line names a folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        forked = b"accelerate" in command  # not yet the worker that it is about to become
        if mark.encode() in command and not forked and int(folder.name) not in (launcher, os.getpid()):
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="needs /proc to find the processes")
@pytest.mark.parametrize("command", ["eval", "train"])
@pytest.mark.parametrize("seconds", [0.0, 0.7, 5.0])
def test_a_launcher_killed_at_the_start_leaves_nothing_behind(
    command: str, seconds: float, tiny: Path, tmp_path: Path
) -> None:
    save = tmp_path / "save"
    asked = ["DATASETS.TEST", "all", "DATASETS.ROOT", tiny / "data", "SEGMENTER.NAME", "none"]
    model = ["SAVE_DIR", save, "RESUME_FROM", tiny / "checkpoint", "LLM.BITS", 32, "LLM.DTYPE", "fp32"]
    given = {
        "eval": ["configs/vl_test.yaml", "--overrides", *map(str, [*asked, *model]), "MODEL.NAME", "collavo"],
        "train": ["configs/collavo_tiny_train.yaml", "--overrides", *settings(tiny, save, "TRAIN.STEPS", 500)],
    }[command]
    process = launch("lbk_entry.py", command, "--conf_files", *given)
    try:
        wait_for(lambda: running(str(tmp_path), process.pid), unless=lambda: process.poll() is not None)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not running(str(tmp_path), process.pid))
    finally:
        for number in running(str(tmp_path), process.pid):
            os.kill(number, signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)
    assert "Traceback" not in err
    # one that is killed at once may leave a process that had no time to say anything
    assert "the launcher is gone; this process ends" in err or seconds == 0.0


def test_processes_that_all_start_join(tmp_path: Path) -> None:
    code, out, err = finish(launch("-m", "tests.e2e.joining", str(LIMIT)))
    assert code == 0, err[-3000:]
    assert sorted(out.splitlines()) == ["process 0 of 2 is there", "process 1 of 2 is there"]


@pytest.mark.parametrize("absent", ["0", "1"])
def test_a_process_that_never_starts_is_named(absent: str) -> None:
    code, _, err = finish(launch("-m", "tests.e2e.joining", "4", absent))
    assert code != 0
    assert f"process {absent} of 2 did not start within 0:00:04" in err
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT) not in err
