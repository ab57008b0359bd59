"""A training run that is asked to end saves a checkpoint, ends, and goes on from there bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_pope_processes import ROOT
from tests.e2e.test_training import GIVEN, start
from tests.limits import LIMIT, kill, wait_for
from tests.tiny_training import settings

STEPS = 3000
"""Many more than are made before the signal comes."""
MORE = ("TRAIN.STEPS", STEPS, "TRAIN.SAVE_EVERY", STEPS, "TRAIN.BATCH_SIZE_TOTAL", 2)


def logged(save: Path) -> list[int]:
    file = save / "log.jsonl"
    return [json.loads(line)["step"] for line in file.read_text().splitlines()] if file.exists() else []


def checkpoints(save: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (save / "checkpoints").glob("step-*"))


def test_a_process_that_is_asked_to_end_saves_first(tiny: Path, tmp_path: Path) -> None:
    words = [sys.executable, "lbk_entry.py", "train", *GIVEN, *settings(tiny, tmp_path, *MORE)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(words, cwd=ROOT, env=env, text=True, stdout=-1, stderr=-1)
    wait_for(lambda: len(logged(tmp_path)) > 2, unless=lambda: process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGTERM, err[-2000:]
    assert "Traceback" not in err
    assert checkpoints(tmp_path) == [logged(tmp_path)[-1]]
    assert f"asked to end after update {logged(tmp_path)[-1]} of {STEPS}: RESUME True goes on" in err


@pytest.mark.parametrize("num", [1, 2])
def test_so_does_a_launched_training(num: int, tiny: Path, tmp_path: Path) -> None:
    """A launcher of one process does not pass the signal on; its process notices that it is gone."""
    process = start(num, tiny, tmp_path, *MORE)
    try:
        wait_for(lambda: len(logged(tmp_path)) > 2, unless=lambda: process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: checkpoints(tmp_path))
        process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            kill(process)
    assert checkpoints(tmp_path) == [logged(tmp_path)[-1]]
