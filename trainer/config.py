"""The configuration of training: every key, its type, default and meaning. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from collavo.instructions import KINDS
from configs.common.words import quoted
from configs.load import ConfigError
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
class XDecoderConfig:
    """Stage ``segmenter``: an X-Decoder and what it is taught by. Its classes are those of ``DATA.PANOPTIC``.

    Attributes:
        SIZES: of a fresh model, where RESUME_FROM is empty: what the config.json of one holds; empty for Focal-T.
        VOCABULARY: of a fresh model's text encoder: clip: CLIP's 49408 tokens; classes: those of the classes' prompts
            alone, numbered anew, which keeps a small model small but lets it read no other names.
        TEMPLATES: how many of the 81 prompt templates are used; one per class is drawn for each update, and the mean
            over all of them is a class's embedding afterwards.
        LOGIT_SCALE: logarithm of what a fresh model multiplies cosines by.
        TRAIN_TEXT: train the text encoder too.
        BACKBONE_FACTOR: learning rate of the backbone over TRAIN.LR.
        CLASS_WEIGHT: of the class loss, and of its part in the matching.
        MASK_WEIGHT: of the masks' cross-entropy, also in the matching.
        DICE_WEIGHT: of the dice loss, also in the matching.
        NO_OBJECT: weight of queries without a segment in the class loss.
        FOCAL_GAMMA: exponent of the focal loss of classes; 0 for plain cross-entropy.
        POINTS: at which a mask is compared.
        OVERSAMPLE: candidates per point, of which those that a mask is least sure of are taken.
        IMPORTANCE: share of the points that are taken so; the rest is drawn evenly.
        SIDE: images become squares of so many pixels; a multiple of 32.
        SCALE: lowest and highest size, over SIDE, that an image is given at random before the square is cut out of it
            (or filled up); empty: its longer side becomes SIDE.
        FLIP: mirror every other image.
        DTYPE: of the forward pass, fp32 or bf16; weights are float32.
    """

    SIZES: dict[str, Any] = field(default_factory=dict)
    VOCABULARY: Literal["clip", "classes"] = "clip"
    TEMPLATES: FromOne = 81
    LOGIT_SCALE: float = 1.0
    TRAIN_TEXT: bool = True
    BACKBONE_FACTOR: FromZero = 0.1
    CLASS_WEIGHT: FromZero = 2.0
    MASK_WEIGHT: FromZero = 5.0
    DICE_WEIGHT: FromZero = 5.0
    NO_OBJECT: FromZero = 0.1
    FOCAL_GAMMA: FromZero = 0.0
    POINTS: FromOne = 12544
    OVERSAMPLE: Annotated[float, Field(ge=1)] = 3.0
    IMPORTANCE: Share = 0.75
    SIDE: Annotated[int, Field(ge=32, multiple_of=32)] = 1024
    SCALE: list[float] = field(default_factory=lambda: [0.1, 2.0])
    FLIP: bool = True
    DTYPE: Literal["fp32", "bf16"] = "bf16"


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
        XDECODER: see `XDecoderConfig`.
        TRAIN: see `LoopConfig`.
    """

    SAVE_DIR: PathText = "outputs/train"
    RESUME: bool = False
    DATA: DataConfig = field(default_factory=DataConfig)
    LORA: LoRAConfig = field(default_factory=LoRAConfig)
    XDECODER: XDecoderConfig = field(default_factory=XDecoderConfig)
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
