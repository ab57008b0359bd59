"""The processor: prompts to padded ids, images to normalised pixels, ids back to text."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .checkpoint.names import read_json
from .checkpoint.sizes import StrictJson, validated
from .errors import CheckpointError
from .tokenizer import load_tokenizer

SETTINGS_FILE = "preprocessor_config.json"
SETTINGS = ("image_size", "patch_size", "image_mean", "image_std")
CLIP_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
"""CLIP's channel means (arXiv 2103.00020), on the 0..255 scale of pixels."""

CLIP_STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)
"""CLIP's channel standard deviations, on the same scale."""


_Mean = Annotated[float, Field(ge=-1e4, le=1e4)]
_Deviation = Annotated[float, Field(ge=1e-4, le=1e4)]


class _Settings(StrictJson):
    """`SETTINGS_FILE`."""

    image_size: Annotated[int, Field(ge=1, le=2**14)]
    patch_size: Annotated[int, Field(ge=1, le=2**14)]
    image_mean: Annotated[list[_Mean], Field(min_length=3, max_length=3)]
    image_std: Annotated[list[_Deviation], Field(min_length=3, max_length=3)]


class CoLLaVOProcessor:
    """Tokenizer and image normalisation of a checkpoint.

    Args:
        tokenizer: knows ``<image>`` and pads on the left.
        image_size: side in pixels of the square images.
        patch_size: side in pixels of a vision patch.
        image_mean: per channel, 0..255 scale.
        image_std: per channel, 0..255 scale.

    Raises:
        ValueError: a size or a number of these is impossible.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_size: int = 490,
        patch_size: int = 14,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
    ) -> None:
        self.tokenizer, self.image_size, self.patch_size = tokenizer, image_size, patch_size
        self.image_mean, self.image_std = tuple(map(float, image_mean)), tuple(map(float, image_std))
        if not 1 <= patch_size <= image_size:
            raise ValueError(f"an image of {image_size} pixels has no patches of {patch_size}")
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or min(self.image_std) <= 0:
            raise ValueError(f"need 3 means and 3 positive deviations, not {self.image_mean} and {self.image_std}")

    @property
    def grid(self) -> int:
        """Image tokens a side."""
        return self.image_size // self.patch_size

    @property
    def unknown_id(self) -> int | None:
        """Id that stands for tokens the vocabulary lacks."""
        unknown: int | None = self.tokenizer.unk_token_id
        return unknown

    @classmethod
    def from_pretrained(cls, directory: Path) -> CoLLaVOProcessor:
        """Load from a checkpoint directory; the released one has no settings file, so the released sizes are assumed.

        Raises:
            CheckpointError: the tokenizer or the settings are unreadable.
        """
        tokenizer, file = load_tokenizer(directory), directory / SETTINGS_FILE
        if not os.path.lexists(file):
            return cls(tokenizer)
        settings = validated(_Settings, read_json(file), f"{file}: not the settings of a CoLLaVO processor")
        try:
            return cls(tokenizer, **dict(settings))
        except ValueError as error:
            raise CheckpointError(f"{file}: not the settings of a CoLLaVO processor ({error})") from error

    def save_pretrained(self, directory: Path) -> None:
        """Write the tokenizer's files and the settings."""
        self.tokenizer.save_pretrained(directory)
        settings = {name: getattr(self, name) for name in SETTINGS}
        (Path(directory) / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, one ``<image>`` id per image, begin-of-sequence in front."""
        return [list(ids) for ids in self.tokenizer(list(prompts)).input_ids]

    def pad_left(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Stack rows of ids, padded on the left.

        Returns: ``input_ids`` and ``attention_mask``, int64 (rows, longest).
        """
        longest, pad = max(map(len, ids)), self.tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        return input_ids, mask

    def pixel_values(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Normalise images.

        Args:
            images: RGB, uint8 (N, image_size, image_size, 3).
        Returns: float32 (N, 3, image_size, image_size).

        Raises:
            ValueError: the images have another shape or type.
        """
        wanted = (self.image_size, self.image_size, 3)
        if images.dtype != np.uint8 or images.shape[1:] != wanted:
            raise ValueError(f"images must be uint8 (N, *{wanted}), not {images.dtype} {images.shape}")
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.image_mean, self.image_std))
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        return (pixels - mean) / std

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids; end tags stay visible."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
