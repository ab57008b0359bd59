"""Sizes of a checkpoint: what its ``config.json`` says, read strictly and compared with the shapes of its tensors.

All sizes are known to be those of tensors that exist before anything is built of them. Importing this loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.common.words import quoted, shown
from modeling.segmenters.coco import NUM_CLASSES

from ..crayon import MAX_INSTANCES
from ..errors import CheckpointError

MOST_LAYERS = 1024
_LAYER = re.compile(r"\.layers\.(\d+)\.")
_Side = Annotated[int, Field(ge=1, le=2**24)]
_Layers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
_Pixels = Annotated[int, Field(ge=1, le=2**14)]
_Epsilon = Annotated[float, Field(gt=0, lt=1)]
_Share = Annotated[float, Field(ge=0, lt=1)]
_Token = Annotated[int, Field(ge=0, lt=2**24)]
_Activation = Literal[
    "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "quick_gelu", "relu", "mish"
]
Queries = Literal["both", "semantic", "none"]


class HasShape(Protocol):
    """What has a shape: a tensor, or one that is only described."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sides."""


class StrictJson(BaseModel):
    """A part of a JSON file: types as they stand there, numbers that are some; keys that it does not know are left."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", frozen=True)


class TextSizes(StrictJson):
    """The decoder, see `modeling.internlm2.InternLM2Config`, whose defaults these are."""

    vocab_size: _Side = 92544
    embedding_rows: _Side = 92545
    hidden_size: _Side = 4096
    intermediate_size: _Side = 14336
    num_hidden_layers: _Layers = 32
    num_attention_heads: _Side = 32
    num_key_value_heads: _Side = 8
    hidden_act: _Activation = "silu"
    rms_norm_eps: _Epsilon = 1e-5
    rope_theta: Annotated[float, Field(gt=1, le=1e12)] = 1e6
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**31)] = 32768
    bias: bool = False
    plora_rank: _Side = 256
    plora_alpha: Annotated[float, Field(gt=0, le=1e6)] = 256.0
    plora_dropout: _Share = 0.05
    initializer_range: Annotated[float, Field(ge=0, le=100)] = 0.02
    attention_dropout: _Share = 0.0
    bos_token_id: _Token | None = 1
    eos_token_id: _Token | Annotated[list[_Token], Field(min_length=1, max_length=64)] | None = 2
    pad_token_id: _Token | None = 2


class VisionSizes(StrictJson):
    """The vision tower, see `modeling.vit.VisionTowerConfig`, whose defaults these are."""

    hidden_size: _Side = 1024
    intermediate_size: _Side = 4096
    num_hidden_layers: _Layers = 24
    num_attention_heads: _Side = 16
    patch_size: _Pixels = 14
    image_size: _Pixels = 490
    hidden_act: _Activation = "quick_gelu"
    layer_norm_eps: _Epsilon = 1e-5
    initializer_range: Annotated[float, Field(ge=0, le=100)] = 0.02
    attention_dropout: _Share = 0.0


class Sizes(StrictJson):
    """A whole model, see `collavo.config.CoLLaVOConfig`, whose defaults these are."""

    text_config: TextSizes = TextSizes()
    vision_config: VisionSizes = VisionSizes()
    crayon_width: _Side = 1024
    semantic_rows: _Side = NUM_CLASSES + 1
    numbering_rows: _Side = MAX_INSTANCES + 1
    image_token_id: _Token = 92544
    image_size: _Pixels = 490
    crayon_queries: Queries = "both"


class _Released(StrictJson):
    """What the released ``config.json`` says. Sizes that tensors show may be left out; they are compared."""

    num_attention_heads: _Side
    num_key_value_heads: _Side | None = None
    hidden_size: _Side | None = None
    intermediate_size: _Side | None = None
    num_hidden_layers: _Layers | None = None
    vocab_size: _Side | None = None
    bias: bool = False
    plora_alpha: Annotated[float, Field(gt=0, le=1e6)] | None = None
    pad_token_id: int | None = None
    vision_num_attention_heads: _Side | None = None
    image_token_index: _Token | None = None
    image_size: _Pixels | None = None
    img_size: _Pixels | None = None  # InternLM-XComposer2's name for it

    @property
    def pixels(self) -> int:
        """Side of an image."""
        return self.image_size or self.img_size or 490


Part = TypeVar("Part", bound=StrictJson)


def validated(kind: type[Part], values: object, where: object) -> Part:
    """Values of a JSON file as a typed part.

    Args:
        kind: the part.
        values: from the file.
        where: the file, for messages.

    Raises:
        CheckpointError: a value is of another type or out of range; it is named.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) if isinstance(part, int) else part for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {quoted(first['input'])}"
        raise CheckpointError(f"{where}: {shown(place) or 'content'}: {first['msg']}{found}") from None


def read_sizes(values: Mapping[str, Any], tensors: Mapping[str, HasShape], *, released: bool, where: object) -> Sizes:
    """The sizes of a checkpoint.

    Args:
        values: of its ``config.json``.
        tensors: by our names; the released configuration says nothing of the vision tower, the ranks and the tables, so
            their sizes are taken from here.
        released: whether it is in the released layout.
        where: the checkpoint, for messages.

    Raises:
        CheckpointError: a size is missing, malformed, or not that of the tensors; or sizes do not go together.
    """
    sizes = _of_released(values, tensors, where) if released else validated(Sizes, values, f"{where}/config.json")
    _check_heads(sizes, where)
    _check_layers(sizes, tensors, where)
    for name, shape in _decisive(sizes).items():
        found = _shape(tensors, name, len(shape), where)
        if found != shape:
            raise CheckpointError(f"{where}: {name} is {found}, by config.json it would be {shape}")
    _check_together(sizes, where)
    return sizes


def _of_released(values: Mapping[str, Any], tensors: Mapping[str, HasShape], where: object) -> Sizes:
    """Join what the released ``config.json`` says with what the tensors' shapes say."""
    file = f"{where}/config.json"
    said = validated(_Released, values, file)
    rows, width = _shape(tensors, "language_model.embed_tokens.weight", 2, where)
    vocabulary = _shape(tensors, "output.weight", 2, where)[0]
    vision_width, _, patch, _ = _shape(tensors, "vision_tower.patch_embedding.weight", 4, where)
    positions = _shape(tensors, "vision_tower.position_embedding.weight", 2, where)[0]
    rank = _shape(tensors, "language_model.layers.0.attention.wqkv.image_a.weight", 2, where)[0]
    semantic, crayon_width = _shape(tensors, "crayon.semantic.weight", 2, where)
    heads = said.num_attention_heads
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "embedding_rows": rows,
        "hidden_size": width,
        "intermediate_size": _shape(tensors, "language_model.layers.0.mlp.w1.base.weight", 2, where)[0],
        "num_hidden_layers": len(layer_numbers(tensors, "language_model", where)),
        "num_attention_heads": heads,
        "num_key_value_heads": said.num_key_value_heads or heads,
        "bias": said.bias,
        "plora_rank": rank,
        "plora_alpha": float(said.plora_alpha or rank),
    }
    for name in ("hidden_act", "rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id", "eos_token_id"):
        if values.get(name) is not None:
            text[name] = values[name]
    pad = said.pad_token_id
    text["pad_token_id"] = 2 if pad is None or pad < 0 else pad
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"):
        expected = getattr(said, name)
        # the library that wrote it may have counted the image token's row, or not
        if expected not in (None, text[name], rows if name == "vocab_size" else None):
            raise CheckpointError(f"{file}: {name} is {expected}, by the tensors it would be {text[name]}")
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": _shape(tensors, "vision_tower.layers.0.fc1.weight", 2, where)[0],
        "num_hidden_layers": len(layer_numbers(tensors, "vision_tower", where)),
        "num_attention_heads": said.vision_num_attention_heads or max(vision_width // 64, 1),
        "patch_size": patch,
        "image_size": round((positions - 1) ** 0.5) * patch,
    }
    sizes = {
        "text_config": text,
        "vision_config": vision,
        "crayon_width": crayon_width,
        "semantic_rows": semantic,
        "numbering_rows": _shape(tensors, "crayon.numbering.weight", 2, where)[0],
        "image_token_id": rows - 1 if said.image_token_index is None else said.image_token_index,
        "image_size": said.pixels,
    }
    return validated(Sizes, sizes, file)


def sizes_of_config(values: Mapping[str, Any], *, released: bool, where: object) -> Sizes:
    """The sizes that a ``config.json`` says, where no weights can be compared with it.

    Args:
        values: of its ``config.json``.
        released: whether it is of the released layout, which leaves much to the shapes of its tensors; what it does not
            say is as in CoLLaVO-7B.
        where: the checkpoint, for messages.

    Raises:
        CheckpointError: a size is malformed, or sizes do not go together.
    """
    file = f"{where}/config.json"
    sizes = validated(Sizes, values, file)
    if released:
        known = validated(_Released, values, file)
        said = known.model_dump(exclude_none=True)
        text = {name: said[name] for name in TextSizes.model_fields if name in said}
        text.setdefault("num_key_value_heads", text["num_attention_heads"])
        if text.get("pad_token_id", 0) < 0:
            del text["pad_token_id"]
        if "vocab_size" in text:
            text["embedding_rows"] = text["vocab_size"] + 1
        heads = said.get("vision_num_attention_heads")
        vision = {} if heads is None else {"num_attention_heads": heads}
        whole = {"text_config": text, "vision_config": vision, "image_size": known.pixels}
        sizes = validated(Sizes, whole, file)
    _check_heads(sizes, where)
    _check_together(sizes, where)
    return sizes


def _check_heads(sizes: Sizes, where: object) -> None:
    for part in (sizes.text_config, sizes.vision_config):
        if part.hidden_size % part.num_attention_heads:
            raise CheckpointError(
                f"{where}: {part.num_attention_heads} attention heads do not divide the width {part.hidden_size}"
            )


def _shape(tensors: Mapping[str, HasShape], name: str, dimensions: int, where: object) -> tuple[int, ...]:
    """A tensor's shape.

    Raises:
        CheckpointError: it is missing, has another number of dimensions, or a side of 0.
    """
    if name not in tensors:
        raise CheckpointError(f"{where}: the checkpoint lacks {name}")
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"{where}: {name} has the shape {quoted(shape)}; {dimensions} sides from 1 are needed")
    return shape


def layer_numbers(names: Iterable[str], part: str, where: object) -> range:
    """The numbers of a tower's layers, which count from 0 without a gap.

    Args:
        names: of tensors, ours.
        part: ``language_model`` or ``vision_tower``.
        where: the checkpoint, for messages.

    Raises:
        CheckpointError: there are none, they have gaps, or there are more than `MOST_LAYERS`.
    """
    found = set()
    for name in names:
        match = _LAYER.match(name, len(part)) if name.startswith(part) else None
        if match:
            if len(match.group(1)) > len(str(MOST_LAYERS)):
                raise CheckpointError(f"{where}: {quoted(name)} is of a layer beyond {MOST_LAYERS}")
            found.add(int(match.group(1)))
    if not found:
        raise CheckpointError(f"{where}: the checkpoint lacks {part}.layers.0")
    if max(found) >= MOST_LAYERS:
        raise CheckpointError(f"{where}: {part} has a layer {max(found)}; at most {MOST_LAYERS} layers are read")
    if gaps := sorted(set(range(max(found))) - found):
        raise CheckpointError(f"{where}: {part} has a layer {max(found)}, but lacks layer {gaps[0]}")
    return range(len(found))


def _check_layers(sizes: Sizes, tensors: Iterable[str], where: object) -> None:
    names = list(tensors)
    for part, said in (("language_model", sizes.text_config), ("vision_tower", sizes.vision_config)):
        found = len(layer_numbers(names, part, where))
        if found != said.num_hidden_layers:
            raise CheckpointError(
                f"{where}: {part} has {found} layers, by config.json it would have {said.num_hidden_layers}"
            )


def _decisive(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that show every size but the numbers of layers."""
    text, vision = sizes.text_config, sizes.vision_config
    width = text.hidden_size // text.num_attention_heads
    packed = (text.num_attention_heads + 2 * text.num_key_value_heads) * width
    layer = "language_model.layers.0"
    return {
        "language_model.embed_tokens.weight": (text.embedding_rows, text.hidden_size),
        "output.weight": (text.vocab_size, text.hidden_size),
        f"{layer}.attention.wqkv.base.weight": (packed, text.hidden_size),
        f"{layer}.attention.wqkv.image_a.weight": (text.plora_rank, text.hidden_size),
        f"{layer}.mlp.w1.base.weight": (text.intermediate_size, text.hidden_size),
        "vision_tower.patch_embedding.weight": (vision.hidden_size, 3, vision.patch_size, vision.patch_size),
        "vision_tower.position_embedding.weight": (
            1 + (vision.image_size // vision.patch_size) ** 2,
            vision.hidden_size,
        ),
        "vision_tower.layers.0.fc1.weight": (vision.intermediate_size, vision.hidden_size),
        "crayon.semantic.weight": (sizes.semantic_rows, sizes.crayon_width),
        "crayon.numbering.weight": (sizes.numbering_rows, sizes.crayon_width),
    }


def _check_together(sizes: Sizes, where: object) -> None:
    """Check what shapes do not show.

    Raises:
        CheckpointError: numbers that do not go together.
    """
    text, vision = sizes.text_config, sizes.vision_config
    tokens = [sizes.image_token_id, text.bos_token_id, text.pad_token_id]
    tokens += text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
    for wrong, why in (
        (
            text.num_attention_heads % text.num_key_value_heads,
            f"{text.num_key_value_heads} key-value heads do not divide {text.num_attention_heads} attention heads",
        ),
        (
            (text.hidden_size // text.num_attention_heads) % 2,
            "a head's width must be even for rotary positions",
        ),
        (
            text.vocab_size > text.embedding_rows,
            f"the output layer has {text.vocab_size} rows, the embedding table only {text.embedding_rows}",
        ),
        (
            any(token is not None and token >= text.embedding_rows for token in tokens),
            f"a token id is outside the embedding table's {text.embedding_rows} rows",
        ),
        (
            vision.image_size % vision.patch_size or sizes.image_size % vision.patch_size,
            f"an image of {sizes.image_size} px is no whole number of {vision.patch_size} px patches",
        ),
        (
            sizes.semantic_rows < NUM_CLASSES + 1 or sizes.numbering_rows < MAX_INSTANCES + 1,
            f"the crayon tables need {NUM_CLASSES + 1} and {MAX_INSTANCES + 1} rows, not {sizes.semantic_rows} and "
            f"{sizes.numbering_rows}",
        ),
    ):
        if wrong:
            raise CheckpointError(f"{where}: {why}")
