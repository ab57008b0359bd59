"""The class embeddings of a list of classes: those kept next to the checkpoint, or new ones from its text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import SegmenterError
from .checkpoint import PROMPTS, KeptEmbeddings, LoadedModel
from .classes import ClassList, class_list
from .prompts import COCO_TABLE, PromptTable, class_embeddings, prompt_names, prompt_reader


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Classes with their embeddings.

    Attributes:
        classes: without the background.
        vectors: float32 (K + 1, D), the background last.
        identity: digest of what decided on the vectors.
    """

    classes: ClassList
    vectors: Tensor
    identity: str


def make_vocabulary(
    loaded: LoadedModel, names: Sequence[str], stuff: Sequence[str], tokenizer: str, device: Any
) -> Vocabulary:
    """Embed classes, by the text encoder only where the checkpoint keeps no embeddings for them.

    Args:
        loaded: the checkpoint.
        names: of the classes; empty for those that the checkpoint keeps, or else COCO panoptic's.
        stuff: see `class_list`.
        tokenizer: directory of a tokenizer, or "".
        device: where the text encoder runs.

    Raises:
        SegmenterError: a list that is no good, or names that this checkpoint cannot embed.
    """
    kept = loaded.kept
    classes = class_list(kept.classes, kept.stuff) if kept and not names else class_list(names, stuff)
    wanted = prompt_names(classes.names)
    if kept and (vectors := _look_up(kept, wanted)) is not None:
        return Vocabulary(classes=classes, vectors=vectors.to(device), identity=_digest(vectors))
    ids = _token_ids(loaded, wanted, tokenizer)
    encoder = loaded.model.text_encoder.to(device)
    with torch.inference_mode():
        return Vocabulary(classes=classes, vectors=class_embeddings(encoder, ids), identity=_digest(ids))


def _look_up(kept: KeptEmbeddings, wanted: Sequence[str]) -> Tensor | None:
    """The kept vectors of some names in their order; None where one is not kept."""
    rows = {name: row for row, name in enumerate(prompt_names(kept.classes))}
    if any(name not in rows for name in wanted):
        return None
    return kept.vectors.float()[[rows[name] for name in wanted]]


def _token_ids(loaded: LoadedModel, wanted: Sequence[str], tokenizer: str) -> Tensor:
    """Token ids (K + 1, T, L) that the checkpoint's text encoder can read."""
    if not loaded.has_text_encoder:
        known = ", ".join(loaded.kept.classes) if loaded.kept else "none"
        raise SegmenterError(
            "SEGMENTER.CLASSES: this checkpoint comes without a text encoder and can only look for the classes it "
            f"keeps embeddings of: {known}"
        )
    table = loaded.prompts or COCO_TABLE
    text = loaded.model.config.text
    ids = prompt_reader(wanted, PromptTable.load(table), tokenizer).ids(wanted, text.context_length)
    if int(ids.max()) != text.eos_id:
        raise SegmenterError(
            f"SEGMENTER.{'TOKENIZER' if tokenizer else 'PATH'}: prompts from {tokenizer or table} end with token "
            f"{int(ids.max())}, those of this checkpoint's text encoder with {text.eos_id}; a checkpoint with a "
            f"vocabulary of its own needs its {PROMPTS} next to it"
        )
    return ids


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
