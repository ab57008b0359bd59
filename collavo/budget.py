"""How many questions are in flight at a time: from free memory, halved where memory runs out, growing again later.

What shrinks without changing a number: how many questions share a block and how many prefixes are kept (one that is
dropped is computed again, alone as ever). Only where a single question does not fit does a block get fewer rows than
have been checked, which can change last digits and is therefore noted in the results.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

MOST_QUESTIONS = 64
"""Questions in flight at most, where nothing else is said."""

STEADY = 8
"""Blocks in a row that fit before twice as many questions are tried again."""

PREFIX_SHARE = 0.5
"""Share of free memory for prefixes; the rest is for a block's rows and what operators make on the way."""

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device, environment: Mapping[str, str] = os.environ) -> int:
    """Bytes that this process may still take on a device.

    On CUDA what the driver has free and what PyTorch holds without using it. On the CPU this process's part of what
    the system has available, or of what its control group leaves: the processes of a machine share it.

    Args:
        device: where tensors will lie.
        environment: ``LOCAL_WORLD_SIZE`` says how many processes a machine has.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    processes = environment.get("LOCAL_WORLD_SIZE", "1")
    free = psutil.virtual_memory().available
    left = _left_by_control_group(_CGROUP)
    free = free if left is None else min(free, left)
    return int(free) // (int(processes) if processes.isdecimal() and int(processes) > 0 else 1)


def _left_by_control_group(root: Path) -> int | None:
    """Bytes that a limit of the control group leaves (version 2 or 1); None where there is no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = ((root / name).read_text().strip() for name in (limit, used))
        except OSError:
            continue
        if most.isdecimal() and now.isdecimal():
            return max(0, int(most) - int(now))
    return None


class Budget:
    """Questions in flight, as memory allows.

    Args:
        most: never more than so many.
    """

    def __init__(self, most: int = MOST_QUESTIONS) -> None:
        if most < 1:
            raise ValueError(f"at least one question must be in flight, not {most}")
        self.most = self.questions = most
        self.halvings = 0
        self._fitting = 0

    def shrink(self, tried: int) -> None:
        """Memory ran out with so many questions: try half of them from now on."""
        self.questions = max(1, min(self.questions, tried) // 2)
        self.halvings += 1
        self._fitting = 0

    def fits(self) -> None:
        """A block fitted; after `STEADY` of them twice as many questions are tried."""
        self._fitting += 1
        if self._fitting >= STEADY and self.questions < self.most:
            self.questions = min(self.most, 2 * self.questions)
            self._fitting = 0
