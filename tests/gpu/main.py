"""Run the stages of the check on a GPU, each in a process of its own with a time limit, and write one JSON.

    bash tests/gpu/run [--device cuda] [--out gpu.json] [--stages plora collavo ...] [--small]

A stage that fails, hangs or takes the device down costs itself and no other; its last lines stand in the JSON. Exit
code 0 where every stage passed or was skipped with a reason, else 1. Numbers come first, then speed and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

LIMITS = {
    "plora": 30,
    "collavo": 45,
    "xdecoder": 45,
    "nf4": 45,
    "attention": 45,
    "engine": 60,
    "benchmarks": 60,
    "training": 60,
    "marked": 60,
    "speed_bf16": 90,
    "speed_nf4": 60,
    "step2": 60,
}
"""Stages in their order, and seconds that each may take on a GPU."""
TOTAL = 470
"""Seconds after which no further stage begins: the whole is to take less than eight minutes."""
SLOWER = 20
"""Times as long may a stage take without a GPU."""
SHOWN = 15
"""Lines of a failed stage's output that the JSON keeps."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a stage.

    Attributes:
        name: of the stage.
        status: passed, failed, skipped, timeout or not begun.
        seconds: that passed.
        figures: what it found.
        reason: why it did not pass; the last lines of its output where it says nothing itself.
    """

    name: str
    status: str
    seconds: float = 0.0
    figures: Any = None
    reason: str = ""


def run_stage(name: str, command: Sequence[str], limit: float, file: Path) -> Outcome:
    """Run one stage.

    Args:
        name: of the stage.
        command: what runs it; writes its result into ``file``.
        limit: seconds after which it is killed, with all that it started.
        file: where the result will be.
    """
    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=limit)
        timed_out = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        timed_out = True
    took, last = round(time.monotonic() - begun, 2), "\n".join(output.strip().splitlines()[-SHOWN:])
    if timed_out:
        return Outcome(name=name, status="timeout", seconds=took, reason=f"over {limit:.0f} s\n{last}".strip())
    if process.returncode or not file.is_file():
        return Outcome(name=name, status="failed", seconds=took, reason=last or f"exit code {process.returncode}")
    found = json.loads(file.read_text(encoding="utf-8"))
    status = "skipped" if found["skipped"] else "passed" if found["ok"] else "failed"
    return Outcome(name=name, status=status, seconds=took, figures=found["figures"], reason=found["reason"])


def run_all(stages: Sequence[str], command: Callable[[str, Path], Sequence[str]], slower: float = 1) -> list[Outcome]:
    """Run stages one after the other.

    Args:
        stages: their names.
        command: from a stage and the file for its result to what runs it.
        slower: times the limits.
    """
    outcomes, begun = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in stages:
            left = TOTAL * slower - (time.monotonic() - begun)
            if left <= 0:
                outcomes.append(Outcome(name=name, status="not begun", reason="the time of the whole run is over"))
                continue
            file = Path(folder) / f"{name}.json"
            outcome = run_stage(name, command(name, file), min(left, slower * LIMITS.get(name, 60)), file)
            outcomes.append(outcome)
            why = f": {outcome.reason.splitlines()[0]}" if outcome.reason else ""
            sys.stdout.write(f"{name:<12}{outcome.status:<10}{outcome.seconds:>8.1f} s{why}\n")
            sys.stdout.flush()
    return outcomes


def about(device: str, *, small: bool) -> dict[str, Any]:
    """What the figures are of."""
    cuda = device.startswith("cuda") and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(device) if cuda else device,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "small": small,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description="Check numbers, speed and memory on one GPU.")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON (default: %(default)s)")
    parser.add_argument("--stages", nargs="+", choices=LIMITS, default=list(LIMITS), help="which to run (default: all)")
    parser.add_argument("--small", action="store_true", help="tiny sizes instead of 7B, to try the script")
    args = parser.parse_args(arguments)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device; `--device cpu --small` tries the script without one")

    def command(name: str, file: Path) -> list[str]:
        words = [sys.executable, "-m", "tests.gpu.stages", name, "--device", args.device, "--out", str(file)]
        return [*words, "--small"] if args.small else words

    begun = time.monotonic()
    outcomes = run_all(args.stages, command, SLOWER if args.device == "cpu" else 1)
    found = {
        **about(args.device, small=args.small),
        "seconds": round(time.monotonic() - begun, 1),
        "stages": {outcome.name: asdict(outcome) for outcome in outcomes},
    }
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    good = all(outcome.status in ("passed", "skipped") for outcome in outcomes)
    sys.stdout.write(f"{'all stages passed' if good else 'not all stages passed'}; {args.out}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
