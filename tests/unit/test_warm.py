"""A command in a forked process behaves as in an interpreter of its own: arguments, streams, exit code, environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.limits import LIMIT

SERVER = """
import os, sys
from tests import warm
warm.LIBRARIES = ()
channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
warm.serve(sys.stdin, channel)
"""
COMMAND = """
import atexit, os, sys
atexit.register(print, "bye")
print(os.getcwd(), __name__, sys.argv[1:], os.environ["MARK"], "PATH" in os.environ, sys.stdin.read())
print("told", file=sys.stderr)
{end}
"""


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
    files = [str(tmp_path / name) for name in ("out", "err")]
    asked = {"arguments": words, "environment": {"MARK": "m"}, "files": files, "folder": str(tmp_path)}
    request = json.dumps(asked) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", SERVER],
        cwd=ROOT, input=2 * request, capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    assert done.stdout == f"{code}\n{code}\n" and alone.returncode == code
    out, err = (Path(file).read_text() for file in files)
    assert out == alone.stdout or code < 0  # what is not flushed when a signal comes is left to chance
    assert said in err and said in alone.stderr
