"""What can be known of a training run before anything is loaded. Importing this loads no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from collavo.checkpoint.examine import describe_checkpoint
from collavo.checkpoint.finetuned_checkpoint import TrainingState, is_trained, read_state
from collavo.checkpoint.location import locate, not_there
from collavo.checkpoint.settings import settings_for
from collavo.errors import CheckpointError
from collavo.template import CHAT
from configs.common.safe_json import read_json
from configs.common.words import shown
from configs.load import ConfigError
from datasets.types import DataError
from modeling.files import is_file, is_folder
from modeling.segmenters import check_segmenter
from modeling.segmenters.options import SegmenterConfig
from pipeline.catalog import Catalog
from pipeline.commands.cli import check_data
from pipeline.run.plan import Plan, make_plan
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import check_folder
from pipeline.runtime.lock import check_free

from .checkpoint_folders import in_use, newest
from .config import ADAPTER_NAMES, SEGMENTER_STATE, TrainConfig, lora_record
from .data.paths import missing

FIXED = ("TRAIN.STAGE", "TRAIN.PARTS", "TRAIN.ADAPTERS", "LORA", "foundation", "sizes", "classes", "start")
"""Settings that make another model: a training run cannot go on with others."""


def check(config: TrainConfig, catalog: Catalog) -> None:
    """Check what can be known before anything is loaded.

    Raises:
        ConfigError, RunError, DataError, CheckpointError, SegmenterError: a setting, checkpoint, dataset or segmenter
            that does not serve.
    """
    if config.TRAIN.STAGE == "segmenter":
        _check_segmenter(config)
        segmenter = None
    else:
        segmenter = _check_start(config)
    if lacking := missing(config):
        raise DataError("\n".join(lacking))
    check_folder("SAVE_DIR", Path(config.SAVE_DIR))
    check_free(Path(config.SAVE_DIR).expanduser())
    _check_continuation(config)
    for wanted, key, package in (
        (config.WANDB, "WANDB", "wandb"),
        (config.TRAIN.TENSORBOARD, "TRAIN.TENSORBOARD", "tensorboard"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise RunError(f"{key} True needs the package {package} (pip install {package}), or set {key} False")
    if config.TRAIN.EVAL_EVERY:
        check_data(config, evaluation_plan(config, catalog))
    # cpt learns from maps that lie next to its annotations
    if segmenter is not None and (config.TRAIN.STAGE == "cit" or config.TRAIN.EVAL_EVERY):
        check_segmenter(segmenter)


def _check_segmenter(config: TrainConfig) -> None:
    start = Path(config.RESUME_FROM)
    if config.RESUME_FROM and not is_file(start) and not is_folder(start):
        raise RunError(f"RESUME_FROM: {shown(str(start))} {not_there(config.RESUME_FROM)}")
    if config.RESUME_FROM and not is_file(start) and not is_file(start / "config.json"):
        raise RunError(f"RESUME_FROM: {start} is neither a released X-Decoder (.pt) nor a directory with config.json")
    if config.RESUME_FROM and config.XDECODER.SIZES:
        raise ConfigError("XDECODER.SIZES are those of a fresh model; RESUME_FROM brings its own")
    if config.TRAIN.EVAL_EVERY:
        raise ConfigError("TRAIN.EVAL_EVERY: benchmarks are answered by CoLLaVO; stage segmenter trains none of it")


def _check_continuation(config: TrainConfig) -> None:
    """Check what SAVE_DIR holds already, as far as the configuration alone tells.

    Raises:
        RunError: an earlier training run that is not to be gone on with, or one of other settings.
        CheckpointError: its newest checkpoint is unreadable.
    """
    save_dir = Path(config.SAVE_DIR)
    folder = newest(save_dir)
    if folder is None:
        return
    if not config.RESUME:
        raise RunError(in_use(save_dir, folder))
    differences(folder, _kept_settings(config, folder), _comparable(config), config.TRAIN.ON_CHANGE)


def differences(folder: Path, kept: Mapping[str, Any], wanted: Iterable[tuple[str, Any]], on_change: str) -> list[str]:
    """Compare a training run with the checkpoint that it is to go on from.

    Args:
        folder: of the checkpoint.
        kept: its settings; what an earlier version of this code did not keep cannot be compared.
        wanted: those of the training run.
        on_change: TRAIN.ON_CHANGE.
    Returns: what a user should know, one line each.

    Raises:
        RunError: they differ, and that is not allowed, or cannot be.
    """
    differ = [(key, kept[key], value) for key, value in wanted if key in kept and kept[key] != value]
    if not differ:
        return []
    listed = "\n  ".join(f"{key}: {shown(old)} -> {shown(new)}" for key, old, new in differ)
    fixed = [key for key, _, _ in differ if key in FIXED]
    if on_change == "refuse" or fixed:
        hint = (
            f"with another {', '.join(fixed)} it is another model: name another SAVE_DIR, and this one in RESUME_FROM"
            if fixed
            else "TRAIN.ON_CHANGE continue goes on all the same, with the new settings"
        )
        raise RunError(f"{folder} is of another training run. What differs:\n  {listed}\n{hint}")
    return [f"{folder.name} is of other settings, and goes on with the new ones (TRAIN.ON_CHANGE):\n  {listed}"]


def _kept_settings(config: TrainConfig, folder: Path) -> Mapping[str, Any]:
    """What a checkpoint says that a continuation must have in common with it."""
    if config.TRAIN.STAGE != "segmenter":
        return read_state(folder).settings
    try:
        return dict(read_json(folder / SEGMENTER_STATE)["settings"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: not what stage segmenter left ({error!r})") from error


def _comparable(config: TrainConfig) -> Iterator[tuple[str, Any]]:
    """Settings by the names that checkpoints have for them."""
    for section in ("TRAIN", "XDECODER"):
        yield from ((f"{section}.{name}", value) for name, value in vars(getattr(config, section)).items())
    data = config.DATA
    yield "DATA.SPOIL", data.SPOIL
    yield "DATA.KINDS", data.KINDS
    yield "DATA.PANOPTIC.ANNOTATIONS", data.PANOPTIC.ANNOTATIONS
    yield "DATA.CONVERSATIONS", [item.FILE for item in data.CONVERSATIONS]
    yield "LORA", lora_record(config.LORA)
    if config.TRAIN.STEPS is not None:
        yield "steps", config.TRAIN.STEPS


def _check_start(config: TrainConfig) -> SegmenterConfig:
    """Check what a stage that trains CoLLaVO starts from; returns the segmenter that goes with it."""
    if not config.RESUME_FROM:
        raise RunError("RESUME_FROM: set it to the directory of the checkpoint to start from")
    described = describe_checkpoint(locate(config.RESUME_FROM), fresh_crayon=True)
    base = described.folder
    settings = settings_for(base, config.CRAYON, config.SEGMENTER, CHAT)
    if described.state is not None and described.state.adapters:
        _check_adapters(config, base, described.state)
    if config.LLM.DTYPE == "fp16":
        raise ConfigError("LLM.DTYPE fp16 cannot be trained in (its gradients vanish); use bf16 or fp32")
    return settings.segmenter


def _check_adapters(config: TrainConfig, folder: Path, state: TrainingState) -> None:
    """Check whether a stage can go on with the LoRA adapters of a checkpoint.

    Raises:
        RunError: it has others, or of another size.
    """
    lora, merge = config.LORA, f"lbk_entry.py merge {folder} --out DIR adds them to the weights"
    if config.TRAIN.STAGE == "cpt":
        raise RunError(f"RESUME_FROM: {folder} has LoRA adapters, and stage cpt trains none; {merge}")
    if lora.FRESH:
        return
    wanted = ADAPTER_NAMES[config.TRAIN.ADAPTERS]
    fresh = f"LORA.FRESH True starts new ones on the weights below; {merge}"
    if set(state.adapters) != set(wanted):
        fitting = [name for name, names in ADAPTER_NAMES.items() if set(names) == set(state.adapters)]
        hint = f"TRAIN.ADAPTERS {fitting[0]} goes on with them; " if fitting else ""
        raise RunError(
            f"RESUME_FROM: {folder} has the LoRA adapters {', '.join(state.adapters)}, TRAIN.ADAPTERS "
            f"{config.TRAIN.ADAPTERS} trains {', '.join(wanted)}. {hint}{fresh}"
        )
    if (dict(state.ranks), state.targets) != (dict(lora.RANKS), lora.targets):
        raise RunError(
            f"RESUME_FROM: the adapters of {folder} have LORA.RANKS {dict(state.ranks)} and LORA.TARGETS "
            f"[{', '.join(state.targets)}]: set these to go on with them. {fresh}"
        )
    if (state.rank, state.alpha) != (lora.R, lora.ALPHA):
        raise RunError(
            f"RESUME_FROM: the LoRA adapters of {folder} have rank {state.rank} and alpha {state.alpha}: set LORA.R "
            f"{state.rank} LORA.ALPHA {state.alpha} to go on with them. {fresh}"
        )


def evaluation_plan(config: TrainConfig, catalog: Catalog) -> Plan:
    """What is evaluated on the way; a plan without tasks where nothing is.

    Raises:
        ConfigError, RunError, DataError: see `pipeline.run.plan.make_plan`.
    """
    if config.TRAIN.EVAL_EVERY:
        return make_plan(config, catalog)
    return Plan(config=config, tasks=[], roots=[])


def check_merge(checkpoint: Path, out: Path) -> Path:
    """Check what ``merge`` is given.

    Args:
        checkpoint: what a training run left.
        out: a new directory.
    Returns: the checkpoint's directory.

    Raises:
        CheckpointError: there is no checkpoint.
        RunError: ``checkpoint`` is none that was trained, or ``out`` holds something or cannot be written.
    """
    folder = locate(checkpoint, "merge")
    if not is_trained(folder):
        raise RunError(f"{folder} is not what a training run left (it has no state.json); there is nothing to merge")
    check_folder("--out", out)
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty; name a new directory")
    return folder
