"""A judge against a real HTTP server on loopback that misbehaves on purpose."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from datasets.evaluation.judges.base import JudgeError, Request, collect
from datasets.evaluation.judges.chat import ChatJudge
from datasets.evaluation.judges.options import JudgeConfig
from tests.limits import LIMIT, wait_for
from tests.robustness.judge_server import (
    Handler,
    Reaction,
    Server,
    breaks_off,
    completion,
    hangs,
    raw,
    refusal,
    says,
    serving,
    together,
)

IMPATIENT: dict[str, Any] = {"TIMEOUT": 0.3}
"""For servers that never reply."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


class Pauses(list[float]):
    """What a judge would have waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def judge(server: Server, pauses: Pauses | None = None, **changes: Any) -> ChatJudge:
    settings = {
        "MODEL": "judge",
        "BASE_URL": server.url,
        "TIMEOUT": LIMIT,
        "CONCURRENCY": 1,
        "ATTEMPTS": 3,
        "CACHE": "",
    }
    return ChatJudge(
        JudgeConfig(**{**settings, **changes}),
        {"OPENAI_API_KEY": "secret"},
        pause=Pauses() if pauses is None else pauses,
    )


def number(reply: str) -> str | None:
    return reply if reply.replace(".", "", 1).isdigit() else None


def request(name: str = "q1", prompt: str = "How good?", part: str = "run1") -> Request:
    return Request(record=name, part=part, prompt=prompt, parse=number, reminder="A number, please.", max_tokens=16)


BROKEN = completion("0.5")[:70]
TROUBLES: dict[str, tuple[Reaction, str]] = {
    "429": (raw(429, b'{"error": {"message": "slow down"}}'), "answers Error code: 429"),
    "500": (raw(500, b"oops"), "answers Error code: 500"),
    "503": (raw(503, b""), "answers Error code: 503"),
    "hangs": (hangs, "did not reply in time"),
    "truncated JSON": (raw(200, BROKEN), "no JSON"),
    "not UTF-8": (raw(200, b'{"choices": "\xff"}'), "no JSON"),
    "truncated body": (raw(200, completion("0.5"), content_length="9999"), "no connection|did not reply in time"),
    "hangs up": (breaks_off, "no connection"),
    "a web page": (
        raw(200, b"<html>hello</html>", content_type="text/html"),
        "is no completion, it begins with '<html>hello</html>'",
    ),
    "null": (raw(200, b"null"), "holds no text"),
    "a list": (raw(200, b"[1, 2]"), "holds no text"),
    "nothing": (raw(200, b"{}"), "holds no text"),
    "no choices": (raw(200, b'{"choices": []}'), "holds no text"),
    "odd choices": (raw(200, b'{"choices": [5]}'), "holds no text"),
    "odd message": (raw(200, b'{"choices": [{"message": "0.5"}]}'), "holds no text"),
    "no content": (says(None), "holds no text"),
    "content of numbers": (raw(200, b'{"choices": [{"message": {"content": [0.5]}}]}'), "holds no text"),
    "nonsense": (says("I like turtles"), "no verdict in the reply 'I like turtles'"),
    "an empty reply": (says(""), "no verdict in the reply ''"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_that_passes_costs_nothing_but_a_try(server: Server, trouble: str) -> None:
    server.reactions = [TROUBLES[trouble][0], says("0.5")]
    asked = judge(server, **(IMPATIENT | {"ATTEMPTS": 1000} if trouble == "hangs" else {}))
    assert collect(asked.ask([request()])) == {"q1": {"run1": "0.5"}}
    # on a busy machine a reply that does come can be too late for somebody impatient
    assert len(server.seen) == 2 or trouble == "hangs"


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_that_stays_leaves_the_sample_without_a_verdict(server: Server, trouble: str) -> None:
    reaction, message = TROUBLES[trouble]
    server.reactions = [reaction]
    asked = judge(server, **(IMPATIENT if trouble == "hangs" else {}))
    (verdict,) = asked.ask([request()])
    assert verdict.value is None
    assert any(words in verdict.failure for words in message.split("|"))
    assert "3 of 3 tries" in verdict.failure
    wait_for(lambda: len(server.seen) == 3)  # whoever gives up early does not wait until the server has read
    assert asked.usage.failed == 1


def test_the_server_decides_how_long_to_wait_and_pauses_grow(server: Server) -> None:
    server.reactions = [raw(429, b"{}", retry_after="7"), raw(500, b""), raw(500, b""), says("1")]
    pauses = Pauses()
    judge(server, pauses, ATTEMPTS=5).ask([request()])
    assert pauses[0] == 7.0
    assert 1.5 <= pauses[1] <= 2.5
    assert 3.0 <= pauses[2] <= 5.0


def test_an_unreadable_reply_is_asked_for_again_with_a_reminder_and_then_hotter(server: Server) -> None:
    server.reactions = [says("hm"), says("well"), says("0.5")]
    asked = judge(server)
    (verdict,) = asked.ask([request()])
    assert (verdict.value, verdict.reply) == ("0.5", "0.5")
    assert [body["temperature"] for body in server.seen] == [0.0, 0.0, 0.5]
    prompts = [body["messages"][0]["content"] for body in server.seen]
    assert prompts == ["How good?", "How good?\n\nA number, please.", "How good?\n\nA number, please."]


def test_settings_key_and_usage(server: Server) -> None:
    asked = judge(server, PRICE_INPUT=10.0, PRICE_OUTPUT=50.0, TEMPERATURE=0.2)
    assert asked.usage.describe().startswith("0 replies, 0 from the cache")
    asked.ask([request("q1"), request("q2", "Other?")])
    assert server.keys == ["Bearer secret"] * 2
    assert {key: server.seen[0][key] for key in ("model", "max_tokens", "temperature")} == {
        "model": "judge",
        "max_tokens": 16,
        "temperature": 0.2,
    }
    usage = asked.usage
    assert (usage.asked, usage.input_tokens, usage.output_tokens) == (2, 200, 4)
    assert usage.cost == pytest.approx((200 * 10 + 4 * 50) / 1e6)
    assert "0.0022 US dollars" in usage.describe()
    assert "cost unknown" in judge(server).usage.describe()


def test_a_rerun_costs_nothing(server: Server, tmp_path: Path) -> None:
    questions = [request("q1"), request("q2", "Other?"), request("q1", part="run2")]
    server.reactions = [says("0.1"), says("0.2"), says("0.3")]
    first = judge(server, CACHE=str(tmp_path / "replies")).ask(questions)
    again = judge(server, CACHE=str(tmp_path / "replies"))
    assert again.ask(questions) == first
    assert [verdict.value for verdict in first] == ["0.1", "0.2", "0.3"]
    assert len(server.seen) == 3
    assert (again.usage.asked, again.usage.cached) == (0, 3)


@pytest.mark.parametrize("change", [{"MODEL": "other"}, {"TEMPERATURE": 0.7}])
def test_another_judge_is_asked_anew(server: Server, tmp_path: Path, change: dict[str, Any]) -> None:
    judge(server, CACHE=str(tmp_path)).ask([request()])
    judge(server, CACHE=str(tmp_path), **change).ask([request()])
    assert len(server.seen) == 2


def test_what_has_no_verdict_is_not_kept_and_damaged_files_are_asked_anew(server: Server, tmp_path: Path) -> None:
    server.reactions = [says("hm")]
    assert judge(server, CACHE=str(tmp_path)).ask([request()])[0].value is None
    assert not list(tmp_path.rglob("*.json"))
    server.reactions = [says("0.5")]
    judge(server, CACHE=str(tmp_path)).ask([request()])
    (kept,) = tmp_path.rglob("*.json")
    for damage in ("", "[]", '{"reply": 5}', kept.read_text()[:20]):
        kept.write_text(damage)
        asked = judge(server, CACHE=str(tmp_path))
        assert asked.ask([request()])[0].value == "0.5"
        assert asked.usage.asked == 1


def test_a_killed_run_keeps_the_replies_that_came(server: Server, tmp_path: Path) -> None:
    def interrupt(judged: int, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options = JudgeConfig(MODEL="judge", BASE_URL=server.url, CONCURRENCY=1, CACHE=str(tmp_path))
    questions = [request(f"q{k}", f"Question {k}?") for k in range(50)]
    with pytest.raises(KeyboardInterrupt):
        ChatJudge(options, {}, progress=interrupt).ask(questions)
    assert 2 <= len(server.seen) < 50
    asked = judge(server, CACHE=str(tmp_path))
    assert len(collect(asked.ask(questions))) == 50
    assert asked.usage.cached >= 2
    assert len(server.seen) <= 51


def test_equal_questions_are_sent_once_and_many_at_a_time(server: Server) -> None:
    server.reactions = [together(4)]
    questions = [request(f"q{k}", f"Question {k % 8}?") for k in range(16)]
    asked = judge(server, CONCURRENCY=4)
    verdicts = asked.ask(questions)
    assert [verdict.record for verdict in verdicts] == [f"q{k}" for k in range(16)]
    assert {verdict.value for verdict in verdicts} == {"0.5"}
    assert len(server.seen) == 8
    assert server.most_busy == 4


def test_failures_of_some_do_not_touch_the_others(server: Server) -> None:
    def react(handler: Handler, body: Mapping[str, Any]) -> None:
        (refusal(400, code="content_filter") if "bad" in body["messages"][0]["content"] else says("1"))(handler, body)

    server.reactions = [react]
    verdicts = judge(server).ask([request("a"), request("b", "bad"), request("c", "good")])
    assert [verdict.value for verdict in verdicts] == ["1", None, "1"]
    assert "refuses this request" in verdicts[1].failure
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("reaction", "words"),
    [
        (refusal(401), "is the key right?"),
        (refusal(403), "may this key use the model?"),
        (refusal(404), "is there such a model"),
        (refusal(429, code="insufficient_quota"), "no credit left"),
    ],
)
def test_a_judge_that_is_lost_is_not_bothered_further(server: Server, reaction: Reaction, words: str) -> None:
    server.reactions = [says("1"), reaction]
    verdicts = judge(server).ask([request(f"q{k}", f"{k}?") for k in range(5)])
    assert [verdict.value for verdict in verdicts] == ["1", None, None, None, None]
    assert all(words in verdict.failure for verdict in verdicts[1:])
    assert len(server.seen) == 2


@pytest.mark.parametrize("param", [["max_tokens"], {"max_tokens": 1}, 5, None, "messages"])
def test_odd_refusals(server: Server, param: Any) -> None:
    server.reactions = [raw(400, json.dumps({"error": {"message": "no", "param": param}}).encode())]
    assert "refuses this request" in judge(server).ask([request()])[0].failure
    assert len(server.seen) == 1


def test_many_failures_in_a_row_end_it(server: Server) -> None:
    server.reactions = [raw(500, b"")]
    verdicts = judge(server, GIVE_UP_AFTER=3).ask([request(f"q{k}", f"{k}?") for k in range(9)])
    assert len(server.seen) == 9
    assert "not asked: the judge failed 3 times in a row" in verdicts[-1].failure


def test_the_probe_names_the_model_that_answers(server: Server) -> None:
    asked = judge(server)
    assert asked.probe() == "judge-2026-01-01"
    assert asked.name == f"judge at {server.url}"


@pytest.mark.parametrize("reaction", [refusal(401), raw(500, b""), raw(200, b"<html>"), hangs])
def test_the_probe_says_why_it_fails(server: Server, reaction: Reaction) -> None:
    server.reactions = [reaction]
    with pytest.raises(JudgeError, match=f"the judge judge at {server.url} cannot be used: "):
        judge(server, **(IMPATIENT if reaction is hangs else {})).probe()


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = JudgeConfig(BASE_URL=f"http://127.0.0.1:{port}/v1", CACHE="")
    with pytest.raises(JudgeError, match="no connection to the judge: .*refused"):
        ChatJudge(options, {}, pause=Pauses()).probe()


def test_models_that_dropped_settings(server: Server) -> None:
    def react(handler: Handler, body: Mapping[str, Any]) -> None:
        for name in ("max_tokens", "temperature"):
            if name in body:
                refusal(400, param=name, code="unsupported_parameter")(handler, body)
                return
        says("1")(handler, body)

    server.reactions = [react]
    asked = judge(server, ATTEMPTS=1)
    assert [v.value for v in asked.ask([request("a"), request("b", "b?")])] == ["1", "1"]
    assert server.seen[-1]["max_completion_tokens"] == 16
    assert len(server.seen) == 4
    assert asked.name.endswith("at its own temperature")


def test_a_reasoning_model_needs_more_tokens(server: Server) -> None:
    server.reactions = [says("", finish="length")]
    assert "allow it more (max_tokens)" in judge(server).ask([request()])[0].failure
    assert len(server.seen) == 1
    judge(server, MAX_TOKENS=4000).ask([request()])
    assert server.seen[-1]["max_tokens"] == 4000


def test_a_proxy_of_the_environment_does_not_hide_a_server_on_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert judge(server).ask([request()])[0].value == "0.5"


def test_replies_that_cannot_be_kept_stop_the_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JudgeError, match="folder for replies cannot be made"):
        judge(server, CACHE=str(tmp_path / "file"))
