"""What a launch may ask for, the optimizer that leaves groups alone, and shares that fill up."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from configs.load import REPOSITORY
from pipeline.runtime.errors import RunError
from trainer.optimizer import FROZEN, FrozenAwareAdamW
from trainer.parallel.sharding import Sharding, read_sharding
from trainer.parallel.trainable import distinct_groups
from trainer.parallel.zero import check_private_names

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO = {"ACCELERATE_USE_DEEPSPEED": "true"}
ZERO3 = {**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


@pytest.fixture
def deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found("json" if name == "deepspeed" else name))


@pytest.mark.parametrize(
    ("environ", "bits", "expected"),
    [
        ({}, 4, None),
        ({"ACCELERATE_USE_FSDP": "false"}, 4, None),
        (FSDP, 4, Sharding(kind="fsdp2")),
        ({**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false"}, 16, Sharding(kind="fsdp2", reshard=False)),
        (ZERO, 4, Sharding(kind="zero", stage=2)),
        (ZERO3, 16, Sharding(kind="zero", stage=3)),
        (
            {**ZERO, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"},
            4,
            Sharding(kind="zero", stage=2, offload=True),
        ),
    ],
)
def test_what_can_be_done(deepspeed: None, environ: dict[str, str], bits: int, expected: Sharding | None) -> None:
    assert read_sharding(environ, bits=bits, evaluates=False) == expected


@pytest.mark.parametrize(
    ("environ", "bits", "evaluates", "message"),
    [
        (FSDP, 4, True, "TRAIN.EVAL_EVERY: FSDP shards the model"),
        ({"ACCELERATE_USE_FSDP": "true"}, 4, False, "fsdp_version: 2"),
        ({**FSDP, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, 4, False, "fsdp_cpu_ram_efficient_loading"),
        ({**FSDP, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, 4, False, "TRAIN.GRADIENT_CHECKPOINTING"),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, 4, False, "fsdp_offload_params"),
        (ZERO3, 4, False, "bitsandbytes cannot compute with"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, 16, False, "zero_stage: 1 is not one of 2, 3"),
        ({**ZERO, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, 16, False, "deepspeed_config_file is not read"),
        ({**ZERO3, "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}, 16, False, "zero3_init_flag"),
        ({**ZERO3, "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}, 16, False, "offload_param_device"),
    ],
)
def test_what_cannot_is_refused_with_its_reason(
    deepspeed: None, environ: dict[str, str], bits: int, evaluates: bool, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        read_sharding(environ, bits=bits, evaluates=evaluates)


def test_a_missing_deepspeed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="bash install --extras deepspeed"):
        read_sharding(ZERO, bits=16, evaluates=False)


@pytest.mark.parametrize(
    ("name", "kind", "keys"),
    [
        ("deepspeed_zero2", "DEEPSPEED", {"zero_stage": 2, "zero3_init_flag": False}),
        ("deepspeed_zero3", "DEEPSPEED", {"zero_stage": 3, "zero3_init_flag": False}),
        ("fsdp2", "FSDP", {"fsdp_version": 2, "fsdp_cpu_ram_efficient_loading": False}),
    ],
)
def test_accelerate_reads_the_launch_files(name: str, kind: str, keys: dict[str, Any]) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    file = Path(REPOSITORY) / "configs" / "accel" / f"{name}_accel.yaml"
    config = load_config_from_file(str(file))  # refuses unknown keys
    assert config.distributed_type.value == kind
    held = {**config.deepspeed_config, **config.fsdp_config}
    assert {key: held[key] for key in keys} == keys
    assert yaml.safe_load(file.read_text())["mixed_precision"] == "bf16"


def test_a_frozen_group_does_not_move_under_zero_gradients() -> None:
    """As ZeRO has them: a gradient of zeros, which moves plain AdamW by momentum and weight decay."""
    groups = [{"a": nn.Parameter(torch.ones(3))}, {"b": nn.Parameter(torch.ones(3))}]
    optimizer = FrozenAwareAdamW(groups, lr=0.1, weight_decay=0.1)
    plain = torch.optim.AdamW([groups[0]["a"].detach().clone().requires_grad_()], lr=0.1, weight_decay=0.1)
    a, b, other = groups[0]["a"], groups[1]["b"], plain.param_groups[0]["params"][0]
    for parameter in (a, b, other):
        parameter.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(a, torch.ones(3)) and not optimizer.state  # all are frozen at first
    for group in optimizer.param_groups:
        group[FROZEN] = False
    optimizer.step()
    plain.step()
    assert torch.equal(a, other)
    kept = {part: value.clone() for part, value in optimizer.state[b].items()}
    before, grads = b.detach().clone(), torch.zeros(3)
    optimizer.param_groups[1][FROZEN] = True
    a.grad, b.grad, other.grad = grads, grads, grads
    optimizer.step()
    plain.step()
    assert torch.equal(b, before) and all(torch.equal(optimizer.state[b][part], kept[part]) for part in kept)
    assert torch.equal(a, other) and not torch.equal(a, before)
    assert len(optimizer.param_groups) == 2


def test_groups_are_told_apart_by_their_names() -> None:
    prompt, one, two = ({name: nn.Parameter(torch.ones(1))} for name in ("crayon.x", "one", "two"))
    assert distinct_groups({"a": [prompt, one], "b": [dict(prompt), two]}) == [prompt, one, two]


def test_a_deepspeed_without_the_inner_names_is_refused_by_name() -> None:
    names = ("single_partition_of_fp32_groups", "_lazy_init_hp_params_optimizer_state", "_global_grad_norm")
    whole = SimpleNamespace(**dict.fromkeys(names))
    check_private_names(whole, 2, "0.19.8")
    with pytest.raises(RunError, match="DeepSpeed 1.0 has no sub_group_to_group_id, fp32_partitioned_groups_flat"):
        check_private_names(whole, 3, "1.0")
