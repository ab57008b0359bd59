"""Lessons as rows: many questions behind one image, each of which sees the image and itself alone.

Shape legend: B rows, T tokens, P image tokens, Q questions of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from collavo.template import CHAT, IMAGE_TAG, STOP_TAG
from collavo.training_inputs import IGNORE_INDEX
from trainer.data.batches import positions_within, seen_within

from ..world.lessons import Lesson
from ..world.school import draw_kinds

LENGTH_POWER = -0.7
"""An answer of n tokens weighs n to the power of 0.3, so that lists do not drown single words."""


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
class PackedRow:
    """Rows of packed questions.

    Attributes:
        input_ids: int64 (B, T), image tokens repeated.
        labels: int64 (B, T).
        position_ids: int64 (B, T).
        attention_mask: bool (B, 1, T, T), True where a token is seen.
        weights: float32, one per labelled token, in order.
        kinds: kind of every labelled token; "" for end tags.
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

    Attributes:
        tokenizer: as given.
        prefix: ids of what all questions on an image share, image tokens written out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, num_image_tokens: int) -> None:
        self.tokenizer = tokenizer
        before, _ = CHAT.parts("", "", with_objects=False)
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
        return list(self.tokenizer(list(texts), add_special_tokens=False).input_ids)

    def rows(self, chosen: Sequence[Sequence[Encoded]]) -> PackedRow:
        """Put the questions of each row behind its image.

        Args:
            chosen: for every row its questions, in order.
        """
        start = len(self.prefix)
        length = start + max(sum(len(item.ids) for item in row) for row in chosen)
        ids = np.full((len(chosen), length), self._pad, np.int64)
        labels = np.full((len(chosen), length), IGNORE_INDEX, np.int64)
        parts = np.full((len(chosen), length), -1, np.int64)  # 0: image; 1, 2, ...: questions; -1: padding
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
                kinds += [item.kind] * (item.answer - 1) + [""]
                place = stop
        placed = torch.from_numpy(parts)
        return PackedRow(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            positions_within(placed),
            seen_within(placed),
            torch.from_numpy(np.concatenate(weights)),
            kinds,
        )


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
