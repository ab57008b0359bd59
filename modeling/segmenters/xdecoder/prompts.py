"""From class names to class embeddings: 81 prompt templates, their token ids, and the mean of their vectors.

The token ids of the templates and of the names of COCO panoptic are data (``coco_prompts.json``), so the default
classes need no tokenizer; a prompt's ids are its parts' ids in a row, which holds for all 134 x 81 of them. Other names
are read by CLIP's tokenizer from a local directory. A checkpoint of ours with a vocabulary of its own brings its own
table of the same layout.

Source: Zou et al. 2022 (arXiv 2212.11270); the templates are those of its public code, in their order.
Shapes: K classes (background last), T templates, L positions, D width of the embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.common.words import quoted

from ...files import FileError, read_object
from ..coco import display_name
from ..errors import SegmenterError
from .text import TextEncoder

BACKGROUND = "background"
NORM_EPS = 1e-7
_MOST_TOKENS = 2**24
COCO_TABLE = Path(__file__).with_name("coco_prompts.json")


class PromptReader(Protocol):
    """What turns names into token ids."""

    def ids(self, names: Sequence[str], context_length: int) -> Tensor:
        """Token ids of all prompts of some names.

        Args:
            names: class names as a user reads them (without COCO's suffixes).
            context_length: most positions of a prompt; longer ones are cut, their end token stays.

        Returns:
            int64 (K, T, L), L that of the longest prompt; what follows a prompt's end token is more of it.
        """


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """A prompt template.

    Attributes:
        text: with ``{}`` where the name goes.
        before: token ids before the name.
        after: token ids after it.
    """

    text: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PromptTable:
    """Token ids of templates and of known names.

    Attributes:
        bos: the id that opens a prompt.
        eos: the id that ends it and pads it; the largest of the vocabulary.
        templates: in the order in which their vectors are averaged.
        names: token ids of each name.
    """

    bos: int
    eos: int
    templates: tuple[PromptTemplate, ...]
    names: Mapping[str, tuple[int, ...]]

    @classmethod
    def load(cls, path: Path = COCO_TABLE) -> PromptTable:
        """Read a table.

        Raises:
            SegmenterError: the file is missing or of another layout.
        """
        try:
            content = read_object(path)
            templates = tuple(
                PromptTemplate(text=str(t["text"]), before=_ids(t["before"]), after=_ids(t["after"]))
                for t in content["templates"]
            )
            names = {str(name): _ids(ids) for name, ids in content["names"].items()}
            if not templates:
                raise ValueError("it has no templates")
            bos, eos = _ids([content["bos"], content["eos"]])
            return cls(bos=bos, eos=eos, templates=templates, names=names)
        except FileError as error:
            raise SegmenterError(f"table of prompts {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SegmenterError(f"table of prompts {path} is malformed ({error!r})") from error

    def write(self, path: Path) -> None:
        """Write a table that `load` reads."""
        content = {
            "bos": self.bos,
            "eos": self.eos,
            "templates": [{"text": t.text, "before": t.before, "after": t.after} for t in self.templates],
            "names": dict(self.names),
        }
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def first(self, num_templates: int) -> PromptTable:
        """The table with its first templates only."""
        return replace(self, templates=self.templates[:num_templates])

    def renumbered(self, names: Sequence[str]) -> PromptTable:
        """A table of some names whose tokens are numbered anew, in their order: a small vocabulary of its own.

        Raises:
            SegmenterError: a name that the table does not hold.
        """
        if unknown := self.unknown(names):
            raise SegmenterError(f"no token ids for {', '.join(map(repr, unknown))}")
        parts = [part for t in self.templates for part in (t.before, t.after)]
        used = {self.bos, self.eos}.union(*parts, *(self.names[name] for name in names))
        new = {token: number for number, token in enumerate(sorted(used))}  # the end token stays the largest

        def ids(old: Sequence[int]) -> tuple[int, ...]:
            return tuple(new[token] for token in old)

        return PromptTable(
            bos=new[self.bos],
            eos=new[self.eos],
            templates=tuple(replace(t, before=ids(t.before), after=ids(t.after)) for t in self.templates),
            names={name: ids(self.names[name]) for name in names},
        )

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Those of some names that the table does not hold."""
        return [name for name in names if name not in self.names]

    def ids(self, names: Sequence[str], context_length: int) -> Tensor:
        """See `PromptReader.ids`.

        Raises:
            SegmenterError: a name that the table does not hold.
        """
        if unknown := self.unknown(names):
            raise SegmenterError(f"no token ids for {', '.join(map(repr, unknown))}: {_TOKENIZER_HINT}")
        prompts = [[(*t.before, *self.names[name], *t.after) for t in self.templates] for name in names]
        longest = max(len(prompt) for row in prompts for prompt in row)
        length = min(context_length, longest + 2)
        ids = torch.full((len(names), len(self.templates), length), self.eos, dtype=torch.int64)
        ids[:, :, 0] = self.bos
        for k, row in enumerate(prompts):
            for t, prompt in enumerate(row):
                kept = prompt[: length - 2]
                ids[k, t, 1 : 1 + len(kept)] = torch.tensor(kept)
        return ids


class TokenizerReader:
    """Token ids by a tokenizer of CLIP's layout (begin token, text, end token).

    Args:
        tokenizer: of transformers, loaded.
        templates: texts with ``{}`` where the name goes.
    """

    def __init__(self, tokenizer: Any, templates: Sequence[str]) -> None:
        self._tokenizer, self._templates = tokenizer, list(templates)

    @classmethod
    def load(cls, path: str, templates: Sequence[str]) -> TokenizerReader:
        """Load a tokenizer from a local directory.

        Raises:
            SegmenterError: there is none.
        """
        if not path:
            raise SegmenterError(f"SEGMENTER.CLASSES names classes that are not COCO panoptic's: {_TOKENIZER_HINT}")
        if not Path(path).is_dir():
            raise SegmenterError(f"SEGMENTER.TOKENIZER: {path} is no directory: {_TOKENIZER_HINT}")
        # here, because the default classes need no tokenizer and transformers takes seconds to import
        from transformers import AutoTokenizer

        try:
            return cls(AutoTokenizer.from_pretrained(path, local_files_only=True), templates)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise SegmenterError(f"SEGMENTER.TOKENIZER: {path} cannot be read ({reason}): {_TOKENIZER_HINT}") from error

    def ids(self, names: Sequence[str], context_length: int) -> Tensor:
        """See `PromptReader.ids`.

        Raises:
            SegmenterError: the tokenizer puts no largest id at a prompt's end.
        """
        prompts = [template.replace("{}", name) for name in names for template in self._templates]
        rows: list[list[int]] = self._tokenizer(prompts, truncation=True, max_length=context_length)["input_ids"]
        for prompt, row in zip(prompts, rows, strict=True):
            if not row or row[-1] != max(row) or row.count(row[-1]) > 1:
                raise SegmenterError(
                    f"SEGMENTER.TOKENIZER: prompt {prompt!r} becomes the token ids {row}; the text encoder expects the "
                    "largest id at the end and nowhere else, as CLIP's tokenizer writes it"
                )
        length = max(len(row) for row in rows)
        ids = torch.tensor([row + row[-1:] * (length - len(row)) for row in rows])
        return ids.view(len(names), len(self._templates), length)


_TOKENIZER_HINT = (
    "set SEGMENTER.TOKENIZER to a directory with CLIP's tokenizer (tokenizer.json, or vocab.json and merges.txt, "
    "with tokenizer_config.json), e.g. that of openai/clip-vit-base-patch32"
)


def prompt_reader(names: Sequence[str], table: PromptTable, tokenizer: str) -> PromptReader:
    """What reads some names: a tokenizer where one is given, else a table that holds them all.

    Args:
        names: as `PromptReader.ids` takes them.
        table: the checkpoint's own, or the packaged one.
        tokenizer: a directory, or "".

    Raises:
        SegmenterError: a name needs a tokenizer and none is given, or it cannot be read.
    """
    if not tokenizer and not table.unknown(names):
        return table
    return TokenizerReader.load(tokenizer, [template.text for template in table.templates])


def prompt_names(class_names: Sequence[str]) -> list[str]:
    """Class names as prompts say them, with the background last."""
    return [*map(display_name, class_names), BACKGROUND]


def class_embeddings(encoder: TextEncoder, ids: Tensor, chunk: int = 512) -> Tensor:
    """One vector per class: the mean of its prompts' normed vectors, normed.

    Gradients flow; callers that only segment switch them off.

    Args:
        encoder: the text encoder.
        ids: token ids (K, T, L); for training one template per class (T = 1) is drawn and passed.
        chunk: prompts encoded at once.

    Returns:
        (K, D), each of length 1.
    """
    prompts = ids.flatten(0, 1).to(encoder.projection.device)
    lengths = lengths_of(prompts)
    order = lengths.argsort()  # like lengths together, since nothing after the first end token reaches the vector
    vectors = torch.cat([encoder(prompts[part, : lengths[part].max()]) for part in torch.split(order, chunk)])
    mean = unit_vectors(vectors[order.argsort()]).view(*ids.shape[:2], -1).mean(dim=1)
    return F.normalize(mean, dim=-1, eps=0.0)


def lengths_of(prompts: Tensor) -> Tensor:
    """Tokens of each prompt up to its end token, int64 (N,), of token ids (N, L)."""
    ended = (prompts == prompts.amax(dim=1, keepdim=True)).int().cumsum(dim=1) > 0
    return (~ended).sum(dim=1) + 1


def unit_vectors(x: Tensor) -> Tensor:
    """Vectors over their length plus 1e-7, along the last axis."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / (length + NORM_EPS)


def _ids(values: Any) -> tuple[int, ...]:
    """Token ids of a table.

    Raises:
        ValueError: they are none.
    """
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < _MOST_TOKENS for value in values):
        raise ValueError(f"{quoted(values)} are no token ids")
    return tuple(values)
