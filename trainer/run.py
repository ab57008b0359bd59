"""``train``: one stage, from its configuration to its checkpoints.

accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py train --conf_files configs/collavo_step1.yaml
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modeling.precision import at_least_float32
from pipeline.run.plan import Plan, finish, guarded, make_session
from pipeline.run.task import load_tasks
from pipeline.runtime.console import say
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import make_folder, write_json, write_text
from pipeline.runtime.launch import JoinError, check_environment, check_sharding, device_of, start_accelerator
from pipeline.runtime.provenance import git_commit, libraries
from pipeline.runtime.session import AgreedError, Session

from .check import evaluation_plan
from .checkpoint import load_random, random_state, read_optimizer, remove_left, save
from .checkpoint_folders import in_use, newest
from .config import SHARDED_STAGES, TrainConfig
from .log import Log
from .loop import Loop, Update
from .parallel.placement import Placement, place
from .parallel.sharding import Sharding, read_sharding
from .parallel.trainable import trained
from .parallel.zero import keep_whole
from .stages.base import Job

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipeline.catalog import Catalog

INTERRUPTED = "interrupted; the newest checkpoint is whole, and RESUME True goes on from there"


def train(config: TrainConfig, catalog: Catalog) -> int:
    """Run the stage that ``TRAIN.STAGE`` names.

    Args:
        config: resolved.
        catalog: of the declared benchmarks, for evaluations on the way.

    Returns: the exit code, see ``pipeline/run/plan.py``.
    """

    def work(folders: list[Path]) -> None:
        folders.append(Path(config.SAVE_DIR).expanduser())
        accelerator, sharding = _start(config)
        plan = evaluation_plan(config, catalog)
        session = make_session(plan, accelerator)
        if config.TRAIN.EVAL_EVERY:
            load_tasks(plan.tasks, session)  # what is missing or cannot be scored is said now, not after many updates
        with session.sole_use(folders):
            if session.is_main:
                remove_left(folders[0])
            run_stage(config, accelerator, session, plan if config.TRAIN.EVAL_EVERY else None, sharding)
            finish(accelerator)

    return guarded(work, INTERRUPTED)


def _start(config: TrainConfig) -> tuple[Accelerator, Sharding | None]:
    """Join the processes; and how the launch wants the model laid out on them.

    Raises:
        AgreedError: the launch cannot be served; it looks the same from every process.
        JoinError: other processes did not start.
    """
    from accelerate.utils import DistributedDataParallelKwargs

    try:
        check_environment(os.environ)
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > config.TRAIN.BATCH_SIZE_TOTAL:
            raise RunError(f"TRAIN.BATCH_SIZE_TOTAL {config.TRAIN.BATCH_SIZE_TOTAL} is less than {world} processes")
        torch.set_flush_denormal(True)  # gradients and moments near 0 would make a CPU some twenty times slower
        trackers = [n for n, on in (("wandb", config.WANDB), ("tensorboard", config.TRAIN.TENSORBOARD)) if on]
        check_sharding(os.environ, has_accelerator=torch.accelerator.is_available())
        sharding = read_sharding(os.environ, bits=config.LLM.BITS, evaluates=config.TRAIN.EVAL_EVERY > 0)
        if sharding is not None and config.TRAIN.STAGE not in SHARDED_STAGES:
            raise RunError(
                f"TRAIN.STAGE {config.TRAIN.STAGE} has the whole model on every process: launch it with "
                "configs/accel/ddp_accel.yaml"
            )
        # which LoRA adapter rests changes from update to update, and a batch of texts leaves the crayon prompt out
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        accelerator = start_accelerator(
            config.EVAL.TIMEOUT_HOURS, trackers or None, os.environ, [unused], Path(config.SAVE_DIR).expanduser()
        )
    except JoinError:
        raise
    except RunError as error:
        raise AgreedError(str(error)) from None
    if sharding is not None and sharding.kind == "zero":
        keep_whole()
    if config.TRAIN.TENSORBOARD and not config.WANDB:
        accelerator.init_trackers("tensorboard")
    return accelerator, sharding


def run_stage(
    config: TrainConfig, accelerator: Accelerator, session: Session, plan: Plan | None, sharding: Sharding | None
) -> None:
    """Load, train, and save.

    Args:
        config: resolved.
        accelerator: joins the processes.
        session: this process's part.
        plan: of the evaluations on the way, if there are any.
        sharding: how the model lies on the processes; None for the whole of it on each.
    """
    save_dir = Path(config.SAVE_DIR).expanduser()
    device = device_of(accelerator)
    loaded: list[Job] = []
    session.agree(lambda: loaded.append(load_job(config, device, alike=sharding is not None)))
    job = loaded[0]
    parameters = trained(job.adapters)
    for parameter in job.model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters.values():  # float32 at least, whatever the rest is in: small steps must not be lost
        parameter.data = at_least_float32(parameter.data)
        parameter.requires_grad_(True)
    newest_one = _resume(config, save_dir, job, parameters, session)
    job.train_mode()
    placement = place(
        accelerator,
        job.model,
        job.adapters,
        sharding,
        lr=config.TRAIN.LR,
        weight_decay=config.TRAIN.WEIGHT_DECAY,
        clip=config.TRAIN.CLIP,
        own=job.group_settings,
    )
    start, steps = _go_on(config, newest_one, placement, session), job.settings.steps
    loop = Loop(accelerator, placement, device, job.settings)
    if session.is_main:
        _note(config, save_dir)
        say(
            f"stage {config.TRAIN.STAGE}: {job.describe(parameters)}, {steps} updates of "
            f"{config.TRAIN.BATCH_SIZE_TOTAL}{f', going on after {start}' if start else ''}"
        )
    log = Log(save_dir, steps, start, config.TRAIN.LOG_EVERY, session.is_main, accelerator.log, job.labels)

    def done(update: Update) -> None:
        log.add(update)
        last = update.step == steps
        if last or update.step % config.TRAIN.SAVE_EVERY == 0:
            _save(config, save_dir, job, placement, session, update.step)
        if plan is not None and (last or update.step % config.TRAIN.EVAL_EVERY == 0):
            job.evaluate(plan, session, update.step)

    loop.run(job.data, start, done)
    log.close()


def _note(config: TrainConfig, save_dir: Path) -> None:
    """Write the resolved configuration, and what else a training depends on, next to its log."""
    make_folder(save_dir)
    write_text(save_dir / "config.yaml", config.resolved_yaml)
    about = {"commit": git_commit(), **libraries(), "processes": int(os.environ.get("WORLD_SIZE", "1"))}
    write_json(save_dir / "run.json", about)


def load_job(config: TrainConfig, device: torch.device, *, alike: bool = False) -> Job:
    """Load the model and the data of the stage that ``TRAIN.STAGE`` names.

    Args:
        config: resolved.
        device: of this process.
        alike: whether all processes must run through equally many microbatches, see `trainer.data.loader.Schedule`.

    Raises:
        ConfigError, DataError, CheckpointError, SegmenterError: something is missing or does not fit.
    """
    stage = importlib.import_module(f"{__package__}.stages.{config.TRAIN.STAGE}")
    job: Job = stage.load(config, device, alike=alike)
    return job


@dataclass(frozen=True, kw_only=True)
class _Newest:
    """The checkpoint that a training run goes on from."""

    folder: Path
    step: int
    optimizer: Mapping[str, Tensor]


def _resume(
    config: TrainConfig,
    save_dir: Path,
    job: Job,
    parameters: Mapping[str, nn.Parameter],
    session: Session,
) -> _Newest | None:
    """Take up the weights of the newest checkpoint, if asked to."""
    found: list[_Newest] = []

    def read() -> None:
        folder = newest(save_dir)
        if folder is None:
            return
        if not config.RESUME:
            raise RunError(in_use(save_dir, folder))
        step, settings = job.read_progress(folder)
        # what an earlier version of this code did not keep cannot be compared
        differ = [
            f"{k}: {settings[k]} -> {v}" for k, v in job.resume_settings().items() if k in settings and settings[k] != v
        ]
        if differ:
            listed = "\n  ".join(differ)
            raise RunError(f"{folder} is of another training run. What differs:\n  {listed}")
        job.load_weights(folder)
        found.append(_Newest(folder=folder, step=step, optimizer=read_optimizer(folder, parameters)))

    session.agree(read)
    return found[0] if found else None


def _go_on(config: TrainConfig, found: _Newest | None, placement: Placement, session: Session) -> int:
    """Give optimizer and generators the state of a checkpoint; returns the updates that are made."""
    if found is None:
        if config.LORA.DROPOUT:
            torch.manual_seed(config.TRAIN.SEED + session.rank)
        return 0
    placement.load_optimizer(found.optimizer)
    if not load_random(found.folder, session.rank):
        torch.manual_seed(config.TRAIN.SEED + found.step * session.world + session.rank)
    return found.step


def _save(config: TrainConfig, save_dir: Path, job: Job, placement: Placement, session: Session, step: int) -> None:
    """Write the checkpoint of a step; all processes call it, the main one writes."""
    random = session.gather({name: tensor.cpu() for name, tensor in random_state().items()})
    write = job.checkpoint_writer(placement, step)
    optimizer = placement.optimizer_tensors()
    if session.is_main:
        say(f"checkpoint: {save(save_dir, step, write, optimizer, random, config.TRAIN.KEEP)}")
    session.accelerator.wait_for_everyone()
