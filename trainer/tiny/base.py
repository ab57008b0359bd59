"""The tiny language model, taught to talk about what the vision tower sees, without crayon prompt.

It stands for what InternLM2 and the projector bring along at full size. Many questions share one picture in a row:
every question sees the picture and itself alone, at the positions that it would have by itself.

A plain start from random weights does not learn to look things up in a picture. What is done about it: input and output
share their words; image tokens resemble the words for their class, colour, text and place (auxiliary loss); the first
query head of every group starts equal to its key, and passes on what it finds (mimetic start, arXiv 2305.09828);
questions that need one look-up come first. The weights below were found by trial on this world.

Shape legend: B rows, T tokens, P image tokens, D width, Q questions of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from collavo.config import CoLLaVOConfig
from collavo.model import IGNORE_INDEX, CoLLaVOForConditionalGeneration
from collavo.template import CHAT, IMAGE_TAG, STOP_TAG
from datasets.tiny_world.facts import CORNERS
from datasets.tiny_world.lessons import Lesson
from datasets.tiny_world.school import draw_kinds
from modeling.segmenters.coco import display_name

from ..batches import positions_within, seen_within
from .scenes import CLASSES, COLOUR_NAMES, TEXTS, Drawn
from .vision import cosine, mean_loss

LENGTH_POWER = -0.7
"""An answer of n tokens weighs n to the power of 0.3, so that lists do not drown single words."""

_AUXILIARY = 0.5
LOOK_UPS = {
    **{"existence": 4.0, "class_binary": 3.0, "colour": 2.0, "count": 2.0, "box_class": 2.0, "judge/present": 1.0},
    **{"side": 1.5, "height": 1.0, "corner": 1.0, "text": 1.0, "choice/present": 1.0},
}
"""First phase: how often each kind of question is asked; others are not."""

EVERYTHING = {
    **{"existence": 2.0, "class_binary": 2.0, "colour": 1.5, "count": 2.0, "box_class": 3.0, "choice/present": 4.0},
    **{"relation": 2.0, "side": 1.5, "height": 1.0, "corner": 1.5, "text": 1.5, "box_numbered": 0.7, "refer": 0.7},
    **{"describe": 0.2, "names": 0.3, "names_boxes": 0.0, "class_boxes": 0.3, "scene": 0.3, "judge/scene": 0.2},
}
"""Second phase; kinds that are not listed have `OTHER`."""

OTHER = 0.6


@dataclass(frozen=True)
class Encoded:
    """A lesson in ids.

    Attributes:
        kind: of the lesson.
        ids: question, head of the answer, answer and end tag.
        answer: how many of them, at the end, are to be learned.
    """

    kind: str
    ids: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Row:
    """Rows of packed questions.

    Attributes:
        input_ids: int64 (B, T), image tokens repeated.
        labels: int64 (B, T).
        position_ids: int64 (B, T).
        attention_mask: bool (B, 1, T, T), True where a token is seen.
        weights: float32, one per labelled token, in order.
        kinds: kind of every labelled token.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    weights: Tensor
    kinds: Sequence[str]


class Packer:
    """Turns lessons into rows.

    Args:
        tokenizer: of the tiny model.
        num_image_tokens: P.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_image_tokens: int) -> None:
        self._tokenizer = tokenizer
        before, _ = CHAT.parts("", "", told=False)
        image = int(tokenizer.convert_tokens_to_ids(IMAGE_TAG))
        ids = list(tokenizer(before).input_ids)
        place = ids.index(image)
        self.prefix = [*ids[:place], *[image] * num_image_tokens, *ids[place + 1 :]]
        self._pad, self._stop = int(tokenizer.pad_token_id), int(tokenizer.convert_tokens_to_ids(STOP_TAG))

    def encode(self, lessons: Sequence[Sequence[Lesson]]) -> list[list[Encoded]]:
        """Ids of all lessons of all scenes; each text is encoded once."""
        texts = {(item.question, item.answer) for scene in lessons for item in scene}
        asked = list({question for question, _ in texts})
        said = list({answer for _, answer in texts})
        questions = dict(zip(asked, self._ids([q + CHAT.assistant for q in asked]), strict=True))
        answers = dict(zip(said, self._ids(said), strict=True))
        made = {
            pair: ((*questions[pair[0]], *answers[pair[1]], self._stop), len(answers[pair[1]]) + 1) for pair in texts
        }
        return [[Encoded(item.kind, *made[item.question, item.answer]) for item in scene] for scene in lessons]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return list(self._tokenizer(list(texts), add_special_tokens=False).input_ids)

    def rows(self, chosen: Sequence[Sequence[Encoded]]) -> Row:
        """Put the questions of each row behind its picture.

        Args:
            chosen: for every row its questions, in order.
        """
        start = len(self.prefix)
        length = start + max(sum(len(item.ids) for item in row) for row in chosen)
        ids = np.full((len(chosen), length), self._pad, np.int64)
        labels = np.full((len(chosen), length), IGNORE_INDEX, np.int64)
        parts = np.full((len(chosen), length), -1, np.int64)  # 0: picture; 1, 2, ...: questions; -1: padding
        weights: list[npt.NDArray[np.float32]] = []
        kinds: list[str] = []
        ids[:, :start], parts[:, :start] = self.prefix, 0
        for row, items in enumerate(chosen):
            place = start
            for number, item in enumerate(items, start=1):
                stop = place + len(item.ids)
                ids[row, place:stop], parts[row, place:stop] = item.ids, number
                labels[row, stop - item.answer : stop] = item.ids[-item.answer :]
                weights.append(np.full(item.answer, item.answer**LENGTH_POWER, np.float32))
                kinds += [item.kind] * item.answer
                place = stop
        placed = torch.from_numpy(parts)
        return Row(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            positions_within(placed),
            seen_within(placed),
            torch.from_numpy(np.concatenate(weights)),
            kinds,
        )


class SharedWords(nn.Module):
    """An output layer that is the embedding table, but for the last row (the image token)."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self._table = [table]  # in a list: its parameter belongs to the decoder

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of hidden states (..., D)."""
        return F.linear(hidden, self._table[0].weight[:-1])


class TokenSays(nn.Module):
    """Auxiliary losses: a projected image token resembles the words for what it shows, and tells its place.

    Args:
        table: the embedding table.
        words: ids of the words for every kind of label, the three of `place_labels` last.
        grid: image tokens a side.
    """

    def __init__(self, table: nn.Embedding, words: Sequence[Sequence[int]], grid: int) -> None:
        super().__init__()
        self._table = [table]
        self._places = place_labels(grid)
        self._words = [torch.tensor(ids) for ids in words]
        linears = [nn.Linear(table.embedding_dim, table.embedding_dim, bias=False) for _ in words]
        for linear in linears:
            nn.init.eye_(linear.weight)
        self.maps = nn.ModuleList(linears)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss.

        Args:
            features: (B, P, D), from the projector.
            labels: int64 (B, P, kinds of labels but for places); -1 for none.
        """
        normed = F.rms_norm(features, features.shape[-1:])
        loss = features.new_zeros(())
        labels = torch.cat([labels, self._places.expand(len(labels), -1, -1)], dim=-1)
        for kind, (mapping, words) in enumerate(zip(self.maps, self._words, strict=True)):
            logits = F.linear(mapping(normed), self._table[0].weight[words])
            loss = loss + mean_loss(logits, labels[..., kind])
        return loss


def place_labels(grid: int) -> Tensor:
    """Left or right, top or bottom, and corner (of `CORNERS`) of every image token, int64 (P, 3)."""
    index = torch.arange(grid**2)
    bottom, right = (index // grid >= grid / 2).long(), (index % grid >= grid / 2).long()
    return torch.stack([right, bottom, 2 * bottom + right], dim=-1)


def mimetic_start(model: CoLLaVOForConditionalGeneration) -> None:
    """Let the first query head of every group look for what is like its own token, and pass that on."""
    text = model.config.text
    groups = text.num_attention_heads // text.num_key_value_heads
    with torch.no_grad():
        for layer in model.language_model.layers:
            attention: Any = layer.attention
            packed = attention.wqkv.base.weight.view(text.num_key_value_heads, groups + 2, text.head_dim, -1)
            packed[:, 0] = packed[:, -2]
            out = attention.wo.base.weight.view(-1, text.num_key_value_heads, groups, text.head_dim)
            out[:, :, 0] = 0.5 * packed[:, -1].permute(2, 0, 1)


def choose(
    scenes: Sequence[Sequence[Encoded]], weights: Mapping[str, float], other: float, num: int, rng: np.random.Generator
) -> list[list[Encoded]]:
    """Draw up to ``num`` questions for each scene, without repeating one.

    Args:
        scenes: their lessons.
        weights: kind -> how often it is asked, whatever the number of its questions.
        other: the same for kinds that are not listed; 0 for never.
        num: Q.
        rng: source of chance.
    """
    return [
        [lessons[i] for i in draw_kinds([one.kind for one in lessons], weights, other, num, rng)] for lessons in scenes
    ]


def features_of(model: CoLLaVOForConditionalGeneration, pixels: Callable[[slice], Tensor], num: int) -> Tensor:
    """Features of the frozen tower, float16 (num, P, width), computed once.

    Args:
        model: its tower.
        pixels: slice -> normalised pictures.
        num: of pictures.
    """
    with torch.inference_mode():
        parts = [model.vision_tower(pixels(slice(i, i + 256))).half() for i in range(0, num, 256)]
    return torch.cat(parts).clone()


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the training.

    Attributes:
        steps: updates.
        weights: see `choose`.
        other: see `choose`.
    """

    steps: int
    weights: Mapping[str, float]
    other: float


def teach_language(
    model: CoLLaVOForConditionalGeneration,
    packer: Packer,
    drawn: Drawn,
    features: Tensor,
    phases: Sequence[Phase],
    *,
    seed: int,
    batch_size: int,
    questions: int,
    rate: float,
    say: Callable[[str], None],
) -> None:
    """Train decoder, PLoRA pairs of the image, and projector in place; tower and crayon prompt rest.

    Args:
        model: fresh but for its tower.
        packer: makes rows.
        drawn: scenes.
        features: of their pictures, see `features_of`.
        phases: one after the other, under one schedule of the rate.
        seed: of the order and the questions.
        batch_size: pictures of an update.
        questions: about each.
        rate: highest learning rate.
        say: gets a line now and then.
    """
    table = model.language_model.embed_tokens
    mimetic_start(model)
    output, model.output = model.output, SharedWords(table)  # type: ignore[assignment]
    helper = TokenSays(table, _word_ids(packer._tokenizer), model.config.grid)
    crayon = {id(p) for name, p in model.named_parameters() if "crayon" in name or name.startswith("vision_tower.")}
    parameters = [p for p in model.parameters() if id(p) not in crayon] + list(helper.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    encoded = packer.encode(drawn.lessons)
    labels = torch.from_numpy(drawn.labels).long()
    rng = np.random.default_rng(seed)
    steps, step = sum(phase.steps for phase in phases), 0
    order: list[int] = []
    tally = Tally()
    model.train()
    for phase in phases:
        for _ in range(phase.steps):
            if len(order) < batch_size:
                order += rng.permutation(len(encoded)).tolist()
            batch, order = order[:batch_size], order[batch_size:]
            row = packer.rows(choose([encoded[i] for i in batch], phase.weights, phase.other, questions, rng))
            for group in optimizer.param_groups:
                group["lr"] = cosine(step, steps, rate)
            projected = model.projector(features[batch].float())
            out = model(
                input_ids=row.input_ids,
                attention_mask=row.attention_mask,
                position_ids=row.position_ids,
                image_features=projected,
                labels=row.labels,
                num_items_in_batch=1,
            )
            target = row.labels[:, 1:][row.labels[:, 1:] != IGNORE_INDEX]
            each = F.cross_entropy(out.logits.float(), target, reduction="none")
            loss = (each * row.weights).sum() / row.weights.sum()
            auxiliary = helper(projected, labels[batch])
            optimizer.zero_grad(set_to_none=True)
            (loss + _AUXILIARY * auxiliary).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            tally.add(out.logits.detach().argmax(-1) == target, row.kinds)
            if step % 100 == 0 or step == steps:
                figures = f"loss {loss.item():.3f}, of image tokens {auxiliary.item():.3f}"
                say(f"language, update {step} of {steps}: {figures}; {tally.line()}")
                tally = Tally()
    with torch.no_grad():
        output.weight.copy_(table.weight[:-1])
    model.output = output
    model.eval()


class Tally:
    """Shares of answer tokens that were the likeliest ones, by kind of question."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, right: Tensor, kinds: Sequence[str]) -> None:
        """Count tokens."""
        for kind, good in zip(kinds, right.tolist(), strict=True):
            held = self._counts.setdefault(kind, [0, 0])
            held[0] += good
            held[1] += 1

    def line(self) -> str:
        """The shares in one line; end tags count as tokens."""
        return ", ".join(f"{kind} {good / num:.2f}" for kind, (good, num) in sorted(self._counts.items()))


def _word_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of the words for what an image token can say: class, colour, text, and its place three times.

    Raises:
        ValueError: a word is no single token.
    """
    found = []
    places = (["left", "right"], ["top", "bottom"], list(CORNERS))
    for names in ([display_name(name) for name in CLASSES], list(COLOUR_NAMES), list(TEXTS), *places):
        rows = tokenizer(names, add_special_tokens=False).input_ids
        if any(len(ids) != 1 for ids in rows):
            raise ValueError(f"every one of {names} must be one token of the vocabulary")
        found.append([ids[0] for ids in rows])
    return found


def config_of(tokenizer: PreTrainedTokenizerBase, image_size: int, patch_size: int) -> CoLLaVOConfig:
    """Sizes of the trained tiny model: 8x8 image tokens, four layers a tower, width 128."""
    image = int(tokenizer.convert_tokens_to_ids(IMAGE_TAG))
    return CoLLaVOConfig(
        text_config={
            "vocab_size": image,
            "embedding_rows": image + 1,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "plora_rank": 32,
            "plora_alpha": 32.0,
            "plora_dropout": 0.0,
            "initializer_range": 0.06,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "patch_size": patch_size,
            "image_size": image_size,
        },
        crayon_width=128,
        image_token_id=image,
        image_size=image_size,
    )
