"""The configuration of training: every key, its type, default and meaning. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from collavo.instructions import KINDS
from configs.common.words import quoted
from configs.load import ConfigError
from modeling.segmenters.xdecoder.training_options import XDecoderTrainingConfig
from pipeline.catalog import Catalog
from pipeline.config import MOST_THREADS, EvalConfig, EvalSchema, FromOne, FromZero, PathText, read_configuration

SHARDED_STAGES = ("cpt", "cit")
"""Those whose model may lie on the processes in shards."""
SEGMENTER_STATE = "training.json"
"""File of a checkpoint of stage ``segmenter`` that keeps its step and settings."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass
class PanopticSource:
    """Images with exact panoptic maps in COCO's layout, from which crayon instructions are made.

    Attributes:
        ANNOTATIONS: panoptic JSON, e.g. coco/annotations/panoptic_train2017.json; this and other paths of DATA count
            from the working directory or else from a dataset folder.
        MAPS: folder of the PNGs that it names.
        IMAGES: folder of the images.
    """

    ANNOTATIONS: PathText = ""
    MAPS: PathText = ""
    IMAGES: PathText = ""


@dataclass
class ConversationSource:
    """A file of conversations, as LLaVA and ShareGPT4V release them.

    Attributes:
        FILE: JSON.
        IMAGES: folder that the images' paths in it count from.
    """

    FILE: PathText = ""
    IMAGES: PathText = ""


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
    MAPS_CACHE: PathText = "outputs/maps"
    SPOIL: BelowOne = 0.0


@dataclass
class LoRAConfig:
    """The LoRA adapters of stage ``cit``.

    Attributes:
        R: rank.
        ALPHA: numerator of the scale.
        DROPOUT: before the A matrices.
    """

    R: FromOne = 64
    ALPHA: FromOne = 64
    DROPOUT: BelowOne = 0.0


@dataclass
class LoopConfig:
    """How training goes.

    Attributes:
        STAGE: cpt trains the crayon prompt; cit trains it and the LoRA adapters; segmenter trains an X-Decoder.
        CRAYON: which queries act: both, semantic, or none (ablation).
        IMAGE_SHARE: share of the updates of stage cit that are drawn for object-level instructions (Image-CIT).
        ADAPTERS: dual: a set for each kind of data; shared: one set for both; vl_only: visual instructions only.
        EPOCHS: passes over the data, where STEPS is None.
        STEPS: updates; None to count them from EPOCHS.
        BATCH_SIZE_TOTAL: samples of an update, over all processes.
        BATCH_SIZE: samples that a process runs through the model at a time.
        QUESTIONS: how many questions about an image a sample holds. Each sees the image and itself alone, so that
            they share the cost of the image tokens: so many crayon instructions are made of an image, and
            conversations of one turn on the same image are put together. 1 is what the paper describes.
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

    STAGE: Literal["cpt", "cit", "segmenter"] = "cpt"
    CRAYON: Literal["both", "semantic", "none"] = "both"
    ADAPTERS: Literal["dual", "shared", "vl_only"] = "dual"
    IMAGE_SHARE: Share = 0.5
    EPOCHS: FromZero = 1.0
    STEPS: FromOne | None = None
    BATCH_SIZE_TOTAL: FromOne = 32
    BATCH_SIZE: FromOne = 1
    QUESTIONS: FromOne = 1
    LR: FromZero = 1e-4
    LR_END: FromZero = 1e-6
    WARMUP: BelowOne = 0.03
    WEIGHT_DECAY: FromZero = 0.0
    CLIP: FromZero = 1.0
    MAX_LENGTH: FromOne = 4096
    GROUP_BY_LENGTH: bool = True
    GRADIENT_CHECKPOINTING: bool = True
    SEED: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    LOG_EVERY: FromOne = 10
    SAVE_EVERY: FromOne = 500
    KEEP: FromOne = 2
    EVAL_EVERY: Annotated[int, Field(ge=0)] = 0
    WORKERS: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 2
    TENSORBOARD: bool = False


@dataclass
class TrainSchema(EvalSchema):
    """Keys of training: those of an evaluation, which may happen on the way, and its own.

    Attributes:
        SAVE_DIR: folder of checkpoints and logs.
        RESUME_FROM: checkpoint directory to start from, in the released layout, ours, or of an earlier stage; of stage
            segmenter an X-Decoder as SEGMENTER.PATH takes it, or empty for a fresh one.
        RESUME: go on from the newest checkpoint in SAVE_DIR, if there is one.
        DATA: see `DataConfig`.
        LORA: see `LoRAConfig`.
        XDECODER: see `modeling.segmenters.xdecoder.training_options.XDecoderTrainingConfig`.
        TRAIN: see `LoopConfig`.
    """

    SAVE_DIR: PathText = "outputs/train"
    RESUME: bool = False
    DATA: DataConfig = field(default_factory=DataConfig)
    LORA: LoRAConfig = field(default_factory=LoRAConfig)
    XDECODER: XDecoderTrainingConfig = field(default_factory=XDecoderTrainingConfig)
    TRAIN: LoopConfig = field(default_factory=LoopConfig)


@dataclass
class TrainConfig(TrainSchema, EvalConfig):
    """A resolved configuration."""

    SCHEMA: ClassVar[type[EvalSchema]] = TrainSchema
    APART: ClassVar[tuple[str, ...]] = ()


def read_training(conf_files: Sequence[str | Path], overrides: Sequence[str]) -> tuple[TrainConfig, Catalog]:
    """Read the configuration of a training run.

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
    train = config.TRAIN
    unknown = [kind for kind in config.DATA.KINDS if kind not in KINDS]
    if unknown:
        raise ConfigError(f"DATA.KINDS: {quoted(unknown[0])} is not one of {', '.join(KINDS)}")
    if train.QUESTIONS > 1 and config.LLM.ATTENTION == "flash_attention_2":
        raise ConfigError("TRAIN.QUESTIONS above 1 hides questions from each other, which flash_attention_2 cannot do")
    if (train.STAGE, train.CRAYON) == ("cpt", "none"):
        raise ConfigError("TRAIN.STAGE cpt trains the crayon prompt, TRAIN.CRAYON none leaves nothing to train")
    if train.LR_END > train.LR:
        raise ConfigError(f"TRAIN.LR_END {train.LR_END:g} is above TRAIN.LR {train.LR:g}; the rate falls to LR_END")
    _check_scale(config.XDECODER.SCALE)


def _check_scale(scale: Sequence[float]) -> None:
    if scale and not (len(scale) == 2 and 0 < scale[0] <= scale[1]):
        raise ConfigError(f"XDECODER.SCALE: two numbers above 0 in rising order, or none, not {quoted(list(scale))}")
