"""A model behind a server that does what servers do: dialects, faults, limits, refusals, and a key to be kept."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import io
import json
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from collavo.engine import Generation, Query, Reply
from configs.load import ConfigError
from datasets.evaluation.judges.base import JudgeError
from datasets.evaluation.judges.connection import wait_of
from datasets.types import ImageFile
from modeling.image import DecodedImage
from pipeline.base import NoReply
from pipeline.config import EvalConfig, read_configuration
from pipeline.models.endpoint import EndpointSource, check
from pipeline.models.endpoint_engine import EndpointEngine
from pipeline.models.images import data_url, read_images
from pipeline.models.request_limits import ConcurrencyGate
from pipeline.models.spending import spending_of
from pipeline.run.questions import Question
from pipeline.runtime.errors import RunError
from tests.robustness.judge_server import Handler, Server, breaks_off, hangs, raw, serving
from tests.robustness.model_server import answers_by_digest, digest, error, message, replies, text_and_images

KEY = "sk-proj-abcdefghijklmnop0123"
GREEDY = Generation(num_beams=1, max_new_tokens=16)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def engine_of(server: Server, *settings: Any, pauses: list[float] | None = None) -> EndpointEngine:
    words = ["MODEL.NAME", "endpoint", "MODEL.PATH", "m", "MODEL.BASE_URL", server.url, "MODEL.BACKOFF", "0"]
    config, _ = read_configuration([], [*words, *map(str, settings)], EvalConfig)
    waits: list[float] = [] if pauses is None else pauses
    return EndpointEngine(config.MODEL, config.profile, {"OPENAI_API_KEY": KEY}, pause=waits.append)


def ask(server: Server, *settings: Any) -> Reply | NoReply:
    return engine_of(server, *settings).answer([Query(None, "Is there a dog?")], GREEDY)[0]


OUTCOMES = {
    "openai refusal": (replies(None, refusal="I can't help with that."), "refused"),
    "openai filter": (replies("", "content_filter"), "refused"),
    "openai filter before": (error(400, code="content_filter"), "refused"),
    "dashscope filter": (error(400, code="data_inspection_failed"), "refused"),
    "gemini filter": (replies(None, "content_filter: PROHIBITED_CONTENT"), "refused"),
    "gemini safety": (replies(None, "SAFETY"), "refused"),
    "cut off": (replies("Yes, there", "length"), "truncated"),
    "gemini thoughts": (replies(None, "length"), "truncated"),
    "vllm thoughts": (replies(None, "length", reasoning_content="Let me see"), "truncated"),
    "ollama thoughts": (replies("", "length", reasoning="Let me see"), "truncated"),
    "thoughts in the text": (replies("<think>Let me see", "length"), "truncated"),
    "thoughts without end": (replies("<think>Let me see", "stop"), "truncated"),
    "empty": (replies(""), "empty"),
    "nothing": (replies(None), "empty"),
    "blank": (replies(" \n"), "empty"),
    "thoughts alone": (replies("<think>a dog</think>\n"), "empty"),
    "thoughts alone, begun by the template": (replies("a dog</think>\n"), "empty"),
    "parts of a refusal": (replies([{"type": "refusal", "refusal": "I cannot"}]), "refused"),
    "parts of thoughts": (replies([{"type": "thinking", "thinking": "Let me see"}], "length"), "truncated"),
    "no parts": (replies([]), "empty"),
    "a call of a tool": (replies(None, "tool_calls", tool_calls=[]), "empty"),
    "thoughts in place of a reply": (replies(None, reasoning_content="Yes, it is"), "empty"),
    "too large": (error(413), "failed"),
    "bad request": (error(400), "failed"),
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_outcomes_are_told_apart(server: Server, kind: str) -> None:
    reaction, outcome = OUTCOMES[kind]
    server.reactions = [reaction]
    found = ask(server)
    assert isinstance(found, NoReply)
    assert found.outcome == outcome
    assert len(server.seen) == 1, "nothing that another try would not change is asked again"


@pytest.mark.parametrize(
    ("reaction", "text"),
    [
        (replies("Yes"), "Yes"),
        (replies(" Yes.\n", reasoning_content="a dog is there"), "Yes."),
        (replies("Yes", reasoning="a dog is there"), "Yes"),
        (replies("<think>a dog\nis there</think>\n\nYes"), "Yes"),
        (replies("a dog\nis there</think>\n\nYes"), "Yes"),  # the server's template began the thoughts
        (replies([{"type": "text", "text": "Ye"}, {"type": "text", "text": "s"}]), "Yes"),
        (replies([{"type": "thinking", "thinking": "hm"}, {"type": "output_text", "text": "Yes"}]), "Yes"),
        (raw(200, message("Yes"), content_type="text/plain"), "Yes"),
        (replies("[LMMS_EVAL_REQUEST_FAILED] is what it says"), "[LMMS_EVAL_REQUEST_FAILED] is what it says"),
    ],
)
def test_replies_of_all_dialects(server: Server, reaction: Any, text: str) -> None:
    server.reactions = [reaction]
    found = ask(server)
    assert isinstance(found, Reply)
    assert (found.text, found.finished, found.num_tokens) == (text, True, 2)


@pytest.mark.parametrize(
    "fault",
    [
        error(429),
        error(500),
        error(503),
        raw(200, b"no json"),
        raw(200, b'{"choices": []}'),
        breaks_off,
        raw(502, b"<h"),
    ],
)
def test_passing_faults_are_asked_again_and_never_an_answer(server: Server, fault: Any) -> None:
    server.reactions = [fault, fault, replies("Yes")]
    found = ask(server)
    assert isinstance(found, Reply) and found.text == "Yes"
    server.reactions, server.seen = [fault], []
    lost = ask(server, "MODEL.ATTEMPTS", 3)
    assert isinstance(lost, NoReply) and lost.outcome == "failed" and "3 of 3 tries" in lost.reason
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("reaction", "said"),
    [
        (
            raw(200, b"<html>Sign in</html>", content_type="text/html"),
            "no completion, it begins with '<html>Sign in",
        ),
        (
            raw(200, b'data: {"choices": []}\n\n', content_type="text/event-stream"),
            "completion, it begins with 'data:",
        ),
        (raw(200, b'{"error": {"message": "overloaded", "code": 503}}'), "no text, but an error: {'message': 'overl"),
        (replies(5), "holds int in place of a text"),
        (replies({"text": "Yes"}), "holds dict in place of a text"),
        (raw(200, b"[" * 100_000), "RecursionError"),
        (raw(200, b'"Yes"'), "no completion, it begins with 'Yes'"),
    ],
)
def test_what_is_no_completion_is_named(server: Server, reaction: Any, said: str) -> None:
    server.reactions = [reaction]
    found = ask(server, "MODEL.ATTEMPTS", 2)
    assert isinstance(found, NoReply) and found.outcome == "failed" and said in found.reason
    assert len(server.seen) == 2


def test_of_several_replies_the_first_counts(server: Server) -> None:
    one, other = (json.loads(message(text))["choices"][0] for text in ("Yes", "No"))
    body = json.dumps({**json.loads(message("")), "choices": [{**other, "index": 1}, one]})
    server.reactions = [raw(200, body.encode())]
    found = ask(server)
    assert isinstance(found, Reply) and found.text == "Yes"


def test_nothing_is_sent_where_the_configuration_does_not_say(server: Server) -> None:
    """Neither images nor the key go along with a redirection."""
    with serving() as other:
        for status in (301, 302, 307, 308):
            server.reactions, server.seen = [raw(status, b"", location=f"{other.url}/{KEY}")], []
            with pytest.raises(RunError) as raised:
                ask(server)
            assert "sends us to another address" in str(raised.value) and f"{other.url}/[key]" in str(raised.value)
            assert (len(server.seen), len(other.seen)) == (1, 0)


def drips(handler: Handler, body: Any) -> None:
    """A body in which something comes all the time, and that never ends."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not handler.server.closing.wait(0.02):
            handler.wfile.write(b" ")


def test_a_body_without_end_is_a_failure(server: Server) -> None:
    server.reactions = [drips]
    found = ask(server, "MODEL.ATTEMPTS", 1, "MODEL.TIMEOUT", 0.3)
    assert isinstance(found, NoReply) and "did not reply in time" in found.reason


@pytest.mark.parametrize("packed", [False, True])
def test_a_body_of_any_length_is_not_read(server: Server, packed: bool) -> None:
    body = b"[" + b" " * (9 << 20) + b"]"
    sent = gzip.compress(np.random.default_rng(0).bytes(300 << 10)) if packed else body
    server.reactions = [raw(200, sent, **({"content_encoding": "gzip"} if packed else {}))]
    found = ask(server)
    limit = "256 KB" if packed else "8192 KB"
    assert isinstance(found, NoReply) and f"is no completion: it is longer than {limit}" in found.reason
    assert len(server.seen) == 1, "another try would not change it"


def test_a_server_that_hangs_is_a_failure(server: Server) -> None:
    server.reactions = [hangs]
    found = ask(server, "MODEL.ATTEMPTS", 1, "MODEL.TIMEOUT", 0.3)
    assert isinstance(found, NoReply) and "did not reply in time" in found.reason


NOW = datetime.datetime(2026, 11, 29, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": format_datetime(NOW + datetime.timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - datetime.timedelta(seconds=90), usegmt=True)}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        ({"x-ratelimit-reset-requests": "20ms", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 0.02),
        ({"x-ratelimit-reset-tokens": "12s", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset": "3"}, 12.0),
        ({"x-ratelimit-reset": str(int(NOW.timestamp()) + 30)}, 30.0),
        ({"x-ratelimit-reset": str(int(NOW.timestamp() * 1000) + 30000)}, 30.0),
        ({"x-ratelimit-reset": "2026-11-29T12:00:45Z"}, 45.0),
        ({"retry-after": "1e9999"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "999999"}, 86400.0),
        ({}, 0.0),
    ],
)
def test_how_long_a_server_wants_us_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert wait_of(headers, NOW) == pytest.approx(seconds)


def test_it_is_waited_as_long_as_the_server_wants(server: Server) -> None:
    server.reactions = [error(429, {"retry-after-ms": "120"}), replies("Yes")]
    pauses: list[float] = []
    found = engine_of(server, pauses=pauses).answer([Query(None, "?")], GREEDY)[0]
    assert isinstance(found, Reply)
    assert len(pauses) == 1 and 0.12 <= pauses[0] < 0.14


def test_settings_that_a_model_does_not_take_are_left_out(server: Server) -> None:
    unsupported: dict[str, Any] = {"code": "unsupported_parameter"}
    server.reactions = [
        error(400, param="max_tokens", **unsupported),
        error(400, param="temperature", code="unsupported_value"),
        replies("Yes"),
    ]
    engine = engine_of(
        server, "MODEL.SETTINGS", "{generation: {seed: 3, stop: [END]}}", "MODEL.EXTRA_BODY", "{top_k: 1}"
    )
    found = engine.answer([Query(None, "?")], GREEDY)[0]
    assert isinstance(found, Reply)
    first, *_, last = server.seen
    assert (first["max_tokens"], first["temperature"], first["seed"], first["stop"]) == (16, 0.0, 3, ["END"])
    assert first["top_k"] == 1
    assert last["max_completion_tokens"] == 16 and not {"max_tokens", "temperature"} & set(last)
    assert "temperature" in engine.name


def save(path: Path, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path.read_bytes()


def test_images_are_sent_in_their_own_bytes(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.webp"):
        encoded = save(tmp_path / name)
        image = read_images(ImageFile(tmp_path / name, name), several=False, model="m").parts[0]
        assert data_url(image).partition(",")[2] != ""
        assert text_and_images(_body(data_url(image)))[1] == [encoded]


def _body(url: str) -> dict[str, Any]:
    return {"messages": [{"content": [{"type": "image_url", "image_url": {"url": url}}]}]}


@pytest.mark.parametrize("case", ["bmp", "cmyk", "turned", "small"])
def test_other_images_are_sent_as_png(tmp_path: Path, case: str) -> None:
    """What some servers would read otherwise, or not at all."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / {"bmp": "a.bmp", "cmyk": "a.jpg", "turned": "a.jpg", "small": "a.jpg"}[case]
    save(path, "CMYK" if case == "cmyk" else "RGB", **({"exif": exif} if case == "turned" else {}))
    image = read_images(ImageFile(path, path.name), several=False, model="m").parts[0]
    url = data_url(image, 16 if case == "small" else None)
    assert url.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(text_and_images(_body(url))[1][0])) as sent:
        assert sent.size == {"turned": (20, 30), "small": (16, 11)}.get(case, (30, 20))
        if case != "small":
            assert np.array_equal(np.asarray(sent.convert("RGB")), image.pixels)


def test_the_image_comes_first_with_its_detail(server: Server) -> None:
    server.reactions = [answers_by_digest]
    image = DecodedImage(np.zeros((4, 4, 3), np.uint8), "x")
    settings = ("MODEL.IMAGE.DETAIL", "low", "MODEL.SETTINGS", "{prompt: {system: Be brief.}}")
    engine_of(server, *settings).answer([Query(image, "what?")], GREEDY)
    system, user = server.seen[0]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][0]["image_url"]["detail"] == "low"


def test_images_that_are_changed_are_said(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.reactions = [replies("ready")]
    for settings in ((), ("MODEL.IMAGE.MAX_SIDE", "512", "MODEL.IMAGE.DETAIL", "low")):
        words = ["MODEL.NAME", "endpoint", "MODEL.PATH", "m", "MODEL.BASE_URL", server.url, *settings]
        EndpointSource(read_configuration([], words, EvalConfig)[0], torch.device("cpu")).parts()
    said = capsys.readouterr().err
    assert said.count("images:") == 1
    assert "images:       shrunk to at most 512 pixels a side, sent with detail low (MODEL.IMAGE)" in said


def questions(folder: Path, images: int, each: int) -> list[Question]:
    found = []
    for number in range(images):
        pixels = np.full((8, 8, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        source = ImageFile(folder / f"{number}.png", f"{number}.png")
        found += [Question(image=source, prompt=f"q{i}", ids=(f"{number}-{i}",)) for i in range(each)]
    return found


def test_every_question_gets_its_own_answer_in_the_order_of_images(server: Server, tmp_path: Path) -> None:
    asked = questions(tmp_path, images=6, each=5)
    server.reactions = [answers_by_digest]
    engine = engine_of(server, "MODEL.CONCURRENCY", 8)
    found = {index: reply for index, reply, _ in engine.answer_each(asked, GREEDY)}
    assert sorted(found) == list(range(30))
    for index, question in enumerate(asked):
        assert question.image is not None
        reply = found[index]
        assert isinstance(reply, Reply) and reply.text == digest(question.prompt, [question.image.read()])
    order = [text_and_images(body)[1][0] for body in server.seen]
    for place, question in enumerate(asked):
        assert question.image is not None
        if place % 5 == 0:  # requests under way together may overtake each other
            assert abs(order.index(question.image.read()) - place) < 8
    assert 1 < server.most_busy <= 8


def test_images_of_two_benchmarks_with_one_name_are_not_mixed_up(server: Server, tmp_path: Path) -> None:
    """Names are unique within a benchmark alone; a run has one engine for all of them."""
    server.reactions = [answers_by_digest]
    engine = engine_of(server)
    for benchmark in range(2):
        folder = tmp_path / str(benchmark)
        folder.mkdir()
        asked = questions(folder, images=2, each=2)
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), 100 * benchmark + number, np.uint8)).save(folder / f"{number}.png")
        for index, reply, _ in engine.answer_each(asked, GREEDY):
            source = asked[index].image
            assert source is not None and isinstance(reply, Reply)
            assert reply.text == digest(asked[index].prompt, [source.read()]), benchmark


def test_a_damaged_image_is_never_sent(server: Server, tmp_path: Path) -> None:
    asked = questions(tmp_path, images=2, each=1)
    (tmp_path / "0.png").write_bytes(b"no image")
    server.reactions = [answers_by_digest]
    found = {index: reply for index, reply, _ in engine_of(server).answer_each(asked, GREEDY)}
    assert isinstance(found[0], NoReply) and "0.png" in found[0].reason
    assert isinstance(found[1], Reply)
    assert len(server.seen) == 1


def test_a_refused_key_ends_the_run_and_is_never_said(server: Server, tmp_path: Path) -> None:
    server.reactions = [answers_by_digest, error(401, message=f"bad key {KEY}")]
    engine = engine_of(server, "MODEL.CONCURRENCY", 1)
    got: list[tuple[int, Reply | NoReply, float]] = []
    with pytest.raises(RunError) as raised:
        got.extend(engine.answer_each(questions(tmp_path, 3, 1), GREEDY))
    assert [isinstance(reply, Reply) for _, reply, _ in got] == [True, False]
    assert KEY not in str(raised.value) and "[key]" in str(raised.value)
    assert KEY not in repr(got)


def test_max_cost_ends_the_run_and_keeps_what_was_answered(server: Server, tmp_path: Path) -> None:
    server.reactions = [answers_by_digest]  # 100 tokens in, 2 out: 0.000104 dollars
    prices = ("MODEL.PRICE_INPUT", 1, "MODEL.PRICE_OUTPUT", 2, "MODEL.MAX_COST", 0.0005, "MODEL.CONCURRENCY", 2)
    engine = engine_of(server, *prices)
    got: list[tuple[int, Reply | NoReply, float]] = []
    with pytest.raises(RunError, match="MAX_COST is reached: 4 replies, 400 tokens in, 8 out, 0.0004 US dollars"):
        got.extend(engine.answer_each(questions(tmp_path, 20, 1), GREEDY))
    assert len(got) == len(server.seen) == 4


def test_max_cost_holds_over_sessions_and_processes(server: Server, tmp_path: Path) -> None:
    """What was spent before counts, of this model alone; what is left is divided among the processes."""
    server.reactions = [answers_by_digest]
    asked = questions(tmp_path, 40, 1)
    words = ["MODEL.NAME", "endpoint", "MODEL.PATH", "m", "MODEL.BASE_URL", server.url, "SAVE_DIR", str(tmp_path / "s")]
    priced = [
        "MODEL.PRICE_INPUT",
        "1",
        "MODEL.PRICE_OUTPUT",
        "2",
        "MODEL.MAX_COST",
        "0.00095",
        "MODEL.CONCURRENCY",
        "2",
    ]

    def engine_of_session(rank: int = 0, world: int = 1, *more: str) -> EndpointEngine:
        config, _ = read_configuration([], [*words, *priced, *more], EvalConfig)
        spending = spending_of(config, {"RANK": str(rank), "WORLD_SIZE": str(world)})
        return EndpointEngine(config.MODEL, config.profile, {"OPENAI_API_KEY": KEY}, spending=spending)

    def run(engine: EndpointEngine) -> tuple[int, str]:
        got: list[object] = []
        with pytest.raises(RunError, match="MAX_COST is reached") as raised:
            got.extend(engine.answer_each(asked, GREEDY))
        return len(got), str(raised.value)

    file = tmp_path / "s" / "spending" / "process-0-killed.jsonl"
    file.parent.mkdir(parents=True)
    line = {"model": "m", "address": server.url, "replies": 3, "tokens_in": 300, "tokens_out": 6}
    foreign = json.dumps({**line, "model": "another", "tokens_in": 10**8})
    file.write_text("\n".join([json.dumps(line), foreign, "[]", "null", json.dumps(line)[:-20]]))
    for count, said in map(run, [engine_of_session(rank, 2) for rank in (0, 1)]):
        assert count == 3, "of (0.00095 - 3 * 0.000104) / 2 dollars"
        assert "3 replies, 300 tokens in, 6 out, 0.0003 US dollars, after 3 replies, 300 tokens in, 6 out, 0.0" in said
    assert run(engine_of_session())[0] == 0
    assert run(engine_of_session(0, 1, "MODEL.MAX_COST", "0.0012"))[0] == 2
    assert len(server.seen) == 8


def test_failures_in_a_row_end_the_run(server: Server, tmp_path: Path) -> None:
    server.reactions = [error(500)]
    settings = ("MODEL.GIVE_UP_AFTER", 3, "MODEL.ATTEMPTS", 1, "MODEL.CONCURRENCY", 1)
    with pytest.raises(RunError, match="3 questions in a row have no reply"):
        list(engine_of(server, *settings).answer_each(questions(tmp_path, 9, 1), GREEDY))
    assert len(server.seen) == 3


def test_concurrency_grows_and_is_halved_once_for_all_that_were_under_way() -> None:
    import threading
    import time

    gate, never = ConcurrencyGate(16), threading.Event()
    assert gate.limit == 4
    for _ in range(60):
        assert gate.enter(never)
        gate.leave(good=True)
    assert gate.limit > 8
    before, began = gate.limit, time.monotonic()
    for _ in range(5):
        gate.crowded(began, 0.0)
    assert gate.limit == before // 2
    never.set()
    assert not gate.enter(never)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("MODEL.MAX_COST", "1", "MODEL.BASE_URL", "http://localhost:1/v1"), "MAX_COST needs MODEL.PRICE_INPUT"),
        (("MODEL.SETTINGS", "{generation: {num_beams: 3}}"), "no beam search"),
        (("MODEL.SETTINGS", "{generation: {beams: 3}}"), "unknown key generation.beams"),
        ((), "put a key into the environment variable OPENAI_API_KEY"),
    ],
)
def test_settings_that_cannot_be(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, JudgeError), match=message):
        config, _ = read_configuration([], ["MODEL.NAME", "endpoint", "MODEL.PATH", "m", *settings], EvalConfig)
        check(config, {})


def test_a_setting_that_holds_the_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    words = ["MODEL.NAME", "endpoint", "MODEL.KEY_VARIABLE", "MY_KEY", "MODEL.EXTRA_BODY", json.dumps({"k": KEY})]
    with pytest.raises(ConfigError) as raised:
        read_configuration([], words)
    assert KEY not in str(raised.value) and "MODEL.EXTRA_BODY" in str(raised.value)


def test_the_probe_says_who_answers(server: Server) -> None:
    server.reactions = [error(503), replies(None, "length")]
    assert engine_of(server).probe() == "served-2026"
    server.reactions = [error(404)]
    with pytest.raises(JudgeError, match="is there such a model"):
        engine_of(server).probe()


def test_the_servers_text_is_what_it_sent(server: Server) -> None:
    server.reactions = [raw(200, message("Ja, ein Hund 🐕"))]
    found = ask(server)
    assert isinstance(found, Reply) and found.text == "Ja, ein Hund 🐕"
