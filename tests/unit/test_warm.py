"""A command in a forked process, and what it starts, behaves as in an interpreter of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import warm
from tests.fixtures import ROOT
from tests.limits import LIMIT, wait_for

COMMAND = """
import atexit, os, sys
atexit.register(print, "bye")
print(os.getcwd(), __name__, sys.argv[1:], os.environ["MARK"], "PATH" in os.environ, sys.stdin.read())
print("told", file=sys.stderr)
{end}
"""
STARTS = """
import signal, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
signal.signal(signal.SIGTERM, print)
done = subprocess.run([sys.executable, "-u", *sys.argv[1:3]], capture_output=True, text=True, start_new_session=True)
print(done.returncode, done.stdout, end="")
process = subprocess.Popen([sys.executable, sys.argv[1]], env={"MARK": "other"}, stdout=sys.stderr)
assert process.poll() in (None, 5)
print(process.wait())
with ThreadPoolExecutor() as threads:
    words = [sys.executable, "-m", "timeit", "-n1", "-r1"]
    print(threads.submit(subprocess.run, words, stdout=subprocess.DEVNULL).result().returncode)
ended = subprocess.Popen([sys.executable, sys.argv[3]])
ended.terminate()
print(ended.wait())
"""


@pytest.fixture(autouse=True)
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that imports nothing: these tests need none, and are quick."""
    monkeypatch.setattr(warm, "_servers", [])
    code = "import os, sys; from tests import warm; warm.LIBRARIES = (); channel = os.fdopen(os.dup(1), 'w')"
    monkeypatch.setattr(warm, "SERVER", ("-c", f"{code}; os.dup2(2, 1); warm.serve(sys.stdin, channel)"))
    yield
    for server in warm._servers:
        server.communicate()


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("", 0, "told\n"),
        ("sys.exit(3)", 3, "told\n"),
        ("sys.exit('why')", 1, "told\nwhy\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_a_forked_command_is_as_one_of_its_own(end: str, code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND.format(end=end))
    words = [str(tmp_path / "command.py"), "a", "b c"]
    alone = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path, env={"MARK": "m"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    for done in (warm.run_warm(words, {"MARK": "m"}, tmp_path), warm.run_warm(words, {"MARK": "m"}, tmp_path)):
        assert done.returncode == alone.returncode == code
        assert done.stdout == alone.stdout or code < 0  # what is not flushed when a signal comes is left to chance
        assert said in done.stderr and said in alone.stderr


def test_a_traceback_has_the_same_frames(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("1 / 0")
    for words in ([str(tmp_path / "fails.py")], ["-m", "zipfile", "-l", str(tmp_path / "absent.zip")]):
        alone = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        traces = [
            [line for line in text.splitlines() if line.startswith("  File")]
            for text in (alone.stderr, warm.run_warm(words).stderr)
        ]
        runpy = [[line for line in trace if '"<frozen runpy>"' in line] for trace in traces]
        assert [trace[len(inner) :] for trace, inner in zip(traces, runpy, strict=True)] == 2 * [
            traces[0][len(runpy[0]) :]
        ]
        assert traces[0] and bool(runpy[0]) == bool(runpy[1])


def test_what_a_forked_command_starts_is_forked_and_the_same(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(
        COMMAND.format(end="import pathlib; sys.exit(4 + ('tests.warm' in sys.modules))")
    )
    (tmp_path / "starts.py").write_text(STARTS)
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(3600)")
    words = [str(tmp_path / "starts.py"), str(tmp_path / "command.py"), "x", str(tmp_path / "sleeps.py")]
    done = warm.run_warm(words, {"MARK": "m"})
    assert done.stdout == f"5 {ROOT} __main__ ['x'] m False \nbye\n5\n0\n-15\n", done.stderr
    assert "__main__ [] other False" in done.stderr and done.stderr.count("told") == 1


def test_a_running_command_can_be_seen_and_ended(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text("import time; print('here', flush=True); time.sleep(3600)")
    first, second = (warm.start_warm([str(tmp_path / "command.py")]) for _ in range(2))
    assert first.poll() is None and os.getsid(first.pid) == first.pid
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == -signal.SIGTERM and second.poll() is None
    second.kill()
    assert second.wait() == -signal.SIGKILL
    first.send_signal(signal.SIGTERM)  # has ended: nothing happens


@pytest.mark.slow
def test_what_runs_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text("import time; time.sleep(3600)")
    process = warm.start_warm([str(tmp_path / "command.py")])
    warm._servers[-1].communicate()
    wait_for(lambda: not psutil.pid_exists(process.pid))
