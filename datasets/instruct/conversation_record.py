"""One conversation as data sets write it: LLaVA's ``conversations``, or the ``messages`` of chat models.

``{"id", "image": "a.jpg", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}``
``{"images": ["a.jpg"], "messages": [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", ...}]}``
``{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text"}]}, ...]}``

Names of fields and speakers may be mixed; a message may name its image itself (``images``), and the system's text may
stand beside the messages (``system``). What cannot be trained on is refused with its reason: nothing is turned into a
conversation without its image, or with another one, and nothing that would change what is learned is passed over.

Source: LLaVA-1.5 (arXiv 2310.03744) and its trainer, which drops a first turn of the model; the chat format of OpenAI's
fine-tuning files and of transformers' chat templates for ``messages``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..registration.formats.files import MalformedError, as_id, brief, check_text, take
from .types import Turn

IMAGE_TAG = "<image>"
"""Marks the image's place in a text; the chat template has its own, so that it is taken out."""
USER, ASSISTANT, SYSTEM = "human", "gpt", "system"
_SPEAKERS = {
    "human": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "system": SYSTEM,
}
_IMAGE_KEYS = ("image", "images")
_LIKE_IMAGES = re.compile(r"(image|img|picture|photo|pixel|media)", re.IGNORECASE)
"""What names of fields hold that may mean an image, see `_check_media`."""
_IMAGE_FILE = re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?)$", re.IGNORECASE)
_TEXTS = ("id", "conversations", "messages", "system", "role", "from", "content", "value")
"""Fields whose text names no image."""
_SHARES = ("weight", "loss", "train")
"""How much of an answer is learned, as formats of other trainers say it."""
_SPOKEN = ("tool_calls", "function_call", "reasoning_content", "reasoning")
"""What a model says besides its text."""
_PART_IMAGE = ("image", "image_url", "path", "url")
_PART_NOTES = ("type", "id", "detail", "annotations", "cache_control")
"""Fields of a part that change nothing of what is learned."""
_OTHER_MEDIA = ("video", "videos", "audio", "audios", "image_url")
_TEXT_TYPES = ("text", "input_text", "output_text")
_IMAGE_TYPES = ("image", "image_url", "input_image")


@dataclass(frozen=True, kw_only=True)
class ConversationRecord:
    """What a record says.

    Attributes:
        id: its identifier; "" where it has none.
        image: path or base64 of its image; None for a conversation without one.
        turns: at least one.
        system: what stands in the place of the template's own first sentence; "" for that one.
    """

    id: str
    image: str | None
    turns: tuple[Turn, ...]
    system: str


@dataclass(frozen=True)
class _Message:
    """One message: who speaks, and what, with `IMAGE_TAG` where an image belongs."""

    index: int
    speaker: str
    text: str


def conversation_of(item: Any) -> ConversationRecord:
    """Read a record.

    Raises:
        MalformedError: it cannot be trained on; the message says why.
    """
    messages, inline = _messages(item)
    listed = list(_listed_images(item))
    images = listed if listed == inline else [*listed, *inline]
    _check_media(item, has_image=bool(images))
    if len(images) > 1:
        key = "image" if isinstance(item.get("image"), list) else "images"
        raise MalformedError(f"'{key}' lists {len(images)} images, a conversation can have one")
    system, spoken = _without_system(messages, item.get("system"))
    if spoken and spoken[0].speaker == ASSISTANT:  # as LLaVA's trainer does
        if IMAGE_TAG in spoken[0].text:
            raise MalformedError(f"message {spoken[0].index}: {IMAGE_TAG} stands in a first message of 'gpt'")
        spoken = spoken[1:]
    image = images[0] if images else None
    return ConversationRecord(
        id=_id(item), image=image, turns=_turns(spoken, has_image=image is not None), system=system
    )


def _id(item: Mapping[str, Any]) -> str:
    """The identifier, which may be missing."""
    if item.get("id") is None:
        return ""
    found = as_id(item["id"])
    if found is None:
        raise MalformedError(f"'id' should be a text or a whole number, got {brief(item['id'])}")
    check_text(found, "id")
    return found.strip()


def _messages(item: Any) -> tuple[list[_Message], list[str]]:
    """All messages, and the images that stand within them."""
    key = "messages" if isinstance(item, Mapping) and "conversations" not in item and "messages" in item else None
    if key is None and isinstance(item, Mapping) and item.get("messages") not in (None, [], item.get("conversations")):
        raise MalformedError("has 'conversations' and other 'messages'; which of them are meant?")
    found, images = [], []
    messages = take(item, key or "conversations", list)
    for index, message in enumerate(messages):
        speaker, text, inline = _message(message, index, key is not None)
        found.append(_Message(index, speaker, text))
        images += inline
    for index, message in enumerate(messages):
        _check_media(message, has_image=bool(images), where=f"message {index}: ")
    return found, images


def _message(message: Any, index: int, as_chat: bool) -> tuple[str, str, list[str]]:
    """Who speaks, what, and the images within."""
    by_role = isinstance(message, Mapping) and "from" not in message and ("role" in message or as_chat)
    said = take(message, "role" if by_role else "from", str)
    speaker = _SPEAKERS.get(said.strip().lower())
    if speaker is None:
        raise MalformedError(f"message {index}: {brief(said)} is none of {', '.join(_SPEAKERS)}")
    if speaker == ASSISTANT:
        _check_answer(message, index)
    key = "content" if by_role or "value" not in message and "content" in message else "value"
    text, images = _joined(message[key], index) if isinstance(message.get(key), list) else (take(message, key, str), [])
    if (listed := list(_listed_images(message))) != images:
        text = text if images or IMAGE_TAG in text else IMAGE_TAG + text
        images = [*images, *listed]
    return speaker, text, images


def _check_answer(message: Mapping[str, Any], index: int) -> None:
    """Refuse an answer that is not learned as a whole, or that is more than its text.

    Raises:
        MalformedError: naming the field.
    """
    for key in _SHARES:
        if message.get(key) not in (None, 1):
            raise MalformedError(f"message {index}: '{key}' is {brief(message[key])}; every answer is learned alike")
    for key in _SPOKEN:
        if message.get(key):
            raise MalformedError(f"message {index}: '{key}' is not read; an answer is its text alone")


def _joined(parts: list[Any], index: int) -> tuple[str, list[str]]:
    """The text of a message in parts, and the images within."""
    text, images = "", []
    for part in parts:
        if isinstance(part, str):
            check_text(part, "content")
            text += part
            continue
        kind = take(part, "type", str)
        if kind in _TEXT_TYPES:
            text += take(part, "text", str)
            _check_part(part, ("text",), index)
        elif kind in _IMAGE_TYPES:
            _check_part(part, _PART_IMAGE, index)
            text += IMAGE_TAG
            images += _inline_image(part, index)
        else:
            raise MalformedError(f"message {index}: a part of type {brief(kind)} cannot be trained on")
    return text, images


def _check_part(part: Mapping[str, Any], read: tuple[str, ...], index: int) -> None:
    """Refuse a part that holds more than is read.

    Raises:
        MalformedError: naming the field.
    """
    for key, value in part.items():
        if key not in (*read, *_PART_NOTES) and isinstance(value, (str, list, Mapping)) and value:
            raise MalformedError(f"message {index}: {brief(key)} of a part of type {brief(part['type'])} is not read")


def _inline_image(part: Mapping[str, Any], index: int) -> list[str]:
    """The image that a part names; none where ``images`` of the record does."""
    found = next((part[key] for key in _PART_IMAGE if part.get(key) is not None), None)
    if isinstance(found, Mapping):
        found = found.get("url", found.get("path"))
        if found is None:
            raise MalformedError(f"message {index}: an image part names no file")
    return [] if found is None else [_image_name(found, f"message {index}: an image part")]


def _listed_images(item: Mapping[str, Any]) -> Iterator[str]:
    """What ``image`` or ``images`` of a record or a message names."""
    keys = [key for key in _IMAGE_KEYS if item.get(key) not in (None, [])]
    if len(keys) > 1 and _as_list(item["image"]) == _as_list(item["images"]):
        keys = keys[:1]
    for key in keys:
        for one in _as_list(item[key]):
            named = one.get("path") if isinstance(one, Mapping) and isinstance(one.get("path"), str) else one
            yield _image_name(named, f"'{key}'")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _image_name(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise MalformedError(f"{where} should be a text, got {brief(name)}")
    check_text(name, where.strip("'"))
    if name.startswith(("http://", "https://")):
        raise MalformedError(f"{where} is an address, {brief(name)}; download it, and name the file")
    return name.removeprefix("file://")


def _check_media(item: Mapping[str, Any], *, has_image: bool, where: str = "") -> None:
    """Refuse what would be lost.

    Args:
        item: a record or a message.
        has_image: whether an image was found.
        where: begins the message of an error.

    Raises:
        MalformedError: there is something else than an image, or perhaps one under a name that is not read.
    """
    for key in _OTHER_MEDIA:
        if item.get(key) not in (None, [], ""):
            raise MalformedError(f"{where}'{key}' cannot be trained on; a conversation has one image ('image') or none")
    for key, value in item.items():
        if has_image or key in _IMAGE_KEYS or key in _TEXTS or not _may_name_image(key, value):
            continue
        raise MalformedError(
            f"{where}{brief(key)} is not read, and there is no 'image', which should name the image's file"
        )


def _may_name_image(key: str, value: Any) -> bool:
    """Whether a field sounds like an image's, or holds the name of an image's file."""
    if not isinstance(value, (str, list, Mapping)) or not value:
        return False
    if _LIKE_IMAGES.search(key):
        return True
    return any(isinstance(one, str) and _IMAGE_FILE.search(one.strip()) for one in _as_list(value))


def _without_system(messages: list[_Message], beside: Any) -> tuple[str, list[_Message]]:
    """The system's text, and the other messages.

    Args:
        messages: all.
        beside: the record's own ``system``, if it has one.

    Raises:
        MalformedError: it does not stand first, stands there twice, is no text, or holds an image.
    """
    if beside not in (None, ""):
        if messages and messages[0].speaker == SYSTEM:
            raise MalformedError("message 0: the record has a 'system' already")
        messages = [_Message(0, SYSTEM, take({"system": beside}, "system", str)), *messages]
    system = ""
    if messages and messages[0].speaker == SYSTEM:
        system, messages = messages[0].text.strip(), messages[1:]
    if IMAGE_TAG in system:
        raise MalformedError(f"message 0: {IMAGE_TAG} cannot stand in a system message")
    if late := next((one for one in messages if one.speaker == SYSTEM), None):
        raise MalformedError(f"message {late.index}: a system message can only be the first, got 'system'")
    return system, messages


def _turns(messages: list[_Message], *, has_image: bool) -> tuple[Turn, ...]:
    """Pair questions with answers.

    Raises:
        MalformedError: they do not alternate, one is empty, or the image tag stands where no image can.
    """
    texts = []
    for place, message in enumerate(messages):
        wanted = (USER, ASSISTANT)[place % 2]
        if message.speaker != wanted:
            raise MalformedError(f"message {message.index}: expected '{wanted}' to speak, got {brief(message.speaker)}")
        text = _without_tag(message.text) if place == 0 and has_image else message.text
        if IMAGE_TAG in text:
            allowed = "may stand once, in the first message of a record with 'image'"
            raise MalformedError(f"message {message.index}: {IMAGE_TAG} {allowed}")
        if not text.strip():
            raise MalformedError(f"message {message.index} is empty")
        texts.append(text)
    if not texts or len(texts) % 2:
        raise MalformedError(f"expected questions and answers in pairs, got {len(texts)} messages")
    return tuple(Turn(question=q, answer=a) for q, a in zip(texts[::2], texts[1::2], strict=True))


def _without_tag(text: str) -> str:
    """A first message without its tag, and without the space that set it apart."""
    before, tag, after = text.partition(IMAGE_TAG)
    if not tag:
        return text
    return f"{before.rstrip()}{' ' if before.strip() and after.strip() else ''}{after.lstrip()}"
