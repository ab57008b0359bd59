"""Stages ``cpt`` and ``cit``: CoLLaVO's crayon prompt, and its LoRA adapters, above a frozen model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from collavo.adapters import Adapters, base_parameters, crayon_parameters
from collavo.checkpoint.examine import ExaminedCheckpoint, examine_checkpoint
from collavo.checkpoint.finetuned_checkpoint import TrainingState, load_crayon, load_parts, read_state
from collavo.checkpoint.location import locate
from collavo.checkpoint.names import fingerprint
from collavo.checkpoint.settings import segmenter_record, settings_for
from collavo.engine import Engine
from collavo.load_collavo import DTYPES, load_examined
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.processing import CoLLaVOProcessor
from collavo.template import CHAT
from collavo.trainable_parts import PARTS, TARGETS
from configs.load import ConfigError
from modeling.segmenters.base import Segmenter
from pipeline.models.map_cache import cached_segmenter
from pipeline.run.plan import Plan, run_tasks
from pipeline.runtime.console import LoadingBar, say, warn
from pipeline.runtime.launch import is_main

from ..checkpoint import write_tuned
from ..config import TrainConfig, base_parts, lora_record, rows_are_masked
from ..cost import TrainingCost
from ..data.loader import Batches, HeldOutBatches, Schedule
from ..data.samples import Preparation
from ..data.sources import StageData
from ..held_out import HeldOutData
from ..log import ANSWER_TOKENS
from ..loop import TrainingData, Update
from ..memory import count_update_memory
from ..optimizer import all_alike
from ..parallel.placement import Placement
from ..parallel.trainable import Parameters, adapter_groups, num_weights, trainable_parameters

if TYPE_CHECKING:
    from pipeline.runtime.session import Session

_CONTINUED = (
    *("STAGE", "PARTS", "CRAYON", "ADAPTERS", "IMAGE_SHARE", "BATCH_SIZE_TOTAL", "QUESTIONS", "OPTIMIZER"),
    *("LR", "LR_END", "WARMUP", "WEIGHT_DECAY", "CLIP", "MAX_LENGTH", "GROUP_BY_LENGTH", "SEED"),
)
"""Settings of TRAIN that a continuation must share with what it continues."""


SampleSources = Callable[[TrainConfig, Preparation, torch.device], StageData]
"""What each adapter of a stage learns from."""


@dataclass(frozen=True, kw_only=True)
class TuningParts:
    """What such a stage consists of once it is loaded.

    Attributes:
        model: the whole model, unwrapped.
        processor: of the model.
        adapters: its LoRA adapters.
        schedule: its data.
        held_out: what the held-out loss is computed on; None for nothing.
        steps: updates in all.
        started_from: the whole checkpoint below.
        changed: parts of it that are trained here, or were in an earlier stage.
    """

    model: CoLLaVOForConditionalGeneration
    processor: CoLLaVOProcessor
    adapters: Adapters
    schedule: Schedule
    held_out: HeldOutBatches | None
    steps: int
    started_from: Path
    changed: tuple[str, ...] = ()


class TuningJob:
    """See `trainer.stages.base.StageJob`.

    Args:
        config: resolved.
        parts: loaded.
    """

    labels = ANSWER_TOKENS

    def __init__(self, config: TrainConfig, parts: TuningParts) -> None:
        self._config, self._parts = config, parts
        self.model: nn.Module = parts.model
        self.data: TrainingData = parts.schedule
        self.held_out: HeldOutData | None = parts.held_out
        self.adapters: Mapping[str, Sequence[Parameters]] = adapter_groups(
            parts.model, parts.adapters, config.TRAIN.CRAYON, config.TRAIN.PARTS
        )
        self.steps: int = parts.steps
        dtype = DTYPES[config.LLM.DTYPE]
        self.autocast: torch.dtype | None = None if dtype == torch.float32 else dtype
        self._shared = _shared_settings(config, parts)
        self.image_tokens: int = parts.model.config.num_image_tokens
        self._costs = {
            name: TrainingCost.of_model(parts.model, trainable_parameters({name: moving}).values())
            for name, moving in self.adapters.items()
        }

    def resume_settings(self) -> dict[str, Any]:
        """See `StageJob.resume_settings`."""
        return self._shared

    def read_progress(self, folder: Path) -> tuple[int, Mapping[str, Any]]:
        """See `StageJob.read_progress`."""
        state = read_state(folder)
        return state.step, state.settings

    def load_weights(self, folder: Path) -> None:
        """See `StageJob.load_weights`."""
        load_crayon(folder, crayon_parameters(self._parts.model))
        load_parts(folder, base_parameters(self._parts.model, self._parts.changed))
        self._parts.adapters.load(folder)

    def train_mode(self) -> None:
        """See `StageJob.train_mode`. The vision tower stays in evaluation mode, whether it is trained or not."""
        model = self._parts.model
        if self._config.TRAIN.GRADIENT_CHECKPOINTING:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        model.vision_tower.eval()

    def group_settings(self, group: Parameters) -> Mapping[str, Any]:
        """See `StageJob.group_settings`."""
        return all_alike(group)

    def checkpoint_writer(self, placement: Placement, step: int) -> Callable[[Path], None]:
        """See `StageJob.checkpoint_writer`."""
        adapters = self._parts.adapters
        crayon = placement.weights(crayon_parameters(self._parts.model))
        by_adapter = [placement.weights(adapters.parameters(name)) for name in adapters.names]
        merged = {name: tensor for weights in by_adapter for name, tensor in weights.items()}
        parts = placement.weights(base_parameters(self._parts.model, self._parts.changed))
        return lambda folder: write_tuned(folder, self._state(step), crayon, adapters, merged, parts)

    def _state(self, step: int) -> TrainingState:
        config = self._config
        segmenter = segmenter_record(config.SEGMENTER)
        return TrainingState(
            step=step,
            started_from=str(self._parts.started_from),
            stage=config.TRAIN.STAGE,
            adapters=self._parts.adapters.names,
            rank=config.LORA.R,
            parts=self._parts.changed,
            ranks=dict(config.LORA.RANKS) if self._parts.adapters.names else {},
            targets=config.LORA.targets if self._parts.adapters.names else TARGETS,
            alpha=config.LORA.ALPHA,
            crayon=config.TRAIN.CRAYON,
            settings=self._shared,
            template=CHAT.name,
            segmenter=None if segmenter is None else segmenter.model_dump(exclude_defaults=True),
        )

    def describe(self, moving: Parameters) -> str:
        """See `StageJob.describe`."""
        parts, train = self._parts, self._config.TRAIN
        number, total = num_weights(moving.values()), num_weights(parts.model.parameters())
        lora = f", LoRA adapters {', '.join(parts.adapters.names)}" if parts.adapters.names else ""
        return (
            f"{number / 1e6:.2f} of {total / 1e6:.2f} million parameters are trained (crayon prompt: "
            f"{train.CRAYON}{lora}); attention {parts.model.config._attn_implementation}; "
            f"{parts.schedule.num_samples} samples{self._held_out_in_words()}"
        )

    def _held_out_in_words(self) -> str:
        held_out = self._parts.held_out
        return f", {held_out.num_samples} more are held out" if held_out is not None else ""

    def memory_in_words(self, processes: int, there: int) -> str:
        """See `StageJob.memory_in_words`."""
        parts = self._parts
        counted = count_update_memory(
            parts.model, self.adapters, self._config, names=parts.adapters.names, processes=processes
        )
        return counted.in_words(self._config, there)

    def flops(self, update: Update) -> float | None:
        """See `StageJob.flops`."""
        return self._costs[update.adapter].of(update)

    def evaluate(self, plan: Plan, session: Session, step: int) -> None:
        """See `StageJob.evaluate`; into ``eval/step-...`` of the training run's folder."""
        config, parts = self._config, self._parts
        folder = Path(config.SAVE_DIR).expanduser() / "eval" / f"step-{step:08d}"
        tasks = [replace(task, folder=folder / task.dataset) for task in plan.tasks]
        plan = replace(plan, config=replace(plan.config, SAVE_DIR=str(folder)), tasks=tasks)

        def segmenter() -> Segmenter:
            return cached_segmenter(config.SEGMENTER, parts.model.device)

        def make() -> Engine:
            return Engine(parts.model, parts.processor, segmenter(), CHAT, crayon=config.CRAYON)

        identity = {"training": config.NAME, "step": step, "started_from": fingerprint(parts.started_from)}
        parts.model.eval()
        try:
            live = _LiveEngine(identity, make, segmenter)
            for failure in run_tasks(plan, live, session):
                if session.is_main:
                    warn(failure)
        finally:
            parts.model.train()
            parts.model.vision_tower.eval()


class _LiveEngine:
    """The model as it is being trained, for `pipeline.run.task`; see `pipeline.base.EngineSource`."""

    def __init__(
        self, identity: Mapping[str, Any], make: Callable[[], Engine], segmenter: Callable[[], Segmenter]
    ) -> None:
        self._identity, self._make, self._segmenter = identity, make, segmenter

    def parts(self) -> Mapping[str, Any]:
        """Which training run, and how far."""
        return self._identity

    def weights(self) -> str:
        """They are in memory."""
        return "the model in training answers"

    def engine(self) -> Engine:
        """Joins it with the segmenter."""
        return self._make()

    def segmenter(self) -> Segmenter:
        """The segmenter alone."""
        return self._segmenter()


def load_tuning(
    config: TrainConfig, device: torch.device, names: tuple[str, ...], sources: SampleSources, *, alike: bool
) -> TuningJob:
    """Load the model and the data of a stage.

    Args:
        config: resolved.
        device: of this process.
        names: of the LoRA adapters.
        sources: of the stage.
        alike: see `trainer.data.loader.Batches`.

    Raises:
        ConfigError, DataError, CheckpointError, SegmenterError: something is missing or does not fit.
    """
    base = locate(config.RESUME_FROM).resolve()
    settings = settings_for(base, config.CRAYON, config.SEGMENTER, CHAT)
    config = replace(config, CRAYON=settings.crayon, SEGMENTER=settings.segmenter)
    examined = examine_checkpoint(base, settings.template, fresh_crayon=True)
    if examined.described.lacking and is_main(os.environ):
        note = "trained from scratch" if examined.described.state is None else "that of the checkpoint"
        say(f"{examined.described.base} has no crayon prompt; it is {note}")
    if is_main(os.environ):
        for note in settings.notes:
            warn(note)
    processor = examined.processor
    examined.blank.config.crayon_queries = config.TRAIN.CRAYON  # as the model's that `_start` loads
    preparation = Preparation(
        processor=processor,
        train=config.TRAIN,
        crayon=config.CRAYON,
        corruption=config.DATA.SPOIL,
        place=examined.blank.place,
    )
    data = sources(config, preparation, device)
    if config.DATA.VALIDATION and not data.held_out:
        raise ConfigError(
            f"DATA.VALIDATION {config.DATA.VALIDATION}: this share holds out none of the samples; raise it, or name a "
            "file"
        )
    schedule = Schedule(Batches(data.training, preparation, alike=alike))
    steps = schedule.steps_for(config.TRAIN.EPOCHS) if config.TRAIN.STEPS is None else config.TRAIN.STEPS
    model = _start(config, examined, device)
    torch.manual_seed(config.TRAIN.SEED)
    lora, state = config.LORA, examined.described.state
    adapters = Adapters(
        model,
        names,
        rank=lora.R,
        alpha=lora.ALPHA,
        dropout=lora.DROPOUT,
        ranks=lora.RANKS,
        targets=lora.targets,
    )
    if state is not None and state.adapters and not lora.FRESH:
        adapters.load(examined.described.folder)
    parts = TuningParts(
        model=model,
        processor=processor,
        adapters=adapters,
        schedule=schedule,
        held_out=HeldOutBatches(Batches(data.held_out, preparation, alike=alike)) if data.held_out else None,
        steps=steps,
        started_from=examined.described.base,
        changed=tuple(part for part in PARTS if part in {*base_parts(config), *(state.parts if state else ())}),
    )
    return TuningJob(config, parts)


def _start(config: TrainConfig, examined: ExaminedCheckpoint, device: torch.device) -> CoLLaVOForConditionalGeneration:
    """The model to begin with: that of the checkpoint, with the crayon prompt of an earlier stage."""
    described = examined.described
    with LoadingBar(shown=is_main(os.environ)) as bar:
        model = load_examined(
            config.LLM,
            examined,
            device,
            trainable=True,
            base_only=True,
            masked=rows_are_masked(config),
            seed=config.TRAIN.SEED,
            parts=base_parts(config),
            progress=bar.show,
        )
    model.config.crayon_queries = config.TRAIN.CRAYON
    if described.state is not None:
        load_crayon(described.folder, crayon_parameters(model))
        load_parts(described.folder, base_parameters(model, described.state.parts))
    return model


def _shared_settings(config: TrainConfig, parts: TuningParts) -> dict[str, Any]:
    """What a continuation must have in common with what it continues."""
    data = config.DATA
    return {
        **{f"TRAIN.{name}": getattr(config.TRAIN, name) for name in _CONTINUED},
        "steps": parts.steps,
        "data": parts.schedule.identity,
        "foundation": fingerprint(parts.started_from),
        "LORA": lora_record(config.LORA),
        "DATA.SPOIL": data.SPOIL,
        "DATA.KINDS": list(data.KINDS),
        "CRAYON": {"OBJECT_LIST": config.CRAYON.object_list, "MAP_SCALE": config.CRAYON.map_scale},
        "DATA.PANOPTIC.ANNOTATIONS": data.PANOPTIC.ANNOTATIONS,
        "DATA.CONVERSATIONS": [item.FILE for item in data.CONVERSATIONS],
        "DATA.WEIGHTS": [item.WEIGHT for item in data.CONVERSATIONS],
    }
