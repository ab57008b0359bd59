"""The configuration of training: every key, its type, default and meaning. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from configs.load import ConfigError
from datasets.instruct.crayon_instructions import KINDS
from pipeline.catalog import Catalog
from pipeline.config import EvalConfig, EvalSchema, read_configuration

STAGES = ("cpt", "cit")
CRAYONS = ("both", "semantic", "none")
ADAPTERS = ("dual", "shared", "vl_only")
_FROM_ONE = (
    *("STEPS", "BATCH_SIZE_TOTAL", "BATCH_SIZE", "QUESTIONS", "MAX_LENGTH"),
    *("LOG_EVERY", "SAVE_EVERY", "KEEP", "WORKERS"),
)
_FROM_ZERO = ("EPOCHS", "LR", "LR_END", "WEIGHT_DECAY", "CLIP", "EVAL_EVERY")


@dataclass
class PanopticSource:
    """Pictures with exact panoptic maps in COCO's layout, from which crayon instructions are made.

    Attributes:
        ANNOTATIONS: panoptic JSON, e.g. coco/annotations/panoptic_train2017.json; this and other paths of DATA count
            from the working directory or else from a dataset folder.
        MAPS: folder of the PNGs that it names.
        IMAGES: folder of the pictures.
    """

    ANNOTATIONS: str = ""
    MAPS: str = ""
    IMAGES: str = ""


@dataclass
class ConversationSource:
    """A file of conversations, as LLaVA and ShareGPT4V release them.

    Attributes:
        FILE: JSON.
        IMAGES: folder that the pictures' paths in it count from.
    """

    FILE: str = ""
    IMAGES: str = ""


@dataclass
class DataConfig:
    """What is learned from.

    Attributes:
        PANOPTIC: for crayon instructions (Image-CIT).
        CONVERSATIONS: for visual instructions (VL-CIT).
        KINDS: kinds of crayon instructions; empty for those of the stage. cpt: names, names_boxes, class_boxes; cit:
            these and class_binary, box_class, box_numbered (is a class there, which object is in a box).
        MAPS_CACHE: folder of the panoptic maps that SEGMENTER makes for CONVERSATIONS, made once.
        SPOIL: share of objects that are dropped from the maps that the model sees, and the same share renamed.
    """

    PANOPTIC: PanopticSource = field(default_factory=PanopticSource)
    CONVERSATIONS: list[ConversationSource] = field(default_factory=list)
    KINDS: list[str] = field(default_factory=list)
    MAPS_CACHE: str = "outputs/maps"
    SPOIL: float = 0.0


@dataclass
class LoRAConfig:
    """The LoRA sets of stage ``cit``.

    Attributes:
        R: rank.
        ALPHA: numerator of the scale.
        DROPOUT: before the A matrices.
    """

    R: int = 64
    ALPHA: int = 64
    DROPOUT: float = 0.0


@dataclass
class LoopConfig:
    """How training goes.

    Attributes:
        STAGE: cpt trains the crayon prompt; cit trains it and the LoRA sets.
        CRAYON: which queries act: both, semantic, or none (ablation).
        IMAGE_SHARE: share of the updates of stage cit that are drawn for object-level instructions (Image-CIT).
        ADAPTERS: dual: a set for each kind of data; shared: one set for both; vl_only: visual instructions only.
        EPOCHS: passes over the data, where STEPS is None.
        STEPS: updates; None to count them from EPOCHS.
        BATCH_SIZE_TOTAL: samples of an update, over all processes.
        BATCH_SIZE: samples that a process runs through the model at a time.
        QUESTIONS: how many questions about a picture a sample holds. Each sees the picture and itself alone, so that
            they share the cost of the image tokens: so many crayon instructions are made of a picture, and
            conversations of one turn on the same picture are put together. 1 is what the paper describes.
        LR: highest learning rate.
        LR_END: lowest, at the last update.
        WARMUP: share of the updates over which it rises.
        WEIGHT_DECAY: of AdamW.
        CLIP: largest norm of the gradient; 0 for no limit.
        MAX_LENGTH: longest sample in tokens, image tokens included.
        GROUP_BY_LENGTH: put samples of similar length into a batch.
        GRADIENT_CHECKPOINTING: recompute activations in the backward pass.
        SEED: of weights, order, dropout and the choice of the set that a step trains.
        LOG_EVERY: updates between two lines of the log.
        SAVE_EVERY: updates between two checkpoints; the last update always has one.
        KEEP: how many checkpoints are kept.
        EVAL_EVERY: updates between two evaluations on DATASETS.TEST; 0 for none.
        WORKERS: threads per process that prepare samples ahead.
        TENSORBOARD: log through Accelerate to TensorBoard, in SAVE_DIR.
    """

    STAGE: str = "cpt"
    CRAYON: str = "both"
    ADAPTERS: str = "dual"
    IMAGE_SHARE: float = 0.5
    EPOCHS: float = 1.0
    STEPS: int | None = None
    BATCH_SIZE_TOTAL: int = 32
    BATCH_SIZE: int = 1
    QUESTIONS: int = 1
    LR: float = 1e-4
    LR_END: float = 1e-6
    WARMUP: float = 0.03
    WEIGHT_DECAY: float = 0.0
    CLIP: float = 1.0
    MAX_LENGTH: int = 4096
    GROUP_BY_LENGTH: bool = True
    GRADIENT_CHECKPOINTING: bool = True
    SEED: int = 0
    LOG_EVERY: int = 10
    SAVE_EVERY: int = 500
    KEEP: int = 2
    EVAL_EVERY: int = 0
    WORKERS: int = 2
    TENSORBOARD: bool = False


@dataclass
class TrainSchema(EvalSchema):
    """Keys of training: those of an evaluation, which may happen on the way, and its own.

    Attributes:
        SAVE_DIR: folder of checkpoints and logs.
        RESUME_FROM: checkpoint directory to start from, in the released layout, ours, or of an earlier stage.
        RESUME: go on from the newest checkpoint in SAVE_DIR, if there is one.
        DATA: see `DataConfig`.
        LORA: see `LoRAConfig`.
        TRAIN: see `LoopConfig`.
    """

    SAVE_DIR: str = "outputs/train"
    RESUME: bool = False
    DATA: DataConfig = field(default_factory=DataConfig)
    LORA: LoRAConfig = field(default_factory=LoRAConfig)
    TRAIN: LoopConfig = field(default_factory=LoopConfig)


@dataclass
class TrainConfig(TrainSchema, EvalConfig):
    """A resolved configuration."""

    SCHEMA: ClassVar[type[EvalSchema]] = TrainSchema
    APART: ClassVar[tuple[str, ...]] = ()


def read_training(conf_files: Sequence[str | Path], overrides: Sequence[str]) -> tuple[TrainConfig, Catalog]:
    """Read the configuration of a training.

    Args:
        conf_files: YAML files; later ones win.
        overrides: ``KEY VALUE ...``, over all files.

    Raises:
        ConfigError: an unknown key, a value of another type or outside its choices.
    """
    config, catalog = read_configuration(conf_files, overrides, TrainConfig)
    _check(config)
    return config, catalog


def _check(config: TrainConfig) -> None:
    """Check what types alone do not say.

    Raises:
        ConfigError: naming the key and what it may be.
    """
    train, lora = config.TRAIN, config.LORA
    for key, value, allowed in (
        ("TRAIN.STAGE", train.STAGE, STAGES),
        ("TRAIN.CRAYON", train.CRAYON, CRAYONS),
        ("TRAIN.ADAPTERS", train.ADAPTERS, ADAPTERS),
    ):
        if value not in allowed:
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(allowed)}")
    unknown = [kind for kind in config.DATA.KINDS if kind not in KINDS]
    if unknown:
        raise ConfigError(f"DATA.KINDS: {unknown[0]!r} is not one of {', '.join(KINDS)}")
    if train.QUESTIONS > 1 and config.LLM.ATTENTION == "flash_attention_2":
        raise ConfigError("TRAIN.QUESTIONS above 1 hides questions from each other, which flash_attention_2 cannot do")
    least: tuple[tuple[str, float | None, float], ...] = (
        *((f"TRAIN.{name}", getattr(train, name), 1) for name in _FROM_ONE),
        *((f"TRAIN.{name}", getattr(train, name), 0) for name in _FROM_ZERO),
        ("LORA.R", lora.R, 1),
        ("LORA.ALPHA", lora.ALPHA, 1),
    )
    for key, number, lowest in least:
        if number is not None and number < lowest:
            raise ConfigError(f"{key}: must be at least {lowest:g}, got {number:g}")
    for key, share in (
        ("TRAIN.WARMUP", train.WARMUP),
        ("LORA.DROPOUT", lora.DROPOUT),
        ("DATA.SPOIL", config.DATA.SPOIL),
    ):
        if not 0 <= share < 1:
            raise ConfigError(f"{key}: must be from 0 to below 1, got {share:g}")
