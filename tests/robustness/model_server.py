"""Replies of servers of the OpenAI chat protocol as their documents describe them; imported by tests.

vLLM: docs.vllm.ai, OpenAI-compatible server (``reasoning_content``). OpenAI: platform.openai.com, chat completions
(``refusal``, ``x-ratelimit-*``, ``unsupported_parameter``). Gemini: ai.google.dev, OpenAI compatibility. Ollama: its
docs/openai.md (``reasoning``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.robustness.judge_server import Handler, Reaction, raw


def message(content: object, finish: str = "stop", tokens: int = 2, **more: Any) -> bytes:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "served-2026"}
    return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


def replies(content: object, finish: str = "stop", **more: Any) -> Reaction:
    return lambda handler, body: handler.send(200, message(content, finish, **more))


def error(status: int, headers: Mapping[str, str] = {}, **fields: Any) -> Reaction:
    body = json.dumps({"error": {"message": "no", "type": "invalid_request_error", "param": None, **fields}})
    return raw(status, body.encode(), **{name.replace("-", "_"): value for name, value in headers.items()})


def text_and_images(body: Mapping[str, Any]) -> tuple[str, list[bytes]]:
    """The user's text and the bytes of the images of a request."""
    content = body["messages"][-1]["content"]
    parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return text, [base64.b64decode(url.partition(",")[2]) for url in urls]


def digest(text: str, images: list[bytes]) -> str:
    """What `answers_by_digest` replies."""
    return hashlib.sha256(b"|".join([text.encode(), *images])).hexdigest()[:12]


def answers_by_digest(handler: Handler, body: Mapping[str, Any]) -> None:
    """A reply that belongs to this text and these images alone."""
    handler.send(200, message(digest(*text_and_images(body))))
