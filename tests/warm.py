"""Python commands in processes that need not import torch anew: a server imports it once, and forks for each command.

    done = run_warm(["lbk_entry.py", "train", ...], environment)      as subprocess.run([sys.executable, ...]) gives it

Half of the CPU time of a short training run is the import of torch, transformers and PEFT. What runs is the same as in
a fresh interpreter, with its own arguments, environment, working directory and standard streams; only modules are there
already. Tests of what is *not* imported, and of processes that are killed or started by a launcher, use `subprocess`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import runpy
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.fixtures import ROOT
from tests.limits import LIMIT

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "collavo.load_collavo", "trainer.run")
"""Imported once; ours are pure: importing them reads no file and no environment variable."""
_BASE = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ACCELERATE_USE_CPU": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
_servers: list[subprocess.Popen[str]] = []


def run_warm(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a Python command, and wait for it.

    Args:
        arguments: a script and its arguments, or ``-m``, a module and its arguments.
        environment: of the process; this one's, if left out. One thread and no GPU in any case.
        folder: working directory of the process; the root of the repository, if left out. Modules are the root's.
    Returns: exit code (negative for a signal) and what it wrote.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as streams:
        files = [str(Path(streams) / name) for name in ("out", "err")]
        values = dict(os.environ if environment is None else environment) | _BASE
        request = {"arguments": list(arguments), "environment": values, "files": files, "folder": str(folder)}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        ready, _, _ = select.select([server.stdout], [], [], LIMIT)
        if not ready:
            server.kill()
            raise subprocess.TimeoutExpired(list(arguments), LIMIT)
        code = int(server.stdout.readline())
        out, err = (Path(file).read_text(encoding="utf-8", errors="replace") for file in files)
    return subprocess.CompletedProcess(list(arguments), code, out, err)


def _server() -> subprocess.Popen[str]:
    """The server of this process, started when it is first needed."""
    if not _servers or _servers[-1].poll() is not None:
        words = [sys.executable, "-m", "tests.warm"]
        started = subprocess.Popen(
            words, cwd=ROOT, env={**os.environ, **_BASE}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        _servers.append(started)
        atexit.register(started.kill)
    return _servers[-1]


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Fork for each line of requests, and say its exit code."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(request))
        replies.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        replies.flush()


def _run(request: Mapping[str, Any]) -> int:
    """Be the process of a request; returns its exit code."""
    for number, file in enumerate(request["files"], start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    random.seed()
    words = request["arguments"]
    code = 0
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter: a traceback and exit code 1
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints while it is imported is no reply
    serve(sys.stdin, channel)
