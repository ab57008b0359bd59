"""What sharding a launch asks for, and whether this training can do it. Needs no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.runtime.errors import RunError
from pipeline.runtime.launch import sharding_asked

_YES = ("1", "true", "yes", "y", "on", "t")


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a launch file wants the model to be laid out.

    Attributes:
        kind: torch's `fully_shard`, or DeepSpeed's ZeRO.
        stage: of ZeRO: 2 (gradients, optimizer state) or 3 (weights too); 0 for FSDP2, which shards all three.
        reshard: FSDP2: give weights back after a layer's forward pass, at the price of gathering them again.
        offload: ZeRO: keep optimizer state in the host's memory.
    """

    kind: Literal["fsdp2", "zero"]
    stage: int = 0
    reshard: bool = True
    offload: bool = False


def read_sharding(environ: Mapping[str, str], *, bits: int, evaluates: bool) -> Sharding | None:
    """What the launcher was asked for; None for the whole model on every process.

    Args:
        environ: as `accelerate launch` left it.
        bits: LLM.BITS.
        evaluates: whether benchmarks run on the way.

    Raises:
        RunError: this training cannot do it; the message says why and what instead.
    """
    name = sharding_asked(environ)
    if name is None:
        return None
    if evaluates:
        raise RunError(
            f"TRAIN.EVAL_EVERY: {name} shards the model, and answering needs it whole; evaluate the checkpoints with "
            "lbk_entry.py eval, or train with configs/accel/ddp_accel.yaml"
        )
    return _fsdp(environ) if name == "FSDP" else _zero(environ, bits)


def _fsdp(environ: Mapping[str, str]) -> Sharding:
    if environ.get("FSDP_VERSION", "1") != "2":
        raise RunError("the launch asks for FSDP 1; set fsdp_version: 2, as in configs/accel/fsdp2_accel.yaml")
    for variable, key, instead in (
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "fsdp_cpu_ram_efficient_loading", "every process reads the checkpoint"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "fsdp_activation_checkpointing", "TRAIN.GRADIENT_CHECKPOINTING does this"),
        ("FSDP_OFFLOAD_PARAMS", "fsdp_offload_params", "shards stay on the accelerator; ZeRO-2 can offload"),
    ):
        if _yes(environ, variable):
            raise RunError(f"{key}: true is not supported ({instead}); set it to false")
    reshard = environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in _YES
    return Sharding(kind="fsdp2", reshard=reshard)


def _zero(environ: Mapping[str, str], bits: int) -> Sharding:
    if importlib.util.find_spec("deepspeed") is None:
        raise RunError("the launch asks for DeepSpeed, which is not installed: bash install --extras deepspeed")
    if environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none":
        raise RunError("deepspeed_config_file is not read; use the keys of configs/accel/deepspeed_zero2_accel.yaml")
    stage = int(environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
    if stage not in (2, 3):
        raise RunError(f"zero_stage: {stage} is not one of 2, 3; for neither use configs/accel/ddp_accel.yaml")
    if stage == 3 and bits in (4, 8):
        raise RunError(
            f"LLM.BITS {bits}: ZeRO-3 cuts weights into flat microbatches, which bitsandbytes cannot compute with. Use "
            "configs/accel/deepspeed_zero2_accel.yaml or fsdp2_accel.yaml, or LLM.BITS 16"
        )
    if _yes(environ, "ACCELERATE_DEEPSPEED_ZERO3_INIT"):
        raise RunError("zero3_init_flag: true is not supported (every process reads the checkpoint); set it to false")
    if environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none") != "none":
        raise RunError("offload_param_device: only none is supported; offload_optimizer_device may be cpu")
    device = environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none")
    if device not in ("none", "cpu"):
        raise RunError(f"offload_optimizer_device: {device} is not one of none, cpu")
    return Sharding(kind="zero", stage=stage, offload=device == "cpu")


def _yes(environ: Mapping[str, str], variable: str) -> bool:
    return environ.get(variable, "").lower() in _YES
