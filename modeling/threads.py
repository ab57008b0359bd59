"""The number of threads that an operator computes with on a CPU, which decides how its sums are cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Compute on one thread where the device is a CPU.

    The number belongs to the whole process as soon as one of its threads sets it. So whoever computes in several
    threads at a time enters this before they start and leaves it when they have ended; entered again within, it does
    nothing.

    Args:
        device: where is computed; on others than a CPU nothing is set.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
