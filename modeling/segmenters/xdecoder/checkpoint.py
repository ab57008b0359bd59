"""X-Decoder's weights on disk: released ``.pt`` files, and directories of ours.

A released file is a flat dictionary of tensors. A directory of ours holds ``config.json`` and ``model.safetensors``;
next to them may lie ``class_embeddings.safetensors`` (the text encoder's result for a list of classes, so that it need
not run) and ``prompts.json`` (token ids of a vocabulary of its own, in the layout of ``coco_prompts.json``).

Nothing is left to chance: a tensor that is missing, of another shape, or unknown is an error that names it; the known
ones that panoptic segmentation does not use are listed as skipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.common.words import quoted, some_of

from ...files import FileError, check_real, read_object
from ...stored_tensor import check_range
from ...weight_files import load, save
from ..errors import SegmenterError
from .checkpoint_names import UNUSED_NAMES, our_name
from .config import XDecoderConfig
from .model import XDecoder
from .released_sizes import released_sizes

CONFIG, WEIGHTS, KEPT, PROMPTS = "config.json", "model.safetensors", "class_embeddings.safetensors", "prompts.json"
TEXT_PREFIX = "text_encoder."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class KeptEmbeddings:
    """Class embeddings that lie next to a checkpoint.

    Attributes:
        classes: names, without the background.
        stuff: those of them that are stuff.
        vectors: float32 (K + 1, D), the background last.
        text_digest: of the text encoder's weights that made them.
    """

    classes: tuple[str, ...]
    stuff: tuple[str, ...]
    vectors: Tensor
    text_digest: str


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network and where it came from.

    Attributes:
        model: in evaluation mode, on the CPU, float32.
        has_text_encoder: false where the checkpoint was saved without it; the model then has none either.
        kept: class embeddings next to the weights that belong to them, if any.
        prompts: the checkpoint's own table of prompts, if any.
        skipped: released tensors that the model does not use, with the reason.
        digest: of the weights' file and the sizes.
    """

    model: XDecoder
    has_text_encoder: bool
    kept: KeptEmbeddings | None
    prompts: Path | None
    skipped: Mapping[str, str]
    digest: str


def load_model(path: Path) -> LoadedModel:
    """Load a network.

    Args:
        path: a released file (``.pt``, ``.pth``, or its tensors as ``.safetensors``), or a directory of ours.

    Raises:
        SegmenterError: it is neither, damaged, or not an X-Decoder with a FocalNet backbone; the tensor is named.
    """
    file = path / WEIGHTS if path.is_dir() else path
    tensors = read_tensors(file)
    config_file = file.with_name(CONFIG)
    released = any(key.startswith("sem_seg_head.") for key in tensors)
    if config_file.is_file():
        config = read_config(config_file)
    elif released:
        config = released_sizes({key: tuple(tensor.shape) for key, tensor in tensors.items()}, file)
    else:
        raise SegmenterError(f"SEGMENTER.PATH: {config_file} is missing; it says the model's sizes")
    weights, skipped = rename_released_tensors(tensors, file) if released else (tensors, {})
    has_text = any(key.startswith(TEXT_PREFIX) for key in weights)
    kept = read_kept(file.with_name(KEPT), text_digest(weights) if has_text else None, config.decoder.embed_dim)
    model = build_with_weights(config, weights, file, without_text=not has_text and kept is not None)
    prompts = file.with_name(PROMPTS)
    return LoadedModel(
        model=model.eval(),
        has_text_encoder=has_text,
        kept=kept,
        prompts=prompts if prompts.is_file() else None,
        skipped=skipped,
        digest=_digest(file, config),
    )


def save_model(
    folder: Path,
    model: XDecoder,
    kept: KeptEmbeddings | None = None,
    *,
    prompts: Path | None = None,
    with_text: bool = True,
) -> None:
    """Write a directory of ours.

    Args:
        folder: made if it is missing.
        model: the network.
        kept: class embeddings to lie next to it.
        prompts: table of prompts to lie next to it, for a vocabulary of its own.
        with_text: write the text encoder too; without it only the kept classes can be used.

    Raises:
        SegmenterError: neither a text encoder nor class embeddings would be written.
    """
    if not with_text and kept is None:
        raise SegmenterError("an X-Decoder without its text encoder needs class embeddings next to it")
    weights = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    if not with_text:
        weights = {key: tensor for key, tensor in weights.items() if not key.startswith(TEXT_PREFIX)}
    table = prompts.read_bytes() if prompts else None
    folder.mkdir(parents=True, exist_ok=True)
    if table is not None:
        (folder / PROMPTS).write_bytes(table)
    (folder / CONFIG).write_text(json.dumps(model.config.to_dict(), indent=1) + "\n", encoding="utf-8")
    save(weights, folder / WEIGHTS, {"format": "pt"})
    if kept is not None:
        metadata = {"classes": json.dumps(kept.classes), "stuff": json.dumps(kept.stuff), "text": kept.text_digest}
        save({"class_embeddings": kept.vectors.detach().cpu().contiguous()}, folder / KEPT, metadata)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a flat dictionary of tensors, memory-mapped; no code of a file runs, see ``modeling/torch_archive.py``.

    Raises:
        SegmenterError: the file is missing, damaged, of another kind, or holds anything else.
    """
    if not file.is_file():
        raise SegmenterError(
            f"SEGMENTER.PATH: {file} does not exist; xdecoder takes a released checkpoint (.pt) or a directory with "
            f"{CONFIG} and {WEIGHTS}"
        )
    try:
        return load(file)
    except FileError as error:
        reason = str(error).removeprefix(str(file)).lstrip(": ")
        raise SegmenterError(f"SEGMENTER.PATH: {file} cannot be read as a checkpoint ({reason})") from error


def read_config(file: Path) -> XDecoderConfig:
    """Read a ``config.json``.

    Raises:
        SegmenterError: it is unreadable or says other things.
    """
    try:
        return XDecoderConfig.from_dict(read_object(file))
    except (FileError, ValueError, TypeError, OverflowError) as error:
        raise SegmenterError(f"SEGMENTER.PATH: {file} is no X-Decoder configuration ({error})") from error
    except SegmenterError as error:
        raise SegmenterError(f"SEGMENTER.PATH: {file}: {error}") from error


def rename_released_tensors(tensors: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give released tensors our names.

    Returns:
        the tensors, and those that are skipped with the reason.

    Raises:
        SegmenterError: a tensor that neither is used nor known as unused.
    """
    names = {key: our_name(key) for key in tensors}
    if unknown := [key for key, name in names.items() if name is None and key not in UNUSED_NAMES]:
        raise SegmenterError(f"SEGMENTER.PATH: {file}: {_few(unknown)} unknown; is it another variant of X-Decoder?")
    skipped = {key: UNUSED_NAMES[key] for key, name in names.items() if name is None}
    if skipped:
        logger.warning("%s: skipped %s", file, ", ".join(f"{key} ({why})" for key, why in skipped.items()))
    return {name: tensors[key] for key, name in names.items() if name is not None}, skipped


def build_with_weights(
    config: XDecoderConfig, weights: Mapping[str, Tensor], file: Path, *, without_text: bool
) -> XDecoder:
    """Build a network and give it weights, in float32.

    Args:
        config: sizes.
        weights: by our names.
        file: named in errors.
        without_text: leave the text encoder out of the model.

    Raises:
        SegmenterError: a tensor is missing, too many, of another shape, or holds NaN or infinity.
    """
    _check_depth(config, weights, file, without_text=without_text)
    try:
        with torch.device("meta"):  # no time or memory for values that are replaced at once
            model = XDecoder(config)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise SegmenterError(f"SEGMENTER.PATH: {file}: no model can have these sizes ({error})") from error
    if without_text:
        del model.text_encoder
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    if missing := [key for key in shapes if key not in weights]:
        raise SegmenterError(f"SEGMENTER.PATH: {file}: {_few(missing)} missing")
    if extra := [key for key in weights if key not in shapes]:
        raise SegmenterError(f"SEGMENTER.PATH: {file}: {_few(extra)} not part of a model of these sizes")
    for key, shape in shapes.items():
        if tuple(weights[key].shape) != shape:
            raise SegmenterError(f"SEGMENTER.PATH: {file}: {key} is {tuple(weights[key].shape)}, expected {shape}")
    try:
        check_range({key: weights[key] for key in shapes}, file)
    except FileError as error:
        raise SegmenterError(f"SEGMENTER.PATH: {error}") from error
    model.load_state_dict({key: weights[key].float() for key in shapes}, assign=True)
    return model


def _check_depth(config: XDecoderConfig, weights: Mapping[str, Tensor], file: Path, *, without_text: bool) -> None:
    """A model has more tensors than layers: sizes of a longer one are not built to find that out.

    Raises:
        SegmenterError: there are more layers than tensors.
    """
    backbone = config.backbone
    layers = sum(depth * levels for depth, levels in zip(backbone.depths, backbone.focal_levels, strict=True))
    layers += config.pixel_decoder.num_layers + config.decoder.num_layers
    layers += 0 if without_text else config.text.num_layers
    if layers > len(weights):
        raise SegmenterError(f"SEGMENTER.PATH: {file}: {quoted(layers)} layers, but {len(weights)} tensors")


def read_kept(file: Path, digest: str | None, width: int) -> KeptEmbeddings | None:
    """Read class embeddings, if they are there and the text encoder that made them has not changed since.

    Args:
        file: next to the weights.
        digest: of the text encoder's weights; None where there is none, and the embeddings are all there is.
        width: of the model's class embeddings.

    Raises:
        SegmenterError: the file is damaged, or is not of a model of this width.
    """
    if not file.is_file():
        return None
    try:
        check_real(file)
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
            kept = KeptEmbeddings(
                classes=_names(said["classes"]),
                stuff=_names(said["stuff"]),
                vectors=opened.get_tensor("class_embeddings"),
                text_digest=said["text"],
            )
        check_range({"class_embeddings": kept.vectors}, file)
        if kept.vectors.shape != (len(kept.classes) + 1, width):
            raise ValueError(
                f"{tuple(kept.vectors.shape)} vectors for {len(kept.classes)} classes and the background, of {width}"
            )
    except (FileError, OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise SegmenterError(f"SEGMENTER.PATH: {file} cannot be read as class embeddings ({error!r})") from error
    if digest not in (None, kept.text_digest):
        logger.warning("%s: made by another text encoder; the classes are encoded again", file)
        return None
    return kept


def _names(text: str) -> tuple[str, ...]:
    """A list of names, as JSON.

    Raises:
        ValueError: it is none.
    """
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{quoted(text)} is no list of names")
    return tuple(names)


def text_digest(weights: Mapping[str, Tensor]) -> str:
    """Digest of a text encoder's weights, by our names; other tensors do not count."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        if key.startswith(TEXT_PREFIX):
            digest.update(key.encode() + weights[key].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest(file: Path, config: XDecoderConfig) -> str:
    """Digest of a file's bytes and of the sizes, which for released files come from elsewhere."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(json.dumps(config.to_dict(), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _few(keys: Collection[str]) -> str:
    """Some of many keys, in words that end before the verb's complement."""
    return f"{some_of(list(keys), 4)} {'is' if len(keys) == 1 else 'are'}"
