"""Launch modes that fail silently are errors, and the layout is said in words."""

from __future__ import annotations

import pytest

from pipeline.runtime.errors import RunError
from pipeline.runtime.launch import (
    SPEAKING,
    ProcessPlace,
    check_environment,
    check_sharding,
    describe,
    is_main,
    let_main_speak,
)

LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True"}


def test_fewer_processes_than_named_is_an_error() -> None:
    with pytest.raises(RunError, match="several processes, but Accelerate started one"):
        check_environment({**LAUNCHED, "MASTER_ADDR": "127.0.0.1"})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        LAUNCHED,
        {"MASTER_ADDR": "node1"},
        {**LAUNCHED, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "RANK": "1"},
        {**LAUNCHED, "MASTER_ADDR": "127.0.0.1", "OMPI_COMM_WORLD_SIZE": "2"},
    ],
)
def test_other_launches_pass(environ: dict[str, str]) -> None:
    check_environment(environ)


@pytest.mark.parametrize(("variable", "name"), [("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")])
def test_sharding_without_an_accelerator_is_an_error(variable: str, name: str) -> None:
    environ = {f"ACCELERATE_USE_{variable}": "true"}
    with pytest.raises(RunError, match=f"asks for {name}, but this machine has no accelerator"):
        check_sharding(environ, has_accelerator=False)
    with pytest.raises(RunError, match=f"asks for {name}, but the launch asks for the CPU"):
        check_sharding({**environ, "ACCELERATE_USE_CPU": "true"}, has_accelerator=True)
    check_sharding(environ, has_accelerator=True)
    check_sharding({f"ACCELERATE_USE_{variable}": "false"}, has_accelerator=False)


def test_the_layout_is_said_by_machine() -> None:
    places = [ProcessPlace(rank=r, device="cpu", host="one") for r in range(2)] + [
        ProcessPlace(rank=2, device="cuda:0", host="two")
    ]
    assert describe(places) == "3 processes:\n  one: 2 x cpu\n  two: cuda:0"
    assert describe(places[:1]) == "1 process:\n  one: cpu"


def test_the_main_process_is_known_before_anything_starts() -> None:
    assert is_main({}) and is_main({"RANK": "0"}) and not is_main({"RANK": "1"})


def test_the_main_process_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the launcher could end it before it has said what is wrong."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    for environ in ({}, {"RANK": "0"}):
        let_main_speak(environ)
    assert waits == []
    let_main_speak({"RANK": "3"})
    assert waits == [SPEAKING]
