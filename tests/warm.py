"""Python commands in processes that need not import torch anew: a server imports it once, and forks for each command.

    done = run_warm(["lbk_entry.py", "train", ...], environment)      as subprocess.run([sys.executable, ...]) gives it
    process = start_warm(["-m", "accelerate.commands.launch", ...])   as subprocess.Popen([sys.executable, ...])

Half of the CPU time of a short run is the import of torch, transformers and PEFT, in the launcher and in each process
that it starts; so Python commands that a forked command starts are forked, too. What runs is the same as in a fresh
interpreter, with its own arguments, environment, working directory, session and standard streams; only modules are
there already. Tests of what is *not* imported, and of launchers that die, use `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import random
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import thread
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.fixtures import ROOT
from tests.limits import LIMIT

LIBRARIES = (
    *("torch", "transformers", "accelerate", "peft", "bitsandbytes", "torch.distributed.launcher.api"),
    *("accelerate.utils", "collavo.load_collavo", "trainer.run"),
)
"""Imported once; ours are pure: importing them reads no file and no environment variable."""
SERVER = ("-m", "tests.warm")
_BASE = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "ACCELERATE_USE_CPU": "true",
    "TOKENIZERS_PARALLELISM": "false",
}
_LOOK_EVERY = 0.02
"""Seconds between two looks at processes that run."""
_HIGHEST_FILE = 4096
_servers: list[subprocess.Popen[str]] = []


class WarmProcess:
    """A forked command, with those of `subprocess.Popen`'s methods that tests use; its streams go to files."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        request = {"arguments": self.args, "environment": dict(environment), "folder": self._folder.name}
        request["cwd"] = str(cwd)
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        ready, _, _ = select.select([server.stdout], [], [], LIMIT)
        if not ready:
            server.kill()
            raise subprocess.TimeoutExpired(self.args, LIMIT)
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        """Exit code (negative for a signal), or None while it runs."""
        code = Path(self._folder.name) / "code"
        if self.returncode is None and code.exists():
            self.returncode = int(code.read_text(encoding="utf-8"))
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        """Wait until it has ended; `subprocess.TimeoutExpired` if that takes longer."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(_LOOK_EVERY)
        return code

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """Wait until it has ended; what was written to its two streams."""
        self.wait(timeout)
        files = (Path(self._folder.name) / name for name in ("out", "err"))
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, but not what it started: see `tests.limits.kill`."""
        self.send_signal(signal.SIGKILL)


def start_warm(arguments: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path = ROOT) -> WarmProcess:
    """Start a Python command in a session of its own.

    Args:
        arguments: a script and its arguments, or ``-m``, a module and its arguments.
        environment: of the process; this one's with one thread and no GPU, if left out.
        cwd: its working directory; modules are found in the root of the repository all the same.
    """
    return WarmProcess(arguments, dict(os.environ) | _BASE if environment is None else environment, cwd)


def run_warm(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """`start_warm`, and wait; exit code (negative for a signal) and what it wrote."""
    process = start_warm(arguments, environment, cwd)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _server() -> subprocess.Popen[str]:
    """The server of this process, started when it is first needed."""
    if not _servers or _servers[-1].poll() is not None:
        started = subprocess.Popen(
            [sys.executable, *SERVER],
            cwd=ROOT,
            env={**os.environ, **_BASE},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        _servers.append(started)
        atexit.register(started.kill)
    return _servers[-1]


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Fork for each line of requests, say its process id, and write its exit code into its folder when it ends."""
    subprocess.Popen = _WarmPopen  # type: ignore[misc] # before a library keeps the other one
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.stderr.flush()
    running: dict[int, Path] = {}
    while True:
        if select.select([requests], [], [], _LOOK_EVERY if running else None)[0]:
            line = requests.readline()
            if not line:
                break
            request = json.loads(line)
            in_session, out_session = os.pipe()
            child = os.fork()
            if child == 0:
                os.setsid()
                folder = request["folder"]
                for number, name in enumerate(("out", "err"), start=1):
                    os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.chdir(request["cwd"])
                _become(request["arguments"], request["environment"])
            os.close(out_session)
            os.read(in_session, 1)  # ends when the child, which has its session by then, closes what it inherited
            os.close(in_session)
            running[child] = Path(request["folder"])
            replies.write(f"{child}\n")
            replies.flush()
        _reap(running)
    for child in running:
        os.killpg(child, signal.SIGKILL)


def _reap(running: dict[int, Path]) -> None:
    """Write the exit codes of those that have ended."""
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        folder = running.pop(child)
        (folder / ".code").write_text(str(os.waitstatus_to_exitcode(status)), encoding="utf-8")
        (folder / ".code").rename(folder / "code")


class _WarmPopen(subprocess.Popen[Any]):
    """Forks where the command is this interpreter with a script or a module."""

    def __init__(self, args: Any, *positional: Any, **options: Any) -> None:
        words = [str(word) for word in args] if isinstance(args, (list, tuple)) else []
        words = words[1:] if words and words[0] == sys.executable else []
        words = words[1:] if words and words[0] == "-u" else words
        if words and (words[0] == "-m" or not words[0].startswith("-")):
            environment = options.get("env")
            environment = dict(os.environ if environment is None else environment)
            options["preexec_fn"] = functools.partial(_become, words, environment)
        super().__init__(args, *positional, **options)


def _become(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Be the process of a command; never returns, so that nothing of the process that was forked goes on."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):  # of the process that was forked
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.closerange(3, _HIGHEST_FILE)  # the last of them tells a waiting `subprocess.Popen` that the command has begun
    thread._threads_queues.clear()  # type: ignore[attr-defined] # of threads of the forked process, which are not here to be waited for
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    code = 0
    try:
        if words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001 - as the interpreter: a traceback and exit code 1
        frame = error.__traceback__
        # runpy runs a module in an interpreter of its own, too, and stands in its traceback
        runs = (__file__,) if words[0] == "-m" else (__file__, "<frozen runpy>")
        while frame is not None and frame.tb_frame.f_code.co_filename in runs:
            frame = frame.tb_next
        traceback.print_exception(error.with_traceback(frame))
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as an interpreter that ends does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints while it is imported is no reply
    serve(sys.stdin, channel)
