"""``demo`` from an image to a reply: over HTTP, and in headless Chromium, on a tiny model with random weights."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets.tiny.random_checkpoint import make_tiny
from collavo import CoLLaVO
from pipeline.commands.demo import Demo, DemoServer
from pipeline.runtime.errors import RunError
from tests.browser import browser, needs_browser
from tests.limits import LIMIT
from tests.unit.collavo.test_engine import HalfSegmenter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CoLLaVO:
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    make_tiny(folder, seed=0)
    return CoLLaVO.from_pretrained(folder, bits=32, segmenter=HalfSegmenter(), device="cpu")


@pytest.fixture(scope="module")
def server(model: CoLLaVO) -> Iterator[DemoServer]:
    with DemoServer(Demo(model, "<b>title</b>"), 0) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join(LIMIT)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 203, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def send(server: DemoServer, method: str, path: str, body: bytes | str = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LIMIT)
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_an_image_is_segmented_and_asked_about(server: DemoServer, model: CoLLaVO, photo: Path) -> None:
    status, content = send(server, "POST", "/image", photo.read_bytes())
    found: dict[str, Any] = json.loads(content)
    assert status == 200 and [name for name, _, _ in found["map"]["objects"]] == ["person", "sky"]
    for crayon in (True, False):
        body = json.dumps({"image": found["id"], "question": "What is this?", "crayon": crayon})
        status, content = send(server, "POST", "/ask", body)
        assert (status, content.decode()) == (200, model.ask(photo, "What is this?", crayon=crayon))


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/other", b"", {}, 404),
        ("POST", "/other", b"", {}, 404),
        ("POST", "/image", b"no image", {}, 422),
        ("POST", "/ask", b"{", {}, 400),
        ("POST", "/ask", b"[]", {}, 400),
        ("POST", "/ask", b'{"image": "gone", "question": "?"}', {}, 410),
        ("POST", "/ask", b"x" * (2**16 + 1), {}, 413),
        ("GET", "/", b"", {"Host": "evil.example"}, 403),
        ("POST", "/ask", b"{}", {"Origin": "http://evil.example"}, 403),
    ],
)
def test_what_is_not_served_is_refused(
    server: DemoServer, method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert send(server, method, path, body, **headers)[0] == status


def test_the_page_is_for_this_machine_and_its_title_is_text(server: DemoServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, content = send(server, "GET", "/")
    page = content.decode()
    assert status == 200 and "&lt;b&gt;title" in page and "connect-src &#x27;self&#x27;" in page
    assert "http://" not in page and "https://" not in page


def test_a_taken_port_is_named(server: DemoServer) -> None:
    with pytest.raises(RunError, match=f"--port {server.server_port}: .*choose another"):
        DemoServer(server.demo, server.server_port)


@needs_browser
def test_from_upload_to_reply_in_a_browser(server: DemoServer, model: CoLLaVO, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with browser() as page:
        page.open(f"http://127.0.0.1:{server.server_port}/")
        hidden = "document.querySelector('.stage').hidden"
        assert page.eval(hidden), "no empty frame before there is an image"
        page.choose_file("#file", photo)
        page.wait("document.querySelector('.stage img').naturalWidth === 203")
        assert page.eval("document.querySelector('figure p').textContent") == "map: 1 person, 1 sky"
        page.wait("!document.querySelector('canvas').hidden")
        assert not page.eval(hidden)
        for crayon in (True, False):
            page.eval("document.querySelector('#last')?.removeAttribute('id')")
            page.eval(f"document.querySelector('#crayon').checked = {json.dumps(crayon)}")
            page.eval("document.querySelector('#question').value = 'What is <b>this</b>?'")
            page.eval("document.querySelector('#ask').click()")
            page.wait("document.querySelector('#last') !== null")
            reply = page.eval("document.querySelector('#last').textContent")
            assert reply == model.ask(photo, "What is <b>this</b>?", crayon=crayon)
        assert page.console == [] and page.eval("document.querySelectorAll('b').length") == 0
        page.choose_file("#file", tmp_path / "empty.jpg")
        page.wait("document.querySelector('figure p').textContent.includes('is empty')")
        assert page.eval(hidden), "an image that was refused is not the one before it"
