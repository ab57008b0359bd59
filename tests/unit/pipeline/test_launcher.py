"""The watch over the launcher: who is one, and that its end is noticed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pipeline.runtime import launcher_watch as launcher
from pipeline.runtime.launcher_watch import end_without_launcher, is_launcher, watch_launcher


@pytest.fixture(autouse=True)
def _unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_watched", threading.Event())
    monkeypatch.setattr(launcher, "_ends", [])
    monkeypatch.setattr(launcher, "INTERVAL", 0.01)


@pytest.mark.parametrize("variable", launcher.LAUNCHED)
def test_a_launcher_that_ends_is_noticed(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    watch_launcher({variable: "x"}, ended.set)
    assert not ended.wait(0.1)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert ended.wait(30)


def test_an_error_after_the_launcher_ended_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch may be about to look: a process that another one left behind fails before it does."""
    monkeypatch.setattr(launcher, "INTERVAL", 600.0)
    ended = threading.Event()
    watch_launcher({"TORCHELASTIC_RUN_ID": "x"}, ended.set)
    end_without_launcher()
    assert not ended.is_set()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    end_without_launcher()
    assert ended.is_set()


def test_a_process_without_launcher_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    watch_launcher({"WORLD_SIZE": "2"}, ended.set)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not ended.wait(0.1)


def test_a_launcher_that_was_gone_before_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(launcher, "is_launcher", lambda parent: False)
    watch_launcher({"TORCHELASTIC_RUN_ID": "x"}, ended.set)
    assert ended.is_set()


@pytest.mark.parametrize(
    ("number", "name", "command", "launches"),
    [
        (77, "python", b"/venv/bin/python\0/venv/bin/accelerate\0launch", True),
        (77, "torchrun", b"/usr/bin/python3\0/usr/bin/torchrun", True),
        (77, "wrapper.sh", b"bash\0wrapper.sh", True),
        (77, "systemd", b"/usr/lib/systemd/systemd\0--user", False),
        (1, "accelerate", b"/usr/bin/python3\0/usr/bin/accelerate\0launch", True),
        (1, "systemd", b"/sbin/init", False),
        (1, "bash", b"bash\0-c\0sleep infinity", False),
    ],
)
def test_what_may_be_a_launcher(number: int, name: str, command: bytes, launches: bool, tmp_path: Path) -> None:
    folder = tmp_path / str(number)
    folder.mkdir()
    (folder / "comm").write_text(name + "\n")
    (folder / "cmdline").write_bytes(command)
    assert is_launcher(number, tmp_path) is launches
    assert is_launcher(number, tmp_path / "not there")


def test_this_process_may_have_been_launched_by_its_parent() -> None:
    assert is_launcher(os.getpid())
