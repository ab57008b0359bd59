"""An image runs once for all questions about it: what stands before the question is computed, kept and copied.

The prompts of an image's questions begin alike, up to the last of the image's tokens. Where the model's cache allows
it, these prefixes run first, one row for each image; their keys and values are then copied to the rows of the
questions, and ``generate`` goes on from there::

    row of the cache      [gap][prefix with the image's tokens]
    row of a question     [gap][prefix with the image's tokens][gap][rest of the prompt] -> reply

Gaps make rows equally long; masks leave them out, and positions do not count them. A reply is the one that the whole
prompt gets. That is compared: the first time that questions share prefixes in a way that did not occur yet, they are
answered both ways, and a difference ends the reuse.

Shape legend: B questions of a batch, P tokens of the prefixes, T of the whole prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from modeling.internlm2 import CACHE

from .hf_inputs import PreparedQuestion
from .profile import ModelProfile

_POSITIONS = "_prepare_position_ids_for_generation"
_MOST_APART = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Total variation between the probabilities of the first token that is rounding, for each type of numbers."""
_MOST_APART_OF_SHORT_TYPES = 0.1


@dataclass(frozen=True)
class SharedPrefixes:
    """Questions with the prefixes that several of them share.

    Attributes:
        prefixes: one for each image, with its pixels.
        suffixes: what is left of each question's prompt.
        rows: of each question, the number of its prefix.
        frames: further numbers of each question's image, by name, that positions depend on.
    """

    prefixes: list[PreparedQuestion]
    suffixes: list[PreparedQuestion]
    rows: list[int]
    frames: Mapping[str, Tensor]

    @property
    def way(self) -> tuple[bool, ...]:
        """In which way prefixes are shared: among several images, with gaps before them, with gaps before the rest."""
        return (len(self.prefixes) > 1, _differ(self.prefixes), _differ(self.suffixes))


@dataclass(frozen=True)
class Generated:
    """What ``generate`` made of a batch.

    Attributes:
        tokens: of each question's reply.
        finite: of each question, whether all scores were finite.
        first: scores of the first token, (rows, vocabulary).
    """

    tokens: list[list[int]]
    finite: list[bool]
    first: Tensor


class PrefixReuse:
    """Decides whether and how prefixes are reused, and runs them.

    Args:
        model: of the transformers library.
        profile: of its family.
        tokens: its begin, end and padding tokens, as generation settings.
        collate: makes a batch of prepared questions.

    Attributes:
        refused: why nothing is reused; "" where it is.
        window: tokens that a prompt with its reply may have at most for it; None for any number.
    """

    def __init__(
        self,
        model: Any,
        profile: ModelProfile,
        tokens: Mapping[str, Any],
        collate: Callable[[Sequence[PreparedQuestion]], dict[str, Tensor]],
    ) -> None:
        self._model, self._collate = model, collate
        self._settings = GenerationConfig(**tokens, max_new_tokens=1, do_sample=False, num_beams=1)
        self._image_token = _image_token(model.config)
        self.refused = _reason_against(model, profile)
        self.window = None if self.refused else _window(_empty_cache(model))
        self._compared: set[tuple[bool, ...]] = set()

    def shared(self, group: Sequence[PreparedQuestion], new_tokens: int) -> SharedPrefixes | None:
        """The prefixes of questions that run together; None where nothing is to be reused.

        Args:
            group: questions whose inputs have equal shapes.
            new_tokens: length of the longest reply.
        """
        if self.refused or len(group) < 2:
            return None
        ends = [self._end(one) for one in group]
        keys = [_key(one, end) for one, end in zip(group, ends, strict=True)]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        if not all(ends) or len(numbers) == len(group):
            return None
        found = SharedPrefixes(
            prefixes=[_prefix(group[i], ends[i]) for i in map(keys.index, numbers)],
            suffixes=[_suffix(one, end) for one, end in zip(group, ends, strict=True)],
            rows=[numbers[key] for key in keys],
            frames=_frames(group),
        )
        # Gaps within a prompt count in a window of tokens, so that a row must lie in it as a whole.
        whole = sum(max(map(_length, parts)) for parts in (found.prefixes, found.suffixes)) + new_tokens
        return found if self.window is None or whole <= self.window else None

    def _end(self, one: PreparedQuestion) -> int:
        """The place after the last token of the images; 0 where there is none, or nothing follows it."""
        (places,) = torch.nonzero(one.inputs["input_ids"][0] == self._image_token, as_tuple=True)
        end = int(places[-1]) + 1 if len(places) else 0
        return end if end < _length(one) else 0

    def inputs(self, found: SharedPrefixes, num_beams: int) -> dict[str, Any]:
        """Run the prefixes; returns what ``generate`` goes on with.

        Raises:
            RuntimeError: the model's cache holds something else than the prefixes.
        """
        prefix, cache = self._collate(found.prefixes), _empty_cache(self._model)
        self._model.generate(**prefix, **{CACHE: cache}, generation_config=self._settings)
        length = prefix["input_ids"].shape[1]
        if cache.get_seq_length() != length:
            raise RuntimeError(f"the cache holds {cache.get_seq_length()} tokens of a prefix of {length}")
        rows = torch.tensor(found.rows)
        suffix = self._collate(found.suffixes)
        whole = {
            name: torch.cat([prefix[name][rows.to(value.device)], value], dim=1)  # (B, P), (B, T - P) -> (B, T)
            for name, value in suffix.items()
        }
        frames = {name: value.to(self._model.device) for name, value in found.frames.items()}
        # As for the whole prompt in one piece: families with positions in three dimensions have their own count.
        positions = getattr(self._model, _POSITIONS)(whole["input_ids"], {**whole, **frames})
        cache.batch_select_indices(rows.repeat_interleave(num_beams))
        return {
            "input_ids": whole["input_ids"],
            "attention_mask": whole["attention_mask"],
            "position_ids": positions,
            CACHE: cache,
        }

    def must_compare(self, found: SharedPrefixes, num_beams: int) -> bool:
        """Whether replies with and without reuse have to be compared first."""
        return (num_beams > 1, *found.way) not in self._compared

    @property
    def untried(self) -> bool:
        """Whether nothing was compared yet."""
        return not self._compared

    def compare(self, found: SharedPrefixes, num_beams: int, plain: Generated, reused: Generated) -> None:
        """Compare what the same questions got both ways; a difference ends the reuse (`refused`)."""
        self.refused = _difference(plain, reused, self._model.dtype)
        self._compared.add((num_beams > 1, *found.way))


def _reason_against(model: Any, profile: ModelProfile) -> str:
    """Why a model's prefixes cannot be reused, as far as that is known without a question; "" for no reason."""
    text = model.config.get_text_config(decoder=True) if hasattr(model.config, "get_text_config") else model.config
    reasons = {
        "its profile says so (reuse_prefix)": not profile.reuse_prefix,
        "its profile has each question run alone": profile.batch == "alone",
        "its code lies in the checkpoint": type(model).__module__.startswith("transformers_modules"),
        "it has an encoder for the prompt": any(
            getattr(one, "is_encoder_decoder", False) for one in (model.config, text)
        ),
        "its way to generate starts at the pixels each time": "generate" in _own_methods(model),
        "nothing says which tokens are an image's": _image_token(model.config) is None,
        "the library does not say its positions": not hasattr(model, _POSITIONS),
    }
    found = next((reason for reason, holds in reasons.items() if holds), "")
    return found or ("" if _copies_rows(_empty_cache(model)) else "its cache is not one of keys and values alone")


def _own_methods(model: Any) -> set[str]:
    """Names that a model's class defines itself, rather than the library's base classes."""
    return {name for kind in type(model).__mro__ if ".models." in kind.__module__ for name in vars(kind)}


def _image_token(config: Any) -> int | None:
    """Id of the token that stands for a piece of an image; None where the configuration does not name it."""
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((found for found in named if isinstance(found, int)), None)


def _empty_cache(model: Any) -> DynamicCache:
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def _copies_rows(cache: DynamicCache) -> bool:
    """Whether a cache's rows can be copied: those of attention can, a recurrent state goes on elsewhere."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def _window(cache: DynamicCache) -> int | None:
    """Tokens of the shortest attention window; None where every layer sees the whole prompt."""
    return min((int(layer.sliding_window) for layer in cache.layers if layer.is_sliding), default=None)


def _key(one: PreparedQuestion, end: int) -> str:
    """What a prefix is recognised by: its tokens and all that belongs to its images."""
    digest = hashlib.sha256()
    for name, value in sorted(one.inputs.items()):
        held = value[:, :end] if name in one.text else value
        digest.update(f"{name} {tuple(held.shape)} {held.dtype} ".encode())
        digest.update(held.contiguous().view(torch.uint8).numpy().data if held.dim() else str(held.item()).encode())
    return digest.hexdigest()


def _prefix(one: PreparedQuestion, end: int) -> PreparedQuestion:
    cut = {name: value[:, :end] if name in one.text else value for name, value in one.inputs.items()}
    return PreparedQuestion(one.index, one.prompt, cut, one.text)


def _suffix(one: PreparedQuestion, end: int) -> PreparedQuestion:
    return PreparedQuestion(one.index, one.prompt, {name: one.inputs[name][:, end:] for name in one.text}, one.text)


def _frames(group: Sequence[PreparedQuestion]) -> dict[str, Tensor]:
    """What belongs to the images besides their pixels: sizes and grids."""
    first = group[0]
    names = [n for n, value in first.inputs.items() if n not in first.text and not value.is_floating_point()]
    return {name: torch.cat([one.inputs[name] for one in group]) for name in names if first.inputs[name].dim()}


def _length(one: PreparedQuestion) -> int:
    return int(one.inputs["input_ids"].shape[1])


def _differ(parts: Sequence[PreparedQuestion]) -> bool:
    return len({_length(part) for part in parts}) > 1


def _difference(plain: Generated, reused: Generated, kind: torch.dtype) -> str:
    """How replies of the same questions differ, in words; "" where they do not."""
    if plain.finite != reused.finite:
        return "scores are finite only one way"
    if any(
        finite and one != other for finite, one, other in zip(plain.finite, plain.tokens, reused.tokens, strict=True)
    ):
        return "replies differ with it"
    shares = [one.first.float().softmax(dim=-1) for one in (plain, reused)]
    apart = float(0.5 * (shares[0] - shares[1]).abs().sum(dim=-1).nan_to_num().max())
    if apart > _MOST_APART.get(kind, _MOST_APART_OF_SHORT_TYPES):
        return f"the first token's probabilities differ by {apart:.2g} with it"
    return ""
