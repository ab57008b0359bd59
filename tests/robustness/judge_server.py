"""A judge's server on loopback that does as it is told, also badly; imported by tests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.limits import LIMIT

Reaction = Callable[["Handler", Mapping[str, Any]], None]


class Server(ThreadingHTTPServer):
    """Answers with one reaction after the other, and with the last one from then on; remembers what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reactions: list[Reaction] = [says("0.5")]
        self.seen: list[Mapping[str, Any]] = []
        self.keys: list[str | None] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the game."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append(body)
            self.server.keys.append(self.headers["authorization"])
            reactions = self.server.reactions
            reaction = reactions.pop(0) if len(reactions) > 1 else reactions[0]
            self.server.busy, self.counted = self.server.busy + 1, 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        try:
            reaction(self, body)
        finally:
            self.over()

    def over(self) -> None:
        """The request keeps nobody busy any more; once, however often it is said."""
        with self.server.lock:
            self.server.busy, self.counted = self.server.busy - self.counted, 0

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.over()  # whoever has the reply may ask again before this thread runs on
        self.wfile.write(content)


def completion(text: str | None, finish: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "judge-2026-01-01",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102},
        }
    ).encode()


def says(text: str | None, finish: str = "stop") -> Reaction:
    return lambda handler, body: handler.send(200, completion(text, finish))


def raw(status: int, content: bytes, **headers: str) -> Reaction:
    return lambda handler, body: handler.send(status, content, **headers)


def refusal(status: int, **error: str) -> Reaction:
    return raw(status, json.dumps({"error": {"message": "no", "type": "x", **error}}).encode())


def hangs(handler: Handler, body: Mapping[str, Any]) -> None:
    """No reply, as long as the server runs."""
    handler.server.closing.wait(LIMIT)


def together(number: int) -> Reaction:
    """Replies when so many requests are there, to all of them."""
    there = threading.Barrier(number)

    def react(handler: Handler, body: Mapping[str, Any]) -> None:
        there.wait(LIMIT)
        handler.send(200, completion("0.5"))

    return react


def breaks_off(handler: Handler, body: Mapping[str, Any]) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
