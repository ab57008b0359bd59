"""``demo``: a page in the browser, served on this machine alone by the standard library."""

from __future__ import annotations

import argparse
import io
import json
import secrets
import threading
from collections import OrderedDict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from collavo.errors import ImageError, NonFiniteError
from configs.common.safe_json import parse_json
from configs.common.words import shown
from configs.load import ConfigError
from modeling.image import unknown_format
from modeling.segmenters.errors import SegmenterError

from ..results.browse.crayons import kept_map
from ..results.browse.page import demo_page
from ..runtime.console import say, tell
from ..runtime.errors import RunError
from .cli import Command
from .loaded_model import choose_model, load_chosen

if TYPE_CHECKING:
    from collavo import CoLLaVO

HOST = "127.0.0.1"
LARGEST_IMAGE, LARGEST_QUESTION = 64 * 2**20, 2**16
"""Bytes of a request."""
IMAGES_KEPT = 8
MAX_NEW_TOKENS = 256
EXAMPLES = """\
  lbk_entry.py demo
  lbk_entry.py demo --port 7861 --overrides RESUME_FROM /path/to/CoLLaVO
"""


class HttpRequestError(Exception):
    """A request that is not served: its status, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Demo:
    """What the page asks for; one request at a time uses the model.

    Args:
        model: answers.
        title: of the page.
    """

    def __init__(self, model: CoLLaVO, title: str) -> None:
        self.page = demo_page(title).encode()
        self._model, self._lock = model, threading.Lock()
        self._images: OrderedDict[str, Image.Image] = OrderedDict()

    def take_image(self, data: bytes) -> dict[str, Any]:
        """Segment an image and keep it.

        Raises:
            HttpRequestError: it is no image, or it cannot be segmented.
        """
        try:
            image = Image.open(io.BytesIO(data))
            with self._lock:
                panoptic, crayon = self._model.panoptic_map(image)
        except UnidentifiedImageError:
            raise HttpRequestError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the file {unknown_format(data)}") from None
        except (OSError, ImageError, SegmenterError, Image.DecompressionBombError) as error:
            reason = f"no image that can be read: {shown(str(error))}"
            raise HttpRequestError(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from None
        kept = kept_map(panoptic, crayon)
        name = secrets.token_hex(8)
        self._images[name] = image
        while len(self._images) > IMAGES_KEPT:
            self._images.popitem(last=False)
        return {"id": name, "map": {"side": kept.side, "runs": kept.runs, "objects": kept.objects}}

    def answer(self, asked: Any, heard: Any) -> None:
        """Answer a question piece by piece.

        Args:
            asked: the request's JSON.
            heard: called with every piece.

        Raises:
            HttpRequestError: it is malformed, or asks about an image that is not kept.
        """
        if not isinstance(asked, dict) or not isinstance(asked.get("question"), str):
            raise HttpRequestError(HTTPStatus.BAD_REQUEST, "expected an object with 'image' and 'question'")
        image = self._images.get(str(asked.get("image")))
        temperature = asked.get("temperature", 0.0)
        if image is None:
            raise HttpRequestError(HTTPStatus.GONE, "this image is no longer kept; choose it again")
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature <= 100:
            raise HttpRequestError(HTTPStatus.BAD_REQUEST, "the temperature must be from 0 to 100")
        options = {
            "max_new_tokens": MAX_NEW_TOKENS,
            "temperature": float(temperature),
            "seed": secrets.randbelow(2**31),
        }
        with self._lock:
            self._model.answer_aloud(
                image, asked["question"], heard, crayon=asked.get("crayon") is not False, **options
            )


class DemoHandler(BaseHTTPRequestHandler):
    """Serves the page, images and questions of a `Demo`."""

    protocol_version = "HTTP/1.1"
    server: DemoServer
    _begun = False

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        """The page."""
        try:
            self._check_caller()
            if self.path.split("?")[0] != "/":
                raise HttpRequestError(HTTPStatus.NOT_FOUND, "there is only the page")
        except HttpRequestError as error:
            return self._refuse(error)
        self._reply(HTTPStatus.OK, "text/html; charset=utf-8", self.server.demo.page)

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        """An image, or a question."""
        try:
            self._check_caller()
            if self.path == "/image":
                content = json.dumps(self.server.demo.take_image(self._body(LARGEST_IMAGE))).encode()
                return self._reply(HTTPStatus.OK, "application/json", content)
            if self.path != "/ask":
                raise HttpRequestError(HTTPStatus.NOT_FOUND, "there are image and ask")
            self._answer(self._body(LARGEST_QUESTION))
        except HttpRequestError as error:
            self._refuse(error)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the reader has left

    def _answer(self, body: bytes) -> None:
        """Send a reply in chunks, as it is generated."""
        try:
            asked = parse_json(body)
        except ValueError as error:
            raise HttpRequestError(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from None
        self._begun = False
        try:
            self.server.demo.answer(asked, self._chunk)
        except NonFiniteError as error:
            if not self._begun:
                raise HttpRequestError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
            self._chunk(f" [{error}]")
        self._begin()
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self._close_headers()

    def _chunk(self, piece: str) -> None:
        self._begin()
        data = piece.encode("utf-8", "backslashreplace")
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _check_caller(self) -> None:
        """Refuse what other sites would send here through the user's browser."""
        names = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in names or (
            origin is not None and origin not in {f"http://{n}" for n in names}
        ):
            raise HttpRequestError(HTTPStatus.FORBIDDEN, "this page talks to itself alone")

    def _body(self, largest: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise HttpRequestError(HTTPStatus.LENGTH_REQUIRED, "a request says its length")
        if int(length) > largest:
            raise HttpRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {largest} bytes")
        return self.rfile.read(int(length))

    def _refuse(self, error: HttpRequestError) -> None:
        self.close_connection = True  # what it sent may not have been read
        self._reply(error.status, "text/plain; charset=utf-8", str(error).encode("utf-8", "backslashreplace"))

    def _reply(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self._close_headers()
        self.wfile.write(content)

    def _close_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing of every request."""


class DemoServer(ThreadingHTTPServer):
    """A server on this machine alone.

    Args:
        demo: what it serves.
        port: 0 for any that is free.

    Raises:
        RunError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, demo: Demo, port: int) -> None:
        self.demo = demo
        try:
            super().__init__((HOST, port), DemoHandler)
        except OSError as error:
            raise RunError(f"--port {port}: {error.strerror or error}; choose another one") from None


def _options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("page")
    group.add_argument("--port", type=int, default=7860, help="on 127.0.0.1; 0 for any (default: %(default)s)")


def _demo(args: argparse.Namespace) -> int:
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port must be from 0 to 65535, got {args.port}")
    chosen = choose_model(args.conf_files, args.overrides)
    model = load_chosen(chosen)
    title = "the tiny CoLLaVO, which knows drawn scenes alone" if chosen.tiny else chosen.config.RESUME_FROM
    with DemoServer(Demo(model, title), args.port) as server:
        tell(f"demo:        http://{HOST}:{server.server_port}\n")
        say("Ctrl-C ends it.")
        server.serve_forever()
    return 0


DEMO = Command(
    name="demo", help="open a page on this machine to ask about your own images", options=_options, run=_demo,
    examples=EXAMPLES,
)  # fmt: skip
