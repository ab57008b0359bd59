"""What is wrong with a checkpoint, found out in seconds: before any of its weights is read.

`describe_checkpoint` reads headers and JSON alone, and loads no torch; `examine_checkpoint` builds the model without
storage and the processor too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from configs.common.words import quoted, shown, some_of
from modeling.stored_tensor import StoredTensor

from ..errors import CheckpointError, as_checkpoint_error
from ..template import CHAT, IMAGE_TAG, Template
from ..trainable_parts import is_crayon
from .finetuned_checkpoint import TrainingState, check_trained, is_trained, read_state
from .location import locate
from .names import describe_tensors, is_released_layout, read_json
from .sizes import HasShape, Sizes, read_sizes

if TYPE_CHECKING:
    from ..config import CoLLaVOConfig
    from ..model import CoLLaVOForConditionalGeneration
    from ..processing import CoLLaVOProcessor

_FEW = 5
_QUESTION = "Is there a dog in the image?"


@dataclass(frozen=True, kw_only=True)
class DescribedCheckpoint:
    """A checkpoint by its headers.

    Attributes:
        folder: as it was named.
        base: the whole checkpoint: the same, or the one that a training run started from.
        state: of a training run; None for a whole checkpoint.
        sizes: of the model.
        tensors: our parameter name -> its file and description.
        lacking: shapes of the crayon prompt's parameters, where the base has none; {} where it has them.
    """

    folder: Path
    base: Path
    state: TrainingState | None
    sizes: Sizes
    tensors: Mapping[str, tuple[Path, StoredTensor]]
    lacking: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExaminedCheckpoint:
    """A checkpoint that can be loaded.

    Attributes:
        described: see there.
        config: of the model.
        blank: the model without storage.
        processor: of the model.
    """

    described: DescribedCheckpoint
    config: CoLLaVOConfig
    blank: CoLLaVOForConditionalGeneration
    processor: CoLLaVOProcessor


@dataclass(frozen=True)
class _Shape:
    """What a tensor that is not there would be like."""

    shape: tuple[int, ...]


def describe_checkpoint(folder: Path, *, fresh_crayon: bool = False) -> DescribedCheckpoint:
    """Read a checkpoint's JSON files and the headers of its tensors, and compare them. Loads no torch.

    Args:
        folder: a whole checkpoint in either layout, or what a training run left.
        fresh_crayon: whether a whole checkpoint without any crayon prompt will do, since a fresh one is to be trained.

    Raises:
        CheckpointError: something is missing, malformed or does not fit.
    """
    folder = locate(folder)
    state = read_state(folder) if is_trained(folder) else None
    base = folder if state is None else Path(state.started_from)
    tensors = describe_tensors(base)
    values = read_json(base / "config.json")
    lacking = {} if any(map(is_crayon, tensors)) else _fresh_shapes(values, tensors)
    if lacking and state is None and not fresh_crayon:
        raise CheckpointError(f"{base}: the checkpoint has no crayon prompt; train one first (TRAIN.STAGE cpt)")
    shapes: dict[str, HasShape] = {name: stored for name, (_, stored) in tensors.items()}
    shapes |= {name: _Shape(shape) for name, shape in lacking.items()}
    sizes = read_sizes(values, shapes, released=is_released_layout(base), where=base)
    if state is not None:
        check_trained(folder, state, shapes)
    return DescribedCheckpoint(folder=folder, base=base, state=state, sizes=sizes, tensors=tensors, lacking=lacking)


def _fresh_shapes(
    values: Mapping[str, object], tensors: Mapping[str, tuple[Path, StoredTensor]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of a crayon prompt for a checkpoint without one: its pairs are as large as those of the image tokens.

    Args:
        values: of its ``config.json``, which may say the sizes of the tables.
        tensors: of the checkpoint.
    """
    embeddings = tensors.get("language_model.embed_tokens.weight")
    if embeddings is None or len(embeddings[1].shape) != 2:
        return {}  # what is wrong is said later
    usual = Sizes()
    width, semantic, numbering = (
        value if isinstance(value := values.get(name), int) and 0 < value < 2**24 else getattr(usual, name)
        for name in ("crayon_width", "semantic_rows", "numbering_rows")
    )
    hidden = embeddings[1].shape[1]
    found: dict[str, tuple[int, ...]] = {
        "crayon.semantic.weight": (semantic, width),
        "crayon.numbering.weight": (numbering, width),
        "crayon.projector.0.weight": (hidden, width),
        "crayon.projector.0.bias": (hidden,),
        "crayon.projector.2.weight": (hidden, hidden),
        "crayon.projector.2.bias": (hidden,),
    }
    for name, (_, stored) in tensors.items():
        if ".image_" in name and ".w2." not in name:  # nothing brings the crayon prompt into the last linear
            found[name.replace(".image_", ".crayon_")] = tuple(stored.shape)
    return found


def examine_checkpoint(folder: Path, template: Template = CHAT, *, fresh_crayon: bool = False) -> ExaminedCheckpoint:
    """Find out whether a checkpoint can be loaded and asked.

    Args:
        folder: see `describe_checkpoint`.
        template: of the prompts.
        fresh_crayon: see `describe_checkpoint`.

    Raises:
        CheckpointError: see `describe_checkpoint`; or a parameter is missing, unknown or misfits, or the tokenizer or
            the image size is not the model's.
    """
    import torch

    from ..config import CoLLaVOConfig
    from ..model import CoLLaVOForConditionalGeneration
    from ..processing import CoLLaVOProcessor

    described = describe_checkpoint(folder, fresh_crayon=fresh_crayon)
    config = CoLLaVOConfig(**described.sizes.model_dump())
    with torch.device("meta"):
        blank = CoLLaVOForConditionalGeneration(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
    found = {name: stored.shape for name, (_, stored) in described.tensors.items()}
    check_parameters(wanted, {**found, **described.lacking}, described.base)
    processor = CoLLaVOProcessor.from_pretrained(described.base)
    check_processor(config, processor, described.base, template)
    return ExaminedCheckpoint(described=described, config=config, blank=blank, processor=processor)


def check_parameters(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], checkpoint: Path
) -> None:
    """Every parameter must be there in its shape: the library would fill gaps with random numbers.

    Raises:
        CheckpointError: naming the first misfits.
    """
    missing = [name for name in wanted if name not in found]
    surplus = [shown(name) for name in found if name not in wanted]
    misfits = [
        f"{name} is {found[name]}, not {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    for what, names in (("lacks", missing), ("has unknown", surplus), ("misfits:", misfits)):
        if names:
            raise CheckpointError(f"{checkpoint}: the checkpoint {what} {some_of(names, _FEW)}")


def check_processor(
    config: CoLLaVOConfig, processor: CoLLaVOProcessor, directory: Path, template: Template = CHAT
) -> None:
    """Tokenizer, template and image size must be those that the weights were made with.

    Raises:
        CheckpointError: they are not.
    """
    image_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TAG)
    if image_id != config.image_token_id:
        raise CheckpointError(
            f"{directory}: the tokenizer gives {IMAGE_TAG} the id {image_id}, the model expects {config.image_token_id}"
        )
    if (processor.image_size, processor.patch_size) != (config.image_size, config.vision.patch_size):
        raise CheckpointError(
            f"{directory}: the processor makes images of {processor.image_size} px in patches of "
            f"{processor.patch_size}, the model expects {config.image_size} in patches of {config.vision.patch_size}"
        )
    if len(processor.tokenizer) > config.text.embedding_rows:
        raise CheckpointError(
            f"{directory}: the tokenizer has {len(processor.tokenizer)} ids, the model's embedding table "
            f"{config.text.embedding_rows} rows"
        )
    _check_prompt(config, processor, directory, template)


def _check_prompt(config: CoLLaVOConfig, processor: CoLLaVOProcessor, directory: Path, template: Template) -> None:
    """Encode a prompt and decode it, as every question will be."""
    with as_checkpoint_error(f"{directory}: the tokenizer cannot encode a prompt"):
        ids, words = processor.encode([template.prompt("", _QUESTION), _QUESTION])
        text = processor.decode(ids)
    unknown = sum(token == processor.unknown_id for token in words)
    if ids.count(config.image_token_id) != 1 or 2 * unknown > len(words) or min(ids) < 0:
        raise CheckpointError(
            f"{directory}: the tokenizer does not know the words of a prompt; it reads {_QUESTION!r} as {words[:8]}"
        )
    if max(ids) >= config.text.embedding_rows:
        raise CheckpointError(
            f"{directory}: the tokenizer gives the id {max(ids)}, the model's embedding table has "
            f"{config.text.embedding_rows} rows"
        )
    if "".join(_QUESTION.split()) not in "".join(text.split()):
        raise CheckpointError(f"{directory}: the tokenizer does not give back {_QUESTION!r}, but {quoted(text)}")
