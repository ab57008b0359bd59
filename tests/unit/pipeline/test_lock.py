"""The sole use of a folder: between processes, after kills, and while another lets go."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.commands.cli import main
from pipeline.runtime import lock
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import WriteError
from pipeline.runtime.lock import NAME, FolderLock, check_free, sole_use
from tests.limits import LIMIT
from tests.tiny_training import settings
from trainer.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
HOLD = "import sys, time; from pathlib import Path; from pipeline.runtime.lock import *; \
l = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(float(sys.argv[2])); l.release()"


def hold(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_run_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    process = hold(tmp_path / "run", LIMIT)
    try:
        for attempt in (lambda: FolderLock(tmp_path / "run", 0.3), lambda: check_free(tmp_path / "run", 0.3)):
            with pytest.raises(RunError, match=rf"run is in use by another run \(process {process.pid} on .*SAVE_DIR"):
                attempt()
        FolderLock(tmp_path / "other", 0).release()
    finally:
        process.kill()
        process.wait()
    check_free(tmp_path / "run")
    FolderLock(tmp_path / "run").release()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path, LIMIT)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / NAME).exists()
    check_free(tmp_path, 0)
    FolderLock(tmp_path, 0).release()


def test_a_run_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    process = hold(tmp_path, 0.5)
    FolderLock(tmp_path, LIMIT).release()
    assert process.wait() == 0


def test_many_that_come_and_go_are_never_two_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def use() -> None:
        for _ in range(10):
            with sole_use([tmp_path], LIMIT):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and list(tmp_path.iterdir()) == []


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="so"), sole_use([tmp_path]):
        raise ValueError("so")
    check_free(tmp_path, 0)
    check_free(tmp_path / "not there", 0)


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with sole_use([tmp_path]):
        check_free(tmp_path, 0)
    assert "its file system has no locks" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "train", "score"])
def test_every_command_that_writes_looks_first(
    command: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    save, said = tmp_path / "save", tmp_path / "said.json"
    said.write_text(json.dumps({"random/1": "yes"}))
    data = ["DATASETS.ROOT", str(tiny / "data"), "DATASETS.TEST", "pope_test"]
    run = ["SAVE_DIR", str(save), "RESUME_FROM", str(tiny / "checkpoint"), "SEGMENTER.NAME", "none"]
    words = {
        "eval": ["--check", "--overrides", *data, *run],
        "train": ["--check", "--conf_files", "configs/collavo_tiny_train.yaml", "--overrides", *settings(tiny, save)],
        "score": ["pope_test", "--predictions", str(said), "--out", str(save), "--overrides", *data],
    }[command]
    with sole_use([save]):
        assert main([command, *words], COMMANDS) == 2
    err = capsys.readouterr().err
    assert err.count("error: ") == 1 and f"{save} is in use by another run (process {os.getpid()} on" in err
    assert main([command, *words], COMMANDS) == 0


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        FolderLock(tmp_path / "file")
