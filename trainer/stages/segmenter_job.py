"""Stage ``segmenter``: an X-Decoder, its data, and its checkpoints, which `SEGMENTER.PATH` takes as they are.

SAVE_DIR/checkpoints/step-00000500/
    config.json, model.safetensors    sizes and weights
    class_embeddings.safetensors      of the classes that it was trained on, by its text encoder
    prompts.json                      token ids of a vocabulary of its own, if it has one
    training.json                     step, and the settings that a continuation must share
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from collavo.checkpoint.finetuned_checkpoint import read_file
from collavo.checkpoint.names import read_json
from collavo.checkpoint.sizes import StrictJson, validated
from collavo.errors import CheckpointError
from configs.load import ConfigError
from datasets.instruct.segments import AnnotatedClass, SegmentedImage, read_classes, read_segments
from datasets.instruct.types import MissingImageRecord
from datasets.registration.formats.files import without_bad
from datasets.types import DataError
from modeling.segmenters.coco import COCO_PANOPTIC, coco_index
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.xdecoder.checkpoint import (
    PROMPTS,
    TEXT_PREFIX,
    WEIGHTS,
    KeptEmbeddings,
    load_model,
    save_model,
    text_digest,
)
from modeling.segmenters.xdecoder.classes import class_list
from modeling.segmenters.xdecoder.config import FOCAL_T, XDecoderConfig
from modeling.segmenters.xdecoder.model import XDecoder
from modeling.segmenters.xdecoder.prompts import (
    COCO_TABLE,
    PromptTable,
    class_embeddings,
    lengths_of,
    prompt_names,
    prompt_reader,
)
from modeling.segmenters.xdecoder.training import XDecoderInTraining, fresh_network

from ..config import SEGMENTER_STATE as STATE
from ..config import TrainConfig
from ..data.paths import located
from ..data.segmentation import ADAPTER, SegmentationData
from ..data.sources import announce_source, report_source
from ..held_out import HeldOutData
from ..loop import TrainingData, Update
from ..optimizer import FACTOR
from ..parallel.placement import Placement
from ..parallel.trainable import Parameters, num_weights
from .segmenter_cost import SegmenterCost

if TYPE_CHECKING:
    from pipeline.run.plan import Plan
    from pipeline.runtime.session import Session

_NETWORK = "network."
_BACKBONE = f"{_NETWORK}backbone."
_TABLES = ("query_start", "query_position", "level_embedding", "token_embedding.weight", "position_embedding")
"""Embeddings, which do not decay, nor do norms and biases."""
_CONTINUED = ("STAGE", "BATCH_SIZE_TOTAL", "LR", "LR_END", "WARMUP", "WEIGHT_DECAY", "CLIP", "SEED")


class _Progress(StrictJson):
    """`STATE`."""

    step: Annotated[int, Field(ge=0, le=2**40)]
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StartingNetwork:
    """The network that a training run starts from.

    Attributes:
        network: in float32.
        table: what its text encoder reads.
        own: whether that is a vocabulary of its own.
        identity: of the weights.
    """

    network: XDecoder
    table: PromptTable
    own: bool
    identity: str


class SegmenterJob:
    """See `trainer.stages.base.StageJob`.

    Args:
        config: resolved.
        start: the network.
        data: its batches.
        classes: names, in the order of the logits, and those of them that are stuff.
        ids: token ids of all classes' prompts, int64 (K + 1, T, L).
        device: of this process.
    """

    labels = "masks"
    held_out: HeldOutData | None = None
    image_tokens: int = 0

    def __init__(
        self,
        config: TrainConfig,
        start: StartingNetwork,
        data: SegmentationData,
        classes: tuple[tuple[str, ...], tuple[str, ...]],
        ids: Tensor,
        device: torch.device,
    ) -> None:
        self._config, self._start, self._classes, self._ids = config, start, classes, ids
        settings = config.XDECODER
        self.model: nn.Module = XDecoderInTraining(start.network, settings, text_trains=settings.TRAIN_TEXT).to(device)
        self.data: TrainingData = data
        self._num_images = data.num_samples
        self.adapters: Mapping[str, Sequence[Parameters]] = {ADAPTER: _groups(self.model, settings.TRAIN_TEXT)}
        self.steps: int = _steps(config, data.num_samples)
        self.autocast: torch.dtype | None = torch.bfloat16 if settings.DTYPE == "bf16" else None

    def resume_settings(self) -> dict[str, Any]:
        """See `StageJob.resume_settings`."""
        config = self._config
        return {
            **{f"TRAIN.{name}": getattr(config.TRAIN, name) for name in _CONTINUED},
            **{f"XDECODER.{name}": _plain(value) for name, value in vars(config.XDECODER).items() if name != "SIZES"},
            "steps": self.steps,
            "sizes": self._start.network.config.to_dict(),
            "DATA.PANOPTIC.ANNOTATIONS": config.DATA.PANOPTIC.ANNOTATIONS,
            "classes": list(self._classes[0]),
            "start": self._start.identity,
        }

    def read_progress(self, folder: Path) -> tuple[int, Mapping[str, Any]]:
        """See `StageJob.read_progress`."""
        said = validated(_Progress, read_json(folder / STATE), f"{folder / STATE}: not what stage segmenter left")
        return said.step, said.settings

    def load_weights(self, folder: Path) -> None:
        """See `StageJob.load_weights`."""
        try:
            self._start.network.load_state_dict(read_file(folder / WEIGHTS))
        except RuntimeError as error:
            raise CheckpointError(f"{folder / WEIGHTS}: cannot be gone on from ({error})") from error

    def train_mode(self) -> None:
        """See `StageJob.train_mode`."""
        self.model.train()

    def group_settings(self, group: Parameters) -> Mapping[str, Any]:
        """See `StageJob.group_settings`."""
        name, parameter = next(iter(group.items()))
        factor = self._config.XDECODER.BACKBONE_FACTOR if name.startswith(_BACKBONE) else 1.0
        return {FACTOR: factor, "weight_decay": self._config.TRAIN.WEIGHT_DECAY if _decays(name, parameter) else 0.0}

    def checkpoint_writer(self, placement: Placement, step: int) -> Callable[[Path], None]:
        """See `StageJob.checkpoint_writer`."""
        network = self._start.network

        def write(folder: Path) -> None:
            save_model(folder, network, self._kept(network))
            if self._start.own:
                self._start.table.write(folder / PROMPTS)
            state = {"step": step, "settings": self.resume_settings()}
            (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

        return write

    def _kept(self, network: XDecoder) -> KeptEmbeddings:
        """The classes as the text encoder now embeds them."""
        names, stuff = self._classes
        return class_embeddings_of(network, names, stuff, self._ids)

    def memory_in_words(self, processes: int, there: int) -> str:
        """See `StageJob.memory_in_words`; it is not counted."""
        return ""

    def flops(self, update: Update) -> float | None:
        """See `StageJob.flops`."""
        return self._cost.of(update.samples)

    @cached_property
    def _cost(self) -> SegmenterCost:
        settings = self._config.XDECODER
        length = int(lengths_of(self._ids.flatten(0, 1)).max())
        return SegmenterCost.of_network(
            self._start.network.config, settings.SIDE, (len(self._ids), length), text_trains=settings.TRAIN_TEXT
        )

    def describe(self, moving: Parameters) -> str:
        """See `StageJob.describe`."""
        number, total = num_weights(moving.values()), num_weights(self.model.parameters())
        return (
            f"{number / 1e6:.2f} of {total / 1e6:.2f} million parameters are trained on {len(self._classes[0])} "
            f"classes; {self._num_images} images"
        )

    def evaluate(self, plan: Plan, session: Session, step: int) -> None:
        """There are no benchmarks on the way, see `trainer.check`."""
        raise ConfigError("TRAIN.EVAL_EVERY: stage segmenter answers no benchmarks")


def load_segmenter(config: TrainConfig, device: torch.device) -> SegmenterJob:
    """Load the network and the data.

    Args:
        config: resolved.
        device: of this process.

    Raises:
        ConfigError, DataError, SegmenterError: something is missing or does not fit.
    """
    source = config.DATA.PANOPTIC
    for name in ("ANNOTATIONS", "MAPS", "IMAGES"):
        if not getattr(source, name):
            raise ConfigError(f"DATA.PANOPTIC.{name}: is needed to learn to segment (COCO panoptic layout)")
    file = located(config, source.ANNOTATIONS)
    annotated = _in_order(read_classes(file))
    names = tuple(one.name for one in annotated)
    stuff = tuple(one.name for one in annotated if not one.is_thing)
    class_list(names, stuff)  # names that are no good fail here rather than after training
    wanted = prompt_names(names)
    start = _start(config, wanted)
    text = start.network.config.text
    reader = prompt_reader(wanted, start.table, "" if start.own else config.SEGMENTER.TOKENIZER)
    ids = reader.ids(wanted, text.context_length)
    data = SegmentationData(
        _segmented_images(file, located(config, source.MAPS), located(config, source.IMAGES), source.ANNOTATIONS),
        {one.id: index for index, one in enumerate(annotated)},
        ids,
        start.network.config,
        config.XDECODER,
        config.TRAIN,
    )
    return SegmenterJob(config, start, data, (names, stuff), ids, device)


def class_embeddings_of(
    network: XDecoder, names: tuple[str, ...], stuff: tuple[str, ...], ids: Tensor
) -> KeptEmbeddings:
    """The embeddings of some classes, as they lie next to a checkpoint.

    Args:
        network: with its text encoder.
        names: without the background.
        stuff: those of them that are stuff.
        ids: token ids of their prompts and the background's, int64 (K + 1, T, L).
    """
    with torch.inference_mode():
        vectors = class_embeddings(network.text_encoder, ids)
    digest = text_digest({key: value for key, value in network.state_dict().items() if key.startswith(TEXT_PREFIX)})
    return KeptEmbeddings(classes=names, stuff=stuff, vectors=vectors, text_digest=digest)


def _start(config: TrainConfig, wanted: Sequence[str]) -> StartingNetwork:
    """The network of RESUME_FROM, or a fresh one."""
    settings = config.XDECODER
    if config.RESUME_FROM:
        loaded = load_model(Path(config.RESUME_FROM))
        if not loaded.has_text_encoder:
            raise SegmenterError(f"RESUME_FROM: {config.RESUME_FROM} has no text encoder, which training needs")
        table = PromptTable.load(loaded.prompts or COCO_TABLE).first(settings.TEMPLATES)
        return StartingNetwork(
            network=loaded.model, table=table, own=loaded.prompts is not None, identity=loaded.digest
        )
    try:
        sizes = XDecoderConfig.from_dict(_plain(settings.SIZES)) if settings.SIZES else FOCAL_T
    except SegmenterError as error:
        raise ConfigError(f"XDECODER.SIZES: {error}") from error
    table, own = PromptTable.load().first(settings.TEMPLATES), settings.VOCABULARY == "classes"
    if own:
        table = table.renumbered(wanted)
        text = replace(sizes.text, vocab_size=table.eos + 1, bos_id=table.bos, eos_id=table.eos, pad_id=table.eos)
        sizes = replace(sizes, text=text)
    network = fresh_network(sizes, config.TRAIN.SEED, settings.LOGIT_SCALE)
    return StartingNetwork(network=network, table=table, own=own, identity="fresh")


def _in_order(classes: Sequence[AnnotatedClass]) -> list[AnnotatedClass]:
    """COCO's own classes in its order, then the others in that of the file."""
    rows = [coco_index(one.name) for one in classes]
    return [one for _, one in sorted(zip(rows, classes, strict=True), key=lambda pair: _place(pair[0]))]


def _place(row: int | None) -> int:
    return len(COCO_PANOPTIC) if row is None else row


def _segmented_images(file: Path, maps: Path, images: Path, name: str) -> list[SegmentedImage]:
    """The images of a file; what is skipped is said.

    Raises:
        DataError: there are none.
    """
    announce_source(name)
    found, bad = without_bad(read_segments(file, maps, images))
    missing = sum(isinstance(item, MissingImageRecord) for item in bad)
    malformed = f"; {len(bad) - missing} malformed records skipped" if len(bad) > missing else ""
    report_source(name, f"{len(found)} images; {missing} skipped, they are missing{malformed}", bad)
    if not found:
        raise DataError(f"{file}: none of its images is in {images}")
    return found


def _groups(model: nn.Module, text_trains: bool) -> list[Parameters]:
    """All that is trained, by whether it is of the backbone and whether it decays."""
    found: dict[tuple[bool, bool], Parameters] = {}
    for name, parameter in model.named_parameters():
        if text_trains or not name.startswith(f"{_NETWORK}{TEXT_PREFIX}"):
            found.setdefault((name.startswith(_BACKBONE), _decays(name, parameter)), {})[name] = parameter
    return list(found.values())


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(_TABLES)


def _steps(config: TrainConfig, num_samples: int) -> int:
    if config.TRAIN.STEPS is not None:
        return config.TRAIN.STEPS
    return max(1, round(config.TRAIN.EPOCHS * num_samples / config.TRAIN.BATCH_SIZE_TOTAL))


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
