"""``train``: one stage, from its configuration to its checkpoints.

accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py train --conf_files configs/collavo_step1.yaml
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modeling.precision import at_least_float32
from pipeline.run.loading import load_tasks
from pipeline.run.plan import Plan, finish_trackers, make_session, run_guarded
from pipeline.runtime.console import say, warn
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import make_folder, write_json, write_text
from pipeline.runtime.launch import JoinError, check_environment, check_sharding, device_of, start_accelerator
from pipeline.runtime.provenance import git_commit, libraries
from pipeline.runtime.session import AgreedError, Session

from .check import differences, evaluation_plan
from .checkpoint import load_random, random_state, read_optimizer, remove_leftovers, save
from .checkpoint_folders import in_use, newest
from .config import SHARDED_STAGES, TrainConfig
from .cost import peak_flops
from .held_out import HeldOutData, LossHistory, validate
from .log import TrainingLog, in_words
from .loop import TrainingLoop, Update
from .parallel.placement import Placement, place_model
from .parallel.sharding import Sharding, read_sharding
from .parallel.trainable import train_only, trainable_parameters
from .parallel.zero import keep_whole
from .stages.base import StageJob
from .stages.registry import STAGES
from .stop import STOPPED, StopRequest

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipeline.catalog import Catalog

NEXT = "RESUME True goes on from the newest checkpoint"
INTERRUPTED = "interrupted; the newest checkpoint is whole, and RESUME True goes on from there"


def train(config: TrainConfig, catalog: Catalog) -> int:
    """Run the stage that ``TRAIN.STAGE`` names.

    Args:
        config: resolved.
        catalog: of the declared benchmarks, for evaluations on the way.

    Returns: the exit code, see ``pipeline/run/plan.py``.
    """

    def work(folders: list[Path]) -> int | None:
        folders.append(Path(config.SAVE_DIR).expanduser())
        accelerator, sharding = _start(config)
        plan = evaluation_plan(config, catalog)
        session = make_session(plan, accelerator)
        if config.TRAIN.EVAL_EVERY:
            load_tasks(plan.tasks, session)  # what is missing or cannot be scored is said now, not after many updates
        with session.sole_use(folders):
            if session.is_main:
                remove_leftovers(folders[0])
            ended = run_stage(config, accelerator, session, plan if config.TRAIN.EVAL_EVERY else None, sharding)
            finish_trackers(accelerator)
        return STOPPED if ended.stopped else None

    return run_guarded(work, INTERRUPTED)


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
        if sharding is not None and config.TRAIN.OPTIMIZER != "adamw":
            raise RunError(
                f"TRAIN.OPTIMIZER {config.TRAIN.OPTIMIZER} keeps its state whole on every process, and the launch "
                "shards it: use adamw, or configs/accel/ddp_accel.yaml"
            )
        # which LoRA adapter is frozen changes from update to update, and a batch of texts leaves the crayon prompt out
        unused = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
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


@dataclass(frozen=True, kw_only=True)
class TrainingEnd:
    """How a training run ended.

    Attributes:
        step: updates made in all.
        stopped: whether it was asked to end before its last update.
    """

    step: int
    stopped: bool


def run_stage(
    config: TrainConfig, accelerator: Accelerator, session: Session, plan: Plan | None, sharding: Sharding | None
) -> TrainingEnd:
    """Load, train, and save.

    Args:
        config: resolved.
        accelerator: joins the processes.
        session: this process's part.
        plan: of the evaluations on the way, if there are any.
        sharding: how the model lies on the processes; None for the whole of it on each.
    Returns: how it ended; a last checkpoint is there.
    """
    save_dir = Path(config.SAVE_DIR).expanduser()
    device = device_of(accelerator)
    job = session.together(lambda: load_job(config, device, alike=sharding is not None))
    parameters = trainable_parameters(job.adapters)
    for parameter in parameters.values():  # float32 at least, whatever the rest is in: small steps must not be lost
        parameter.data = at_least_float32(parameter.data)
    train_only([parameters], job.model)
    newest_one = _resume(config, save_dir, job, parameters, session)
    job.train_mode()
    if session.is_main and device.type == "cuda" and sharding is None:
        there = torch.cuda.get_device_properties(device).total_memory
        if counted := job.memory_in_words(session.world, there):
            say(counted)
    introduction = job.describe(parameters)  # ZeRO-3 leaves a process the numbers of its own shards alone
    placement = place_model(
        accelerator,
        job.model,
        job.adapters,
        sharding,
        lr=config.TRAIN.LR,
        weight_decay=config.TRAIN.WEIGHT_DECAY,
        clip=config.TRAIN.CLIP,
        own=job.group_settings,
        kind=config.TRAIN.OPTIMIZER,
    )
    start, steps = _go_on(config, newest_one, placement, session), job.steps
    if session.is_main:
        _note(config, save_dir)
        say(
            f"stage {config.TRAIN.STAGE}: {introduction}, {steps} updates of {config.TRAIN.BATCH_SIZE_TOTAL}"
            f"{f', going on after {start}' if start else ''}"
        )
        say(f"passes over the data: {in_words(job.data.passes(steps))}")
    stop = StopRequest()
    with stop.listening():
        progress = _Progress(config, job, placement, session, plan, device, start)
        loop = TrainingLoop(
            accelerator, placement, device, config.TRAIN, steps=steps, autocast=job.autocast, stopped=stop
        )
        made = loop.run(job.data, start, progress.done)
        progress.close(made)
    stopped = made < steps and not progress.enough
    if stopped and session.is_main:
        say(f"asked to end after update {made} of {steps}: {NEXT}")
    return TrainingEnd(step=made, stopped=stopped)


class _Progress:
    """What happens between two updates: the log, checkpoints, the held-out loss, benchmarks.

    Args:
        config: resolved.
        job: that is trained.
        placement: of its model.
        session: this process's part.
        plan: of the evaluations on the way, if there are any.
        device: of this process.
        start: updates made before.
    """

    def __init__(
        self,
        config: TrainConfig,
        job: StageJob,
        placement: Placement,
        session: Session,
        plan: Plan | None,
        device: torch.device,
        start: int,
    ) -> None:
        self._config, self._job, self._placement, self._session = config, job, placement, session
        self._plan, self._device = plan, device
        self._save_dir, self._steps = Path(config.SAVE_DIR).expanduser(), job.steps
        self._saved = start
        self.enough = False
        """Whether the held-out loss has not fallen for long enough."""
        self._history = session.together(lambda: LossHistory.read(self._save_dir, start))
        peak = peak_flops(device)
        self._log = TrainingLog(
            self._save_dir,
            self._steps,
            start,
            config.TRAIN.LOG_EVERY,
            session.is_main,
            session.accelerator.log,
            job.labels,
            image_tokens=job.image_tokens,
            passes=job.data.passes,
            flops=job.flops,
            peak=None if peak is None else peak * session.world,
        )

    def done(self, update: Update) -> bool:
        """Take an update into account; whether it was the last one that is worth making."""
        train, step = self._config.TRAIN, update.step
        self._log.add(update)
        last = step == self._steps
        if self._job.held_out is not None and (last or step % (train.VALIDATE_EVERY or train.SAVE_EVERY) == 0):
            self._validate(self._job.held_out, step)
        if last or self.enough or step % train.SAVE_EVERY == 0:
            self._save(step)
        if self._plan is not None and (last or self.enough or step % train.EVAL_EVERY == 0):
            self._job.evaluate(self._plan, replace(self._session, step=step), step)
        return self.enough

    def close(self, made: int) -> None:
        """Save what is not saved yet, and close the log."""
        if made > self._saved:
            self._save(made)
        self._log.close()

    def _validate(self, data: HeldOutData, step: int) -> None:
        """Compute the held-out loss; a new lowest one gets a checkpoint."""
        if self._session.is_main:
            say(f"update {step}: computing the held-out loss ...")
        found = validate(data, self._placement, self._session.accelerator, self._device, step, self._job.autocast)
        self._history.validations.append(found)
        best, patience = self._history.best, self._config.TRAIN.PATIENCE
        is_best = best is not None and best.step == step
        self._log.add_validation(found, is_best)
        if self._session.is_main:
            self._history.write(self._save_dir)
        if is_best:
            self._save(step)
        if patience is not None and self._history.since_best >= patience and step < self._steps:
            self.enough = True
            if self._session.is_main and best is not None:
                say(
                    f"the held-out loss has not fallen for {self._history.since_best} validations (TRAIN.PATIENCE): "
                    f"the lowest, {best.loss:.4f}, is that of update {best.step}"
                )

    def _save(self, step: int) -> None:
        """Write the checkpoint of a step, unless it is there; all processes call it, the main one writes."""
        if step == self._saved:
            return
        session, placement, best = self._session, self._placement, self._history.best
        random = session.gather({name: tensor.cpu() for name, tensor in random_state().items()})
        write = self._job.checkpoint_writer(placement, step)
        optimizer = placement.optimizer_tensors()
        if session.is_main:
            keep = self._config.TRAIN.KEEP
            kept = save(self._save_dir, step, write, optimizer, random, keep, None if best is None else best.step)
            say(f"checkpoint: {kept}")
        session.accelerator.wait_for_everyone()
        self._saved = step


def _note(config: TrainConfig, save_dir: Path) -> None:
    """Write the resolved configuration, and what else a training run depends on, next to its log."""
    make_folder(save_dir)
    write_text(save_dir / "config.yaml", config.resolved_yaml)
    about = {"commit": git_commit(), **libraries(), "processes": int(os.environ.get("WORLD_SIZE", "1"))}
    write_json(save_dir / "run.json", about)


def load_job(config: TrainConfig, device: torch.device, *, alike: bool = False) -> StageJob:
    """Load the model and the data of the stage that ``TRAIN.STAGE`` names.

    Args:
        config: resolved.
        device: of this process.
        alike: whether all processes must run through equally many microbatches, see `trainer.data.loader.Batches`.

    Raises:
        ConfigError, DataError, CheckpointError, SegmenterError: something is missing or does not fit.
    """
    return STAGES[config.TRAIN.STAGE](config, device, alike=alike)


@dataclass(frozen=True, kw_only=True)
class _Newest:
    """The checkpoint that a training run goes on from."""

    folder: Path
    step: int
    optimizer: Mapping[str, Tensor]


def _resume(
    config: TrainConfig,
    save_dir: Path,
    job: StageJob,
    parameters: Mapping[str, nn.Parameter],
    session: Session,
) -> _Newest | None:
    """Load the weights of the newest checkpoint, if asked to; its optimizer is only read."""

    def read() -> _Newest | None:
        folder = newest(save_dir)
        if folder is None:
            return None
        if not config.RESUME:
            raise RunError(in_use(save_dir, folder))
        step, settings = job.read_progress(folder)
        notes = differences(folder, settings, job.resume_settings().items(), config.TRAIN.ON_CHANGE)
        if session.is_main:
            for note in notes:
                warn(note)
        job.load_weights(folder)
        optimizer = read_optimizer(folder, parameters, partly=bool(notes))
        return _Newest(folder=folder, step=step, optimizer=optimizer)

    return session.together(read)


def _go_on(config: TrainConfig, found: _Newest | None, placement: Placement, session: Session) -> int:
    """Give optimizer and generators the state of a checkpoint; returns the updates that are made."""
    if found is None:
        # processes draw other dropout masks than the main one, whose generator goes on as it is; with dropout of LoRA
        # it always began anew
        if session.rank or config.LORA.DROPOUT:
            torch.manual_seed(config.TRAIN.SEED + session.rank)
        return 0
    placement.load_optimizer(found.optimizer)
    if not load_random(found.folder, session.rank):
        torch.manual_seed(config.TRAIN.SEED + found.step * session.world + session.rank)
    return found.step
