"""``train``: one stage, from its configuration to its checkpoints.

accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py train --conf_files configs/collavo_step1.yaml
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from collavo.adapters import Adapters, crayon_parameters
from collavo.checkpoint import fingerprint
from collavo.engine import Engine
from collavo.load_collavo import DTYPES, load_model
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT
from collavo.trained import State, foundation, is_trained, load_crayon, read_state
from modeling.segmenters import build_segmenter
from pipeline.errors import RunError
from pipeline.launch import check_environment, check_sharding, device_of, start_accelerator
from pipeline.progress import say
from pipeline.run import Plan, finish, guarded, make_session, run_tasks
from pipeline.session import AgreedError, Session

from .check import evaluation_plan
from .checkpoint import load_random, newest, random_state, read_optimizer, save
from .config import TrainConfig
from .data import Preparation, Schedule
from .log import Log
from .loop import Loop, LoopSettings, Update
from .parameters import groups, trained
from .placement import Placement, place
from .sharding import Sharding, read_sharding
from .zero import keep_whole

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipeline.catalog import Catalog

INTERRUPTED = "interrupted; the newest checkpoint is whole, and RESUME True goes on from there"
_CONTINUED = (
    *("STAGE", "CRAYON", "ADAPTERS", "IMAGE_SHARE", "BATCH_SIZE_TOTAL", "QUESTIONS"),
    *("LR", "LR_END", "WARMUP", "WEIGHT_DECAY", "CLIP", "MAX_LENGTH", "GROUP_BY_LENGTH", "SEED"),
)
"""Settings of TRAIN that a continuation must share with what it continues."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a stage consists of once it is loaded.

    Attributes:
        model: the whole model, unwrapped.
        processor: of the model.
        adapters: its LoRA sets.
        schedule: its data.
        steps: updates in all.
        started_from: the whole checkpoint below.
    """

    model: CoLLaVOForConditionalGeneration
    processor: CoLLaVOProcessor
    adapters: Adapters
    schedule: Schedule
    steps: int
    started_from: Path


def train(config: TrainConfig, catalog: Catalog) -> int:
    """Run the stage that ``TRAIN.STAGE`` names.

    Args:
        config: resolved.
        catalog: of the declared benchmarks, for evaluations on the way.

    Returns: the exit code, see ``pipeline/run.py``.
    """

    def work(folders: list[Path]) -> None:
        folders.append(Path(config.SAVE_DIR).expanduser())
        accelerator, sharding = _start(config)
        plan = evaluation_plan(config, catalog)
        session = make_session(plan, accelerator)
        run_stage(config, accelerator, session, plan if config.TRAIN.EVAL_EVERY else None, sharding)
        finish(accelerator)

    return guarded(work, INTERRUPTED)


def _start(config: TrainConfig) -> tuple[Accelerator, Sharding | None]:
    """Join the processes; and how the launch wants the model laid out on them.

    Raises:
        AgreedError: the launch cannot be served; it looks the same from every process.
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
        # which LoRA set rests changes from update to update, and a batch of texts leaves the crayon prompt out
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        accelerator = start_accelerator(
            config.EVAL.TIMEOUT_HOURS, trackers or None, os.environ, [unused], Path(config.SAVE_DIR).expanduser()
        )
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
    loaded: list[Parts] = []
    session.agree(lambda: loaded.append(load_parts(config, device, alike=sharding is not None)))
    parts = loaded[0]
    branches = groups(parts.model, parts.adapters, config.TRAIN.CRAYON)
    parameters = trained(branches)
    for parameter in parts.model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters.values():  # float32, whatever the type of the rest: small steps must not be lost
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    newest_one = _resume(config, save_dir, parts, parameters, session)
    if config.TRAIN.GRADIENT_CHECKPOINTING:
        parts.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parts.model.train()
    parts.model.vision_tower.eval()
    placement = place(
        accelerator,
        parts.model,
        branches,
        sharding,
        lr=config.TRAIN.LR,
        weight_decay=config.TRAIN.WEIGHT_DECAY,
        clip=config.TRAIN.CLIP,
    )
    start = _go_on(config, newest_one, placement, session)
    loop = Loop(accelerator, placement, device, _settings(config, parts.steps))
    if session.is_main:
        _introduce(config, parts, parameters, start)
    log = Log(save_dir, parts.steps, start, config.TRAIN.LOG_EVERY, session.is_main, accelerator.log)
    keeper = _Keeper(config, save_dir, parts, placement, session)

    def done(update: Update) -> None:
        session.between()
        log.add(update)
        last = update.step == parts.steps
        if last or update.step % config.TRAIN.SAVE_EVERY == 0:
            keeper.save(update.step)
        if plan is not None and (last or update.step % config.TRAIN.EVAL_EVERY == 0):
            _evaluate(config, plan, session, parts, update.step)

    loop.run(parts.schedule, start, done)
    log.close()


def load_parts(config: TrainConfig, device: torch.device, *, alike: bool = False) -> Parts:
    """Load the model and the data of a stage.

    Args:
        config: resolved.
        device: of this process.
        alike: see `trainer.data.Schedule`.

    Raises:
        ConfigError, DataError, CheckpointError, SegmenterError: something is missing or does not fit.
    """
    stage = importlib.import_module(f"{__package__}.stages.{config.TRAIN.STAGE}")
    base = Path(config.RESUME_FROM).resolve()
    names = stage.adapters(config)
    torch.manual_seed(config.TRAIN.SEED)
    model = load_model(config.LLM, foundation(base), device, trainable=True)
    model.config.crayon_queries = config.TRAIN.CRAYON
    if is_trained(base):
        load_crayon(base, crayon_parameters(model))
    lora = config.LORA
    torch.manual_seed(config.TRAIN.SEED)
    adapters = Adapters(model, names, rank=lora.R, alpha=lora.ALPHA, dropout=lora.DROPOUT)
    processor = CoLLaVOProcessor.from_pretrained(foundation(base))
    preparation = Preparation(
        processor=processor,
        max_length=config.TRAIN.MAX_LENGTH,
        seed=config.TRAIN.SEED,
        crayon=config.CRAYON,
        spoil=config.DATA.SPOIL,
        questions=config.TRAIN.QUESTIONS,
    )
    schedule = Schedule(
        stage.sources(config, preparation, device),
        preparation,
        batch_size_total=config.TRAIN.BATCH_SIZE_TOTAL,
        batch_size=config.TRAIN.BATCH_SIZE,
        by_length=config.TRAIN.GROUP_BY_LENGTH,
        image_share=config.TRAIN.IMAGE_SHARE,
        workers=config.TRAIN.WORKERS,
        alike=alike,
    )
    steps = config.TRAIN.STEPS
    if steps is None:
        steps = max(1, round(config.TRAIN.EPOCHS * schedule.num_samples / config.TRAIN.BATCH_SIZE_TOTAL))
    return Parts(
        model=model,
        processor=processor,
        adapters=adapters,
        schedule=schedule,
        steps=steps,
        started_from=foundation(base),
    )


def _settings(config: TrainConfig, steps: int) -> LoopSettings:
    dtype = DTYPES[config.LLM.DTYPE]
    return LoopSettings(
        steps=steps,
        highest=config.TRAIN.LR,
        lowest=config.TRAIN.LR_END,
        warmup=config.TRAIN.WARMUP,
        clip=config.TRAIN.CLIP,
        autocast=None if dtype == torch.float32 else dtype,
    )


def _introduce(config: TrainConfig, parts: Parts, parameters: Mapping[str, nn.Parameter], start: int) -> None:
    number = sum(parameter.numel() for parameter in parameters.values())
    total = sum(parameter.numel() for parameter in parts.model.parameters())
    sets = f", LoRA sets {', '.join(parts.adapters.names)}" if parts.adapters.names else ""
    say(
        f"stage {config.TRAIN.STAGE}: {number / 1e6:.2f} of {total / 1e6:.2f} million parameters are trained (crayon "
        f"prompt: {config.TRAIN.CRAYON}{sets}); {parts.schedule.num_samples} samples, {parts.steps} updates of "
        f"{config.TRAIN.BATCH_SIZE_TOTAL}{f', going on after {start}' if start else ''}"
    )


def shared_settings(config: TrainConfig, parts: Parts) -> dict[str, Any]:
    """What a continuation must have in common with what it continues."""
    data = config.DATA
    return {
        **{f"TRAIN.{name}": getattr(config.TRAIN, name) for name in _CONTINUED},
        "steps": parts.steps,
        "data": parts.schedule.identity,
        "foundation": fingerprint(parts.started_from),
        "LORA": [config.LORA.R, config.LORA.ALPHA, config.LORA.DROPOUT],
        "DATA.SPOIL": data.SPOIL,
        "DATA.KINDS": list(data.KINDS),
        "CRAYON": [config.CRAYON.OBJECT_LIST, config.CRAYON.MAP_SCALE],
        "DATA.PANOPTIC.ANNOTATIONS": data.PANOPTIC.ANNOTATIONS,
        "DATA.CONVERSATIONS": [item.FILE for item in data.CONVERSATIONS],
    }


@dataclass(frozen=True, kw_only=True)
class _Newest:
    """The checkpoint that a training goes on from."""

    folder: Path
    step: int
    optimizer: Mapping[str, Tensor]


def _resume(
    config: TrainConfig,
    save_dir: Path,
    parts: Parts,
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
            raise RunError(
                f"{save_dir} holds checkpoints of an earlier training ({folder.name}): RESUME True goes on from there, "
                "another SAVE_DIR starts anew"
            )
        state = read_state(folder)
        wanted, held = shared_settings(config, parts), state.settings
        # what an earlier version of this code did not keep cannot be compared
        differ = [f"{key}: {held[key]} -> {v}" for key, v in wanted.items() if key in held and held[key] != v]
        if differ:
            listed = "\n  ".join(differ)
            raise RunError(f"{folder} is of another training. What differs:\n  {listed}")
        load_crayon(folder, crayon_parameters(parts.model))
        parts.adapters.load(folder)
        found.append(_Newest(folder=folder, step=state.step, optimizer=read_optimizer(folder, parameters)))

    session.agree(read)
    return found[0] if found else None


def _go_on(config: TrainConfig, found: _Newest | None, placement: Placement, session: Session) -> int:
    """Give optimiser and generators the state of a checkpoint; returns the updates that are made."""
    if found is None:
        if config.LORA.DROPOUT:
            torch.manual_seed(config.TRAIN.SEED + session.rank)
        return 0
    placement.load_optimizer(found.optimizer)
    if not load_random(found.folder, session.rank):
        torch.manual_seed(config.TRAIN.SEED + found.step * session.world + session.rank)
    return found.step


class _Keeper:
    """Writes checkpoints; all processes call it, the main one writes."""

    def __init__(
        self,
        config: TrainConfig,
        save_dir: Path,
        parts: Parts,
        placement: Placement,
        session: Session,
    ) -> None:
        self._config, self._save_dir, self._parts, self._session = config, save_dir, parts, session
        self._placement = placement
        self._settings = shared_settings(config, parts)

    def save(self, step: int) -> None:
        """Write the checkpoint of a step."""
        random = self._session.gather({name: tensor.cpu() for name, tensor in random_state().items()})
        adapters = self._parts.adapters
        crayon = self._placement.weights(crayon_parameters(self._parts.model))
        sets = [self._placement.weights(adapters.parameters(name)) for name in adapters.names]
        optimizer = self._placement.optimizer_tensors()
        if self._session.is_main:
            folder = save(
                self._save_dir,
                self._state(step),
                crayon,
                adapters,
                {name: tensor for weights in sets for name, tensor in weights.items()},
                optimizer,
                random,
                self._config.TRAIN.KEEP,
            )
            say(f"checkpoint: {folder}")
        self._session.accelerator.wait_for_everyone()

    def _state(self, step: int) -> State:
        config = self._config
        return State(
            step=step,
            started_from=str(self._parts.started_from),
            stage=config.TRAIN.STAGE,
            adapters=self._parts.adapters.names,
            rank=config.LORA.R,
            alpha=config.LORA.ALPHA,
            crayon=config.TRAIN.CRAYON,
            settings=self._settings,
        )


class _LiveEngine:
    """The model as it is being trained, for `pipeline.task.run_task`; see `pipeline.session.EngineSource`."""

    def __init__(self, identity: Mapping[str, Any], make: Callable[[], Engine]) -> None:
        self._identity, self._make = identity, make

    def parts(self) -> Mapping[str, Any]:
        """Which training, and how far."""
        return self._identity

    def weights(self) -> str:
        """They are in memory."""
        return "the model in training answers"

    def engine(self) -> Engine:
        """Joins it with the segmenter."""
        return self._make()


def _evaluate(config: TrainConfig, plan: Plan, session: Session, parts: Parts, step: int) -> None:
    """Evaluate the benchmarks of the plan, into ``eval/step-...`` of the training's folder."""
    folder = Path(config.SAVE_DIR).expanduser() / "eval" / f"step-{step:08d}"
    tasks = [replace(task, folder=folder / task.dataset) for task in plan.tasks]
    folder.mkdir(parents=True, exist_ok=True)

    def make() -> Engine:
        segmenter = build_segmenter(config.SEGMENTER, parts.model.device)
        return Engine(parts.model, parts.processor, segmenter, CHAT, crayon=config.CRAYON)

    identity = {"training": config.NAME, "step": step, "started_from": fingerprint(parts.started_from)}
    parts.model.eval()
    try:
        run_tasks(replace(plan, tasks=tasks, save_dir=folder), _LiveEngine(identity, make), session)
    finally:
        parts.model.train()
        parts.model.vision_tower.eval()
