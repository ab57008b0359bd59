"""A judge's server that repeats the key that it was sent: no file and no line of output may hold it."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from datasets.evaluation.judges.base import JudgeError
from datasets.evaluation.judges.chat import ChatJudge
from datasets.evaluation.judges.options import JudgeOptions
from pipeline.commands.cli import main
from tests.robustness.judge_server import Handler, Reaction, Server, completion, serving

KEY = "sk-proj-Zq7+/w=\"x\\y'0123456789"
FORMS = (
    KEY,
    json.dumps(KEY)[1:-1],
    json.dumps(json.dumps(KEY))[1:-1],
    repr(KEY)[1:-1],
    urllib.parse.quote(KEY, safe=""),
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "".join(f"\\u{ord(c):04x}" for c in KEY),
    KEY.encode().hex(),
    KEY[:20],
    KEY[-20:],
)
QUESTIONS = 12


def echo(handler: Handler) -> str:
    """Everything that a server might say about the key."""
    sent = handler.headers["authorization"]
    assert sent == f"Bearer {KEY}"
    return " | ".join([*FORMS, sent, sent.upper()])


def as_error(status: int) -> Reaction:
    def react(handler: Handler, body: Mapping[str, Any]) -> None:
        error = {"message": echo(handler), "type": KEY, "code": KEY, "param": KEY}
        handler.send(status, json.dumps({"error": error}).encode(), x_key=urllib.parse.quote(KEY))

    return react


def as_page(status: int) -> Reaction:
    return lambda handler, body: handler.send(status, f"<h1>{echo(handler)}".encode(), content_type="text/html")


def as_reply(handler: Handler, body: Mapping[str, Any]) -> None:
    handler.send(200, completion(echo(handler)))


def as_name(handler: Handler, body: Mapping[str, Any]) -> None:
    content = json.loads(completion("0.5"))
    content |= {"model": echo(handler), "id": KEY, "system_fingerprint": KEY}
    handler.send(200, json.dumps(content).encode())


def as_verdict(handler: Handler, body: Mapping[str, Any]) -> None:
    handler.send(200, completion(f"0.5 {echo(handler)}"))


def as_reason(handler: Handler, body: Mapping[str, Any]) -> None:
    handler.send(200, completion(None, finish=echo(handler)))


def as_no_json(handler: Handler, body: Mapping[str, Any]) -> None:
    handler.send(200, echo(handler).encode())


def as_redirect(handler: Handler, body: Mapping[str, Any]) -> None:
    handler.send(307, b"", location=f"http://127.0.0.1:1/{urllib.parse.quote(KEY)}/v1")


REACTIONS: dict[str, Reaction] = {
    **{f"error {status}": as_error(status) for status in (400, 401, 404, 422, 429, 500)},
    **{f"page {status}": as_page(status) for status in (200, 400, 403, 503)},
    "reply": as_reply,
    "name": as_name,
    "verdict": as_verdict,
    "reason": as_reason,
    "no JSON": as_no_json,
    "redirect": as_redirect,
}
TOLD = {*(f"error {status}" for status in (400, 401, 404, 422, 429, 500)), "reply", "reason"}
"""Reactions of which a message tells; the client library keeps pages to itself."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small MM-Vet and answers to it, and the key in the environment."""
    folder = tmp_path / "data" / "mm-vet"
    folder.mkdir(parents=True)
    item = {"imagename": "a.png", "imagesource": "made", "answer": "red", "capability": ["rec"]}
    content = {f"v1_{n}": {**item, "question": f"Which colour is {n}?"} for n in range(QUESTIONS)}
    (folder / "mm-vet.json").write_text(json.dumps(content))
    (tmp_path / "answers.json").write_text(json.dumps(dict.fromkeys(content, "blue")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    for name in ("OPENAI_BASE_URL", "COLLAVO_JUDGE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def score(server: Server) -> int:
    judge = ["JUDGE.BASE_URL", server.url, "JUDGE.BACKOFF", "0.001", "JUDGE.ATTEMPTS", "2", "JUDGE.CACHE", "cache"]
    words = ["score", "mm-vet", "--predictions", "answers.json", "--overrides", "DATASETS.ROOT", "data", *judge]
    return main(words)


def verdicts(here: Path) -> str:
    """What the judge's own folder of results keeps."""
    (file,) = (here / "score").rglob("verdicts.jsonl")
    assert file.with_name("results.json").is_file()
    return file.read_text()


def assert_secret(here: Path, shown: str) -> None:
    files = {path: path.read_text() for path in here.rglob("*") if path.is_file()}
    for where, text in {"terminal": shown, **files}.items():
        for form in FORMS:
            assert form.lower() not in text.lower(), (where, form)


@pytest.mark.parametrize("probe", [False, True], ids=["later", "at once"])
@pytest.mark.parametrize("reaction", REACTIONS)
def test_a_key_that_the_server_repeats_is_nowhere(
    here: Path, server: Server, reaction: str, probe: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ready: list[Reaction] = [lambda handler, body: handler.send(200, completion("0.5"))]
    server.reactions = [*([] if probe else ready), REACTIONS[reaction]]
    code = score(server)
    said = capsys.readouterr()
    assert_secret(here, said.out + said.err)
    assert server.seen
    if not probe:
        assert code == 0
        told = "[key]" in said.err and "[key]" in verdicts(here)
        assert told or reaction not in TOLD


def test_a_key_in_replies_that_were_kept_is_taken_out_when_they_are_read(
    here: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(server) == 0
    for file in (here / "cache").rglob("*.json"):
        kept = json.loads(file.read_text())
        file.write_text(json.dumps({**kept, "reply": f"0.5 {KEY}"}))
    assert score(server) == 0
    assert KEY[:20] not in verdicts(here)
    assert "[key]" in verdicts(here)


@pytest.mark.parametrize("key", ["sk-schlüssel-0123", "sk-01234\x0056789", "sk-0123\n456789", "sk-\u202e0123456789"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(server: Server, key: str) -> None:
    with pytest.raises(JudgeError, match="OPENAI_API_KEY holds characters") as refused:
        ChatJudge(JudgeOptions(base_url=server.url), {"OPENAI_API_KEY": key})
    assert key not in str(refused.value)
    assert not server.seen


def test_a_deeply_nested_reply_is_a_failure_like_others(server: Server) -> None:
    server.reactions = [lambda handler, body: handler.send(200, b"[" * 100_000)]
    judge = ChatJudge(JudgeOptions(base_url=server.url, attempts=1), {"OPENAI_API_KEY": KEY})
    with pytest.raises(JudgeError, match="cannot be used: "):
        judge.probe()


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--overrides", "EVAL.LIMIT", KEY],
        ["eval", "--overrides", KEY, "1"],
        ["eval", "--overrides", "SEGMENTER.NAME"] + [KEY, KEY],
        ["eval", "--conf_files", KEY],
        ["eval", f"--{KEY}"],
        [KEY],
        ["score", "--predictions", KEY],
    ],
)
def test_a_key_in_the_wrong_place_of_a_command_line_is_not_repeated(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    assert code == 2
    assert "error: " in said.err
    assert KEY[:12] not in said.err + said.out
