"""A judge behind the OpenAI chat protocol: OpenAI's own server, or any other by its address.

Whatever goes wrong on the way (rate limits, timeouts, errors of the server, replies that are no JSON, no completion or
no verdict) is tried again with growing pauses. What still fails leaves its sample unscored and says why; a judge that
refuses the key or knows no such model, or that fails many times in a row, is not bothered with the rest.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

from configs.common.words import quoted

from .base import JudgeError, Request, Usage, Verdict
from .cache import ReplyCache, reply_key
from .connection import Connection, JudgeLostError, RefusedError, TemporaryError, pause_before
from .options import JudgeConfig, settled

_LONGEST_PAUSE = 60.0
_PROBES = 3  # tries of the probe
_HOTTER = 0.5  # added to the temperature for every further unreadable reply, up to 1
_SHOWN = 120  # characters of a reply in a message


class _Counted:
    """Counts requests as they are settled; equal ones, which are sent once, as often as they were made."""

    def __init__(self, times: Counter[str], progress: Callable[[int, int, int], None] | None) -> None:
        self._times, self._progress = times, progress
        self._judged = self._done = 0

    def add(self, key: str, *, judged: bool) -> None:
        """Count the requests with a key, and whether they have a verdict."""
        self._done += self._times[key]
        self._judged += self._times[key] * judged

    def show(self) -> None:
        """Tell how things stand."""
        if self._progress:
            self._progress(self._judged, self._done, self._times.total())


class ChatJudge:
    """See `base.Judge`.

    Args:
        judge: which one.
        environ: the process environment, for the key.
        progress: called with how many requests have a verdict, how many are settled (some in vain), and how many there
            are.
        pause: waits for some seconds; by default until the time is over or `ask` is interrupted.

    Raises:
        JudgeError: the client library is missing, or the folder of the cache cannot be made.
    """

    def __init__(
        self,
        judge: JudgeConfig,
        environ: Mapping[str, str],
        progress: Callable[[int, int, int], None] | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._judge, self._progress = judge.resolved(environ), progress
        self._stopped = threading.Event()
        self._wait = self._stopped.wait if pause is None else pause
        self._connection = Connection(self._judge.server, environ)
        self._cache = ReplyCache(Path(self._judge.CACHE).expanduser() if self._judge.CACHE else None)
        self._lock = threading.Lock()
        self._asked = self._cached = self._failed = self._input = self._output = 0
        self._in_a_row = 0
        self._lost = ""

    @property
    def name(self) -> str:
        """Model and place."""
        return self._connection.name

    @property
    def identity(self) -> str:
        """See `base.Judge.identity`."""
        connection = self._connection
        return f"{connection.redact(connection.model)} at {connection.place}"

    @property
    def usage(self) -> Usage:
        """What was spent so far."""
        prices = self._judge.PRICE_INPUT, self._judge.PRICE_OUTPUT
        cost = None
        if prices[0] is not None and prices[1] is not None:
            cost = (self._input * prices[0] + self._output * prices[1]) / 1_000_000
        return Usage(
            asked=self._asked,
            cached=self._cached,
            failed=self._failed,
            input_tokens=self._input,
            output_tokens=self._output,
            cost=cost,
        )

    def probe(self) -> str:
        """See `base.Judge.probe`."""
        request = Request(
            record="",
            part="",
            prompt="Reply with the single word ready.",
            parse=lambda reply: "ready",
            reminder="",
            max_tokens=16,
        )
        verdict = self._try(request, min(_PROBES, settled(self._judge.ATTEMPTS)))
        if verdict.value is None:
            raise JudgeError(f"the judge {self.name} cannot be used: {verdict.failure}")
        return self._connection.answered_as

    def ask(self, requests: Sequence[Request]) -> list[Verdict]:
        """See `base.Judge.ask`. Equal requests about different records are sent once.

        Raises:
            JudgeError: replies cannot be kept on disk.
        """
        keys = [self._key(request) for request in requests]
        first: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            first.setdefault(key, request)
        found = {key: verdict for key, request in first.items() if (verdict := self._recall(key, request))}
        with self._lock:
            self._cached += sum(key in found for key in keys)
        waiting = {key: request for key, request in first.items() if key not in found}
        counted = _Counted(Counter(keys), self._progress)
        for key in found:
            counted.add(key, judged=True)
        with closing(self._all(waiting)) as verdicts_of:
            for key, verdict in verdicts_of:
                found[key] = verdict
                counted.add(key, judged=verdict.value is not None)
                counted.show()
        verdicts = [
            Verdict(record=r.record, part=r.part, value=v.value, reply=v.reply, failure=v.failure)
            for r, v in zip(requests, map(found.__getitem__, keys), strict=True)
        ]
        self._failed += sum(verdict.value is None for verdict in verdicts)
        return verdicts

    def _all(self, waiting: Mapping[str, Request]) -> Generator[tuple[str, Verdict], None, None]:
        """Settle requests side by side; an interruption drops those that have not begun."""
        pool = ThreadPoolExecutor(max_workers=settled(self._judge.CONCURRENCY), thread_name_prefix="judge")
        futures: dict[Future[Verdict], str] = {}
        try:
            futures.update((pool.submit(self._settle, key, request), key) for key, request in waiting.items())
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            self._lost = "interrupted"
            self._stopped.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _key(self, request: Request) -> str:
        connection, temperature = self._connection, str(self._judge.TEMPERATURE)
        return reply_key(connection.place, connection.model, temperature, request.part, request.prompt)

    def _recall(self, key: str, request: Request) -> Verdict | None:
        kept = self._cache.get(key)
        reply = "" if kept is None else self._connection.redact(kept)
        value = None if kept is None else request.parse(reply)
        if value is None:
            return None
        return Verdict(record=request.record, part=request.part, value=value, reply=reply)

    def _settle(self, key: str, request: Request) -> Verdict:
        verdict = self._try(request, settled(self._judge.ATTEMPTS))
        if verdict.value is not None:
            about = {"judge": self.name, "part": request.part, "prompt": request.prompt}
            self._cache.put(key, verdict.reply, about)
        return verdict

    def _try(self, request: Request, attempts: int) -> Verdict:
        """Ask until there is a verdict, the attempts are used up, or there is no use in going on."""
        failure, reply, unreadable = "", "", 0
        for attempt in range(attempts):
            if self._lost:
                failure = f"not asked: {self._lost}"
                break
            try:
                reply = self._send(request, unreadable)
            except TemporaryError as error:
                failure = f"{error} ({attempt + 1} of {attempts} tries)"
                if attempt + 1 < attempts:
                    self._pause(attempt, error.wait)
                continue
            except RefusedError as error:
                failure = str(error)
                break
            except JudgeLostError as error:
                self._lost = failure = str(error)
                break
            value = request.parse(reply)
            if value is not None:
                self._in_a_row = 0
                return Verdict(record=request.record, part=request.part, value=value, reply=reply)
            unreadable += 1
            failure = f"no verdict in the reply {quoted(reply, _SHOWN)} ({attempt + 1} of {attempts} tries)"
        self._count_failure(failure)
        return Verdict(record=request.record, part=request.part, value=None, reply=reply, failure=failure)

    def _send(self, request: Request, unreadable: int) -> str:
        """One request over the wire; after an unreadable reply with a reminder, and hotter from the second one on."""
        temperature = settled(self._judge.TEMPERATURE)
        answer = self._connection.send(
            f"{request.prompt}\n\n{request.reminder}" if unreadable else request.prompt,
            min(max(1.0, temperature), temperature + _HOTTER * max(0, unreadable - 1)),
            self._judge.MAX_TOKENS or request.max_tokens,
        )
        with self._lock:
            self._asked += 1
            self._input += answer.input_tokens
            self._output += answer.output_tokens
        return answer.text

    def _pause(self, attempt: int, wanted: float) -> None:
        """Wait before the next try: doubled each time and scattered, and at least as long as the server wants."""
        self._wait(pause_before(attempt, settled(self._judge.BACKOFF), wanted, _LONGEST_PAUSE))

    def _count_failure(self, failure: str) -> None:
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= settled(self._judge.GIVE_UP_AFTER) and not self._lost:
                self._lost = f"the judge failed {self._in_a_row} times in a row, the last time: {failure}"
