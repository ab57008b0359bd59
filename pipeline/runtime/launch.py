"""The start of the processes: what ``accelerate launch`` set up, checked, and said.

Two launch modes fail silently, and both are errors here: a launch file that names several processes but starts one
(Accelerate does so for CPU without MPI), and FSDP or DeepSpeed without an accelerator (it becomes plain data parallel).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RunError
from .libraries import quiet_libraries

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from accelerate.utils import KwargsHandler
    from torch._C._distributed_c10d import Store

_MPI_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_YES = ("1", "true", "yes", "y", "on", "t")

SPEAKING = 60.0
"""Seconds that the main process may be behind the others, by which it surely has said its error."""
JOIN = timedelta(minutes=10)
"""How long a process waits for all others to start; after that the run's own limit counts."""


class JoinError(RunError):
    """Other processes did not start; which ones each process sees for itself."""


@dataclass(frozen=True, kw_only=True)
class ProcessPlace:
    """Where one process runs.

    Attributes:
        rank: its number, from 0.
        device: e.g. ``cuda:0 (NVIDIA H100)`` or ``cpu``.
        host: name of the machine.
    """

    rank: int
    device: str
    host: str


def check_environment(environ: Mapping[str, str]) -> None:
    """Refuse a launch that started fewer processes than it was told to. Needs no torch.

    Args:
        environ: the process environment as the launcher left it.

    Raises:
        RunError: one process runs, but the launcher prepared for more.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in environ
    alone = "WORLD_SIZE" not in environ and not any(name in environ for name in _MPI_VARIABLES)
    if launched and alone and "MASTER_ADDR" in environ:
        raise RunError(
            "the launch file or command names several processes, but Accelerate started one (it does so for "
            "'use_cpu: true', 'distributed_type: MULTI_CPU' and 'distributed_type: NO'). For several CPU processes use "
            "configs/accel/cpu_accel.yaml through 'bash run', or set ACCELERATE_USE_CPU=true with 'distributed_type: "
            "MULTI_GPU' and 'use_cpu: false'; for GPUs set 'distributed_type: MULTI_GPU'. If one process is meant, say "
            "'num_processes: 1' and unset MASTER_ADDR."
        )


def sharding_asked(environ: Mapping[str, str]) -> str | None:
    """FSDP or DeepSpeed, if the launcher was asked for it."""
    for variable, name in _SHARDED.items():
        if environ.get(variable, "").lower() in _YES:
            return name
    return None


def check_sharding(environ: Mapping[str, str], *, has_accelerator: bool) -> None:
    """Refuse FSDP and DeepSpeed where they would silently become something else.

    Raises:
        RunError: asked for, without an accelerator.
    """
    name = sharding_asked(environ)
    on_cpu = environ.get("ACCELERATE_USE_CPU", "").lower() in _YES
    if name and (on_cpu or not has_accelerator):
        why = "the launch asks for the CPU (use_cpu)" if has_accelerator else "this machine has no accelerator"
        raise RunError(
            f"the launch asks for {name}, but {why}: Accelerate would silently run plain data parallel instead. "
            "Use configs/accel/cpu_accel.yaml here, or a machine with a GPU."
        )


def is_main(environ: Mapping[str, str]) -> bool:
    """Whether this is the process that talks, before anything is started."""
    return environ.get("RANK", "0") == "0"


def let_main_speak(environ: Mapping[str, str]) -> None:
    """Wait, on other processes than the main one, before they end over an error that all know.

    A launcher that sees one process end ends the others, perhaps before the main one has said why.
    """
    if not is_main(environ):
        time.sleep(SPEAKING)


def start_accelerator(
    timeout_hours: float,
    log_with: str | list[str] | None,
    environ: Mapping[str, str],
    handlers: Sequence[KwargsHandler] = (),
    folder: Path | None = None,
    join: timedelta = JOIN,
) -> Accelerator:
    """Join the processes.

    Args:
        timeout_hours: how long a process waits for the others before it gives up.
        log_with: names of trackers, or None.
        environ: the process environment.
        handlers: further settings of Accelerate.
        folder: where trackers write.
        join: how long it waits for them to start.

    Raises:
        RunError: see `check_sharding`; or Accelerate did not join the processes.
        JoinError: some did not start in time.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    quiet_libraries()
    has_accelerator = torch.accelerator.is_available()
    check_sharding(environ, has_accelerator=has_accelerator)
    store = wait_for_all(environ, join)
    wait = InitProcessGroupKwargs(timeout=timedelta(hours=timeout_hours))
    # without cpu=True each of several processes on a machine without GPUs takes itself for the only one
    accelerator = Accelerator(
        cpu=not has_accelerator, kwargs_handlers=[wait, *handlers], log_with=log_with, project_dir=folder
    )
    del store  # where rank 0 holds it, it is the one that Accelerate's processes have met in
    launched = int(environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise RunError(
            f"{launched} processes were launched, but Accelerate joined {accelerator.num_processes}: each would do all "
            "the work. On CPUs set ACCELERATE_USE_CPU=true; on GPUs set 'distributed_type: MULTI_GPU'."
        )
    return accelerator


def wait_for_all(environ: Mapping[str, str], limit: timedelta) -> object:
    """Meet the other processes, before anything is done whose limit is that of the whole run.

    Args:
        environ: the process environment; it says who and where they are.
        limit: how long they are waited for.
    Returns: where they met; to be held until they have met again. None for a single process.

    Raises:
        JoinError: some did not come.
    """
    num = int(environ.get("WORLD_SIZE", "1"))
    if num < 2 or not all(name in environ for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")):
        return None
    from torch.distributed.rendezvous import rendezvous

    address = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    attempt = f"collavo/{environ.get('TORCHELASTIC_RUN_ID', '')}/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    names = [f"{attempt}/{rank}" for rank in range(num)]
    try:
        meeting = next(iter(rendezvous("env://", timeout=limit)))[0]
        meeting.set(names[int(environ["RANK"])], "here")
    except (RuntimeError, ValueError) as error:
        raise JoinError(f"the processes cannot meet at {address}: {str(error).splitlines()[0]}") from None
    try:
        meeting.wait(names, limit)
    except RuntimeError:
        absent = [str(rank) for rank, name in enumerate(names) if not _came(meeting, name)]
        raise JoinError(
            f"process {', '.join(absent) or 'unknown'} of {num} did not start within {limit}, counted from 0; "
            "look for its error above, or on its machine"
        ) from None
    return meeting


def _came(meeting: Store, name: str) -> bool:
    try:
        return bool(meeting.check([name]))
    except RuntimeError:  # whoever held the store has left
        return False


def device_of(accelerator: Accelerator) -> torch.device:
    """This process's device; the CPU has no number (Accelerate gives it one where several processes share it)."""
    import torch

    return torch.device("cpu") if accelerator.device.type == "cpu" else accelerator.device


def place_of_process(accelerator: Accelerator) -> ProcessPlace:
    """Where this process runs."""
    import torch

    device = device_of(accelerator)
    named = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    return ProcessPlace(rank=accelerator.process_index, device=named, host=socket.gethostname())


def describe(places: Sequence[ProcessPlace]) -> str:
    """The layout of a run in words, one line per machine."""
    num = len(places)
    hosts: dict[str, list[str]] = {}
    for where in places:
        hosts.setdefault(where.host, []).append(where.device)
    head = f"{num} process{'es' if num > 1 else ''}:"
    return "\n".join([head, *(f"  {host}: {_listed(devices)}" for host, devices in hosts.items())])


def _listed(devices: Sequence[str]) -> str:
    counted = {device: devices.count(device) for device in devices}
    return ", ".join(device if count == 1 else f"{count} x {device}" for device, count in counted.items())
