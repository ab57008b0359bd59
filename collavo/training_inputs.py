"""A conversation as the ids that the model is trained on, with labels on what it is to say.

The first turn's prompt is the one of evaluation, from the same template and tokenizer. Labels are the ids of each
answer and of the end tag behind it; all else is `IGNORE`, which the loss of transformers skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from .template import IMAGE_TAG, START_TAG, STOP_TAG, SYSTEM, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100


class ConversationError(ValueError):
    """A conversation that cannot be trained on; the message names it and says why."""


class Exchange(Protocol):
    """A question with its answer."""

    @property
    def question(self) -> str:
        """The user's text."""

    @property
    def answer(self) -> str:
        """The reply to be learned."""


class Conversation(Protocol):
    """What is trained on; `datasets` has a class of this shape."""

    @property
    def id(self) -> str:
        """Names it in messages."""

    @property
    def turns(self) -> Sequence[Exchange]:
        """At least one."""

    @property
    def with_objects(self) -> bool:
        """Whether the first user turn tells the objects of the image."""

    @property
    def independent(self) -> bool:
        """Whether every turn is a conversation of its own, which shares only the image with the others."""

    @property
    def system(self) -> str:
        """Stands in the place of the template's first sentence; "" for that one."""


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """One row of a batch.

    Attributes:
        input_ids: begin-of-sequence in front, one ``<image>`` id if there is an image.
        labels: of the same length: the id itself where it is to be learned, else `IGNORE`.
        length: tokens that the model runs on, all image tokens counted.
        parts: of independent turns: 0 for what all of them share, n for the rest of the n-th; a token sees those before
            it of part 0 and of its own part. None where every token sees all before it.
    """

    input_ids: list[int]
    labels: list[int]
    length: int
    parts: list[int] | None = None


def training_inputs(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    conversation: Conversation,
    objects: str | None,
    num_image_tokens: int,
    max_length: int,
) -> TrainingInputs:
    """Turn a conversation into ids and labels.

    Args:
        tokenizer: knows the tags and ``<image>`` as single ids.
        template: one whose turns stand between the tags (`CHAT`).
        conversation: what is said; independent turns are laid side by side behind what they share.
        objects: the image's object list, "" where nothing was found; None for a conversation without an image.
        num_image_tokens: what the one ``<image>`` counts for.
        max_length: longest row in tokens, image tokens counted; what is longer is cut at its end.

    Raises:
        ConversationError: there is no turn, a text holds a tag, or nothing to learn is left within ``max_length``.
        ValueError: the template's turns do not stand between the tags.
    """
    if conversation.independent and len(conversation.turns) > 1:
        alone = [replace(_Alone.of(conversation), turns=(turn,)) for turn in conversation.turns]
        each = [training_inputs(tokenizer, template, one, objects, num_image_tokens, max_length) for one in alone]
        return _side_by_side(each, max_length)
    image, start, stop = (int(tokenizer.convert_tokens_to_ids(tag)) for tag in (IMAGE_TAG, START_TAG, STOP_TAG))
    head = _assistant_head(tokenizer, template, start)
    ids = list(tokenizer(_text(template, conversation, objects)).input_ids)
    starts, stops = ([place for place, index in enumerate(ids) if index == tag] for tag in (start, stop))
    num_tags = 2 * len(conversation.turns)  # one turn of the user, one of the assistant
    if (len(starts), len(stops), ids.count(image)) != (num_tags, num_tags, int(objects is not None)):
        raise ConversationError(f"sample {conversation.id}: a text holds one of {START_TAG}, {STOP_TAG}, {IMAGE_TAG}")
    input_ids: list[int] = []
    labels: list[int] = []
    done = 0
    for turn, opened, closed in zip(conversation.turns, starts[1::2], stops[1::2], strict=True):
        asked, reply = ids[done:opened] + head, ids[opened + len(head) : closed]
        if ids[opened : opened + len(head)] != head:  # the answer's first letters went into one token with the head's
            reply = list(tokenizer(turn.answer, add_special_tokens=False).input_ids)
        if {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(reply):
            raise ConversationError(
                f"sample {conversation.id}: the answer {turn.answer[:80]!r} holds a begin- or end-of-text tag"
            )
        input_ids += [*asked, *reply, stop]
        labels += [*[IGNORE] * len(asked), *reply, stop]
        done = closed + 1
    merged = num_image_tokens - 1 if objects is not None else 0
    return _cut(conversation.id, input_ids, labels, merged, max_length)


@dataclass(frozen=True, kw_only=True)
class _Alone:
    """One turn of a conversation, as a conversation."""

    id: str
    turns: Sequence[Exchange]
    with_objects: bool
    system: str
    independent: bool = False

    @classmethod
    def of(cls, conversation: Conversation) -> _Alone:
        return cls(
            id=conversation.id,
            turns=conversation.turns,
            with_objects=conversation.with_objects,
            system=conversation.system,
        )


def _side_by_side(each: Sequence[TrainingInputs], max_length: int) -> TrainingInputs:
    """Lay rows that begin alike behind one copy of what they share.

    Args:
        each: at least one row.
        max_length: rows at the end that go beyond it are left out; the first one always stays.
    """
    longest = min(next(i for i, label in enumerate(one.labels) if label != IGNORE) for one in each) - 1
    rows = [one.input_ids[:longest] for one in each]
    shared = next((i for i, ids in enumerate(zip(*rows, strict=True)) if len(set(ids)) > 1), longest)
    input_ids, labels, parts = each[0].input_ids[:shared], each[0].labels[:shared], [0] * shared
    length = each[0].length - len(each[0].input_ids) + shared
    for number, one in enumerate(each, start=1):
        added = len(one.input_ids) - shared
        if number > 1 and length + added > max_length:
            break
        input_ids, labels = input_ids + one.input_ids[shared:], labels + one.labels[shared:]
        parts, length = parts + [number] * added, length + added
    return TrainingInputs(input_ids=input_ids, labels=labels, length=length, parts=parts)


def _text(template: Template, conversation: Conversation, objects: str | None) -> str:
    """The whole conversation.

    Raises:
        ConversationError: it has no turn.
    """
    if not conversation.turns:
        raise ConversationError(f"sample {conversation.id}: there is no turn")
    first, *later = conversation.turns
    prompt = template.prompt(
        objects, first.question, with_objects=conversation.with_objects, system=conversation.system or SYSTEM
    )
    text = prompt + first.answer + template.end
    return text + "".join(template.next_turn(turn.question) + turn.answer + template.end for turn in later)


def _assistant_head(tokenizer: PreTrainedTokenizerBase, template: Template, start: int) -> list[int]:
    """The ids with which every prompt ends, from the start tag of the assistant on.

    Raises:
        ValueError: the template has no such tags.
    """
    ids = list(tokenizer(template.assistant, add_special_tokens=False).input_ids)
    if START_TAG not in template.user or STOP_TAG not in template.end or start not in ids:
        raise ValueError(f"the {template.name} template cannot be trained on: its turns stand between no tags")
    return ids[ids.index(start) :]


def _cut(name: str, input_ids: list[int], labels: list[int], merged: int, max_length: int) -> TrainingInputs:
    """Cut the end off a row that is too long.

    Args:
        name: the sample's.
        input_ids: of the whole row.
        labels: of the whole row.
        merged: tokens that the image adds to the ids.
        max_length: see `training_inputs`.

    Raises:
        ConversationError: nothing to learn is left.
    """
    kept = max(max_length - merged, 0)
    input_ids, labels = input_ids[:kept], labels[:kept]
    if all(label == IGNORE for label in labels):
        raise ConversationError(
            f"sample {name}: its first answer lies beyond the {max_length} tokens that a row may have"
        )
    return TrainingInputs(input_ids=input_ids, labels=labels, length=len(input_ids) + merged)
