"""The configuration of training: every key, its type, default and meaning. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from collavo.instructions import KINDS
from collavo.trainable_parts import IMAGE_CIT, PARTS, TARGETS, VL_CIT
from configs.common.field_types import Fraction, NonNegativeFloat, PathText, PositiveInt
from configs.common.words import quoted
from configs.load import ConfigError
from modeling.segmenters.xdecoder.training_options import XDecoderTrainingConfig
from pipeline.catalog import Catalog
from pipeline.config import EvalConfig, EvalSchema, read_configuration
from pipeline.runtime.options import MOST_THREADS

SHARDED_STAGES = ("cpt", "cit")
"""Those whose model may lie on the processes in shards."""
SHARED = "shared"
"""The one LoRA adapter of the ablation that trains both kinds of data with it."""
ADAPTER_NAMES = {"dual": (IMAGE_CIT, VL_CIT), "shared": (SHARED,), "vl_only": (VL_CIT,)}
"""TRAIN.ADAPTERS -> the LoRA adapters."""
SEGMENTER_STATE = "training.json"
"""File of a checkpoint of stage ``segmenter`` that keeps its step and settings."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]


@dataclass
class PanopticSource:
    """Images with exact panoptic maps in COCO's layout, from which crayon instructions are made.

    Attributes:
        ANNOTATIONS: panoptic JSON, e.g. coco/annotations/panoptic_train2017.json; this and other paths of DATA count
            from the working directory or else from a dataset folder.
        MAPS: folder of the PNGs that it names.
        IMAGES: folder of the images.
        MAX_SAMPLES: use at most so many images, drawn at random; None for all.
    """

    ANNOTATIONS: PathText = ""
    MAPS: PathText = ""
    IMAGES: PathText = ""
    MAX_SAMPLES: PositiveInt | None = None


@dataclass
class ConversationSource:
    """A file of conversations in any of the forms of ``datasets/instruct/llava.py``.

    Attributes:
        FILE: a JSON list, or JSON lines.
        IMAGES: folder that relative paths of images count from; empty: the file's own folder.
        NAME: of the source in the log; empty: the file's name without its suffix.
        WEIGHT: how often a pass takes each of its samples: 2 twice, 0.5 every other one.
        MAX_SAMPLES: use at most so many samples, drawn at random; None for all.
    """

    FILE: PathText = ""
    IMAGES: PathText = ""
    NAME: str = ""
    WEIGHT: Annotated[float, Field(gt=0, le=1000)] = 1.0
    MAX_SAMPLES: PositiveInt | None = None


@dataclass
class DataConfig:
    """What is learned from.

    Attributes:
        PANOPTIC: for crayon instructions (Image-CIT).
        CONVERSATIONS: for visual instructions (VL-CIT).
        KINDS: kinds of crayon instructions; empty for those of the stage. cpt: names, names_boxes, class_boxes; cit:
            these and class_binary, box_class, box_numbered (is a class there, which object is in a box).
        MAPS_CACHE: another name of SEGMENTER.CACHE, which keeps the maps that SEGMENTER makes for CONVERSATIONS.
        SPOIL: share of objects that are dropped from the maps that the model sees, and the same share renamed.
        VALIDATION: what the held-out loss is computed on: a share of every source, by image (0.02), which is then not
            trained on; or a file like those of CONVERSATIONS, whose image folders it shares. Empty for none.
    """

    PANOPTIC: PanopticSource = field(default_factory=PanopticSource)
    CONVERSATIONS: list[ConversationSource] = field(default_factory=list)
    KINDS: list[str] = field(default_factory=list)
    MAPS_CACHE: PathText = ""
    SPOIL: BelowOne = 0.0
    VALIDATION: PathText = ""

    @property
    def held_out_share(self) -> float:
        """``VALIDATION``, where it is a share; else 0."""
        try:
            return float(self.VALIDATION)
        except ValueError:
            return 0.0


@dataclass
class LoRAConfig:
    """The LoRA adapters of stage ``cit``.

    Attributes:
        R: rank.
        RANKS: of adapters that have another one, as {vl_cit: 32}.
        ALPHA: numerator of the scale.
        TARGETS: the decoder's linears that carry them, of wqkv, wo, w1, w2, w3; empty for all.
        DROPOUT: before the A matrices.
        FRESH: start new adapters where the checkpoint of RESUME_FROM has some, instead of training those further.
    """

    R: PositiveInt = 64
    RANKS: dict[str, PositiveInt] = field(default_factory=dict)
    ALPHA: PositiveInt = 64
    TARGETS: list[Literal["wqkv", "wo", "w1", "w2", "w3"]] = field(default_factory=list)
    DROPOUT: BelowOne = 0.0
    FRESH: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """``TARGETS``, each once, in the order of the decoder; all where none is named."""
        return tuple(name for name in TARGETS if name in self.TARGETS) or TARGETS


@dataclass
class LoopConfig:
    """How training goes.

    Attributes:
        STAGE: cpt trains the crayon prompt; cit trains it and the LoRA adapters; segmenter trains an X-Decoder.
        PARTS: what is trained besides the adapters: queries (the crayon prompt: its queries, MLP and pairs), projector,
            tower (the vision tower).
        CRAYON: which queries act: both, semantic, or none (ablation).
        IMAGE_SHARE: share of the updates of stage cit that are drawn for object-level instructions (Image-CIT); None
            for their share of all samples, so that a pass over the conversations is one over the images too.
        ADAPTERS: dual: one for each kind of data; shared: one for both; vl_only: visual instructions only.
        EPOCHS: passes over the visual instructions, or in the other stages over the annotated images, where STEPS is
            None.
        STEPS: updates; None to count them from EPOCHS.
        BATCH_SIZE_TOTAL: samples of an update, over all processes.
        BATCH_SIZE: samples that a process runs through the model at a time.
        QUESTIONS: how many questions about an image a sample holds. Each sees the image and itself alone, so that
            they share the cost of the image tokens: so many crayon instructions are made of an image, and
            conversations of one turn on the same image are put together. 1 is what the paper describes.
        PACK: put samples on several images into one row of at most MAX_LENGTH tokens, where they fit; none of them
            sees another, so that the loss is that of separate rows.
        LR: highest learning rate.
        LR_END: lowest, at the last update.
        WARMUP: share of the updates over which it rises.
        WEIGHT_DECAY: of AdamW.
        OPTIMIZER: adamw, or AdamW of bitsandbytes: adamw_8bit keeps its moments in 8 bits, paged_adamw and
            paged_adamw_8bit move them to the host's memory where the GPU's runs out.
        CLIP: largest norm of the gradient; 0 for no limit.
        NON_FINITE: stop: a loss or gradient that is NaN or infinite ends the training run; skip: such an update is left
            out and counted.
        MAX_SKIPPED: share of the samples that may be skipped because they cannot be used, after the first 100.
        ON_CHANGE: where RESUME finds a checkpoint of other settings or samples: refuse, or continue with the new ones.
        MAX_LENGTH: longest sample in tokens, image tokens included.
        GROUP_BY_LENGTH: put samples of similar length into a batch.
        GRADIENT_CHECKPOINTING: recompute activations in the backward pass.
        SEED: of weights, order, dropout and the choice of the adapter that an update trains.
        LOG_EVERY: updates between two lines of the log.
        SAVE_EVERY: updates between two checkpoints; the last update always has one.
        KEEP: how many checkpoints are kept; the one with the lowest held-out loss is kept next to them.
        VALIDATE_EVERY: updates between two computations of the held-out loss (DATA.VALIDATION); None for SAVE_EVERY.
        PATIENCE: end after so many of them in a row without a new lowest one; None to go on.
        EVAL_EVERY: updates between two evaluations on DATASETS.TEST; 0 for none.
        WORKERS: threads per process that prepare samples ahead.
        TENSORBOARD: log through Accelerate to TensorBoard, in SAVE_DIR.
    """

    STAGE: Literal["cpt", "cit", "segmenter"] = "cpt"
    PARTS: list[Literal["queries", "projector", "tower"]] = field(default_factory=lambda: ["queries"])
    CRAYON: Literal["both", "semantic", "none"] = "both"
    ADAPTERS: Literal["dual", "shared", "vl_only"] = "dual"
    IMAGE_SHARE: Fraction | None = 0.5
    EPOCHS: NonNegativeFloat = 1.0
    STEPS: PositiveInt | None = None
    BATCH_SIZE_TOTAL: PositiveInt = 32
    BATCH_SIZE: PositiveInt = 1
    QUESTIONS: PositiveInt = 1
    PACK: bool = False
    LR: NonNegativeFloat = 1e-4
    LR_END: NonNegativeFloat = 1e-6
    WARMUP: BelowOne = 0.03
    WEIGHT_DECAY: NonNegativeFloat = 0.0
    OPTIMIZER: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    CLIP: NonNegativeFloat = 1.0
    NON_FINITE: Literal["stop", "skip"] = "stop"
    MAX_SKIPPED: Fraction = 0.05
    ON_CHANGE: Literal["refuse", "continue"] = "refuse"
    MAX_LENGTH: PositiveInt = 4096
    GROUP_BY_LENGTH: bool = True
    GRADIENT_CHECKPOINTING: bool = True
    SEED: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    LOG_EVERY: PositiveInt = 10
    SAVE_EVERY: PositiveInt = 500
    KEEP: PositiveInt = 2
    VALIDATE_EVERY: PositiveInt | None = None
    PATIENCE: PositiveInt | None = None
    EVAL_EVERY: Annotated[int, Field(ge=0)] = 0
    WORKERS: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 2
    TENSORBOARD: bool = False


@dataclass
class TrainSchema(EvalSchema):
    """Keys of training: those of an evaluation, which may happen on the way, and its own.

    Attributes:
        SAVE_DIR: folder of checkpoints and logs.
        RESUME_FROM: checkpoint directory to start from: in the released layout, ours, InternLM-XComposer2-VL, or of an
            earlier stage; of stage segmenter an X-Decoder as SEGMENTER.PATH takes it, or empty for a fresh one.
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
    return with_cache(config), catalog


def with_cache(config: TrainConfig) -> TrainConfig:
    """A configuration whose ``SEGMENTER.CACHE`` is what ``DATA.MAPS_CACHE`` says, where that is set.

    Raises:
        ConfigError: the two name different folders.
    """
    alias, cache = config.DATA.MAPS_CACHE, config.SEGMENTER.CACHE
    if not alias:
        return config
    if cache and cache != alias:
        raise ConfigError(
            f"DATA.MAPS_CACHE {quoted(alias)} is another name of SEGMENTER.CACHE, which is {quoted(cache)}; set one"
        )
    return replace(config, SEGMENTER=replace(config.SEGMENTER, CACHE=alias))


def _check(config: TrainConfig) -> None:
    """Check what types alone do not say.

    Raises:
        ConfigError: naming the key and what it may be.
    """
    train = config.TRAIN
    unknown = [kind for kind in config.DATA.KINDS if kind not in KINDS]
    if unknown:
        raise ConfigError(f"DATA.KINDS: {quoted(unknown[0])} is not one of {', '.join(KINDS)}")
    if rows_are_masked(config) and config.LLM.ATTENTION == "flash_attention_2":
        key = "TRAIN.PACK True" if train.PACK else "TRAIN.QUESTIONS above 1"
        raise ConfigError(f"{key} hides parts of a row from each other, which flash_attention_2 cannot do")
    _check_validation(config)
    if unknown := sorted(set(config.LORA.RANKS) - set(ADAPTER_NAMES[train.ADAPTERS])):
        raise ConfigError(
            f"LORA.RANKS: {quoted(unknown[0])} is no adapter of TRAIN.ADAPTERS {train.ADAPTERS}; there are "
            f"{', '.join(ADAPTER_NAMES[train.ADAPTERS])}"
        )
    if (train.STAGE, train.CRAYON) == ("cpt", "none"):
        raise ConfigError("TRAIN.STAGE cpt trains the crayon prompt, TRAIN.CRAYON none leaves nothing to train")
    _check_parts(config)
    if train.LR_END > train.LR:
        raise ConfigError(f"TRAIN.LR_END {train.LR_END:g} is above TRAIN.LR {train.LR:g}; the rate falls to LR_END")
    _check_scale(config.XDECODER.SCALE)


def base_parts(config: TrainConfig) -> tuple[str, ...]:
    """Parts of the base checkpoint that are trained."""
    return tuple(part for part in PARTS if part in config.TRAIN.PARTS)


def _check_parts(config: TrainConfig) -> None:
    """Check what is trained besides the adapters."""
    train = config.TRAIN
    if train.STAGE == "cpt" and not train.PARTS:
        raise ConfigError("TRAIN.PARTS: stage cpt has no adapters; name at least one of queries, projector, tower")
    if base_parts(config) and train.EVAL_EVERY and config.LLM.DTYPE != "fp32":
        raise ConfigError(
            f"TRAIN.EVAL_EVERY: {', '.join(base_parts(config))} is trained in float32, which cannot answer in "
            f"{config.LLM.DTYPE} on the way; evaluate the checkpoints with eval, or set LLM.DTYPE fp32"
        )


def lora_record(lora: LoRAConfig) -> list[Any]:
    """What a continuation must have in common with what it continues; rank, alpha and dropout where that is all."""
    record: list[Any] = [lora.R, lora.ALPHA, lora.DROPOUT]
    if lora.RANKS or lora.targets != TARGETS:
        record += [dict(lora.RANKS), list(lora.targets)]
    return record


def rows_are_masked(config: TrainConfig) -> bool:
    """Whether rows have parts that do not see each other."""
    return config.TRAIN.QUESTIONS > 1 or config.TRAIN.PACK


def _check_validation(config: TrainConfig) -> None:
    """Check the keys of the held-out loss."""
    train, share = config.TRAIN, config.DATA.VALIDATION
    if not share:
        for key in ("VALIDATE_EVERY", "PATIENCE"):
            if getattr(train, key) is not None:
                raise ConfigError(f"TRAIN.{key} is about the held-out loss; set DATA.VALIDATION")
        return
    if train.STAGE == "segmenter":
        raise ConfigError("DATA.VALIDATION: stage segmenter has no held-out loss; measure coco_panoptic_val with eval")
    try:
        number = float(share)
    except ValueError:
        if train.STAGE == "cpt":
            raise ConfigError(
                "DATA.VALIDATION: stage cpt learns from no conversations; hold out a share of its images, like 0.02"
            ) from None
        return
    if not 0 < number < 1:
        raise ConfigError(f"DATA.VALIDATION: a share lies between 0 and 1, {quoted(share)} does not")


def _check_scale(scale: Sequence[float]) -> None:
    if scale and not (len(scale) == 2 and 0 < scale[0] <= scale[1]):
        raise ConfigError(f"XDECODER.SCALE: two numbers above 0 in rising order, or none, not {quoted(list(scale))}")
