"""Asks a server of the OpenAI chat protocol, many questions at a time.

Requests go out in the order of the images, so that a server's prefix cache serves an image's questions, and replies
are written down as they come. What a server sends in place of a reply (a refusal, a reply that was cut off or is empty)
is told apart from a request that failed; see `pipeline.base.NoReply`. The connection itself is the judges'.
"""

from __future__ import annotations

import functools
import random
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from configs.common.words import quoted
from datasets.evaluation.judges.base import JudgeError
from datasets.evaluation.judges.connection import (
    Completion,
    Connection,
    FilteredError,
    JudgeLostError,
    RefusedError,
    TemporaryError,
    pause_before,
)
from datasets.evaluation.judges.options import Server
from datasets.types import DataError, ImageSource

from ..base import NoReply
from ..runtime.console import say
from ..runtime.errors import RunError
from ..runtime.launch import is_main
from .images import data_url, images_of, place_images, read_images
from .profile import ResolvedProfile
from .request_limits import ConcurrencyGate
from .spending import Spending

if TYPE_CHECKING:
    from collavo.engine import Generation, Query, Reply
    from collavo.images import PreparedImage
    from modeling.image import DecodedImage

    from ..run.questions import Question
    from .options import ModelConfig

_LONGEST_PAUSE = 600.0
_THOUGHT = re.compile(r"\A(?:\s*<think(?:ing)?>(?:(?!</think).)*|(?:(?!</?think).)*)</think(?:ing)?>", re.DOTALL)
"""Thoughts before a reply; where the server's template begins them, the reply holds only their end."""
_UNENDED_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>(?!.*</think)", re.DOTALL)
_REFUSALS = ("content_filter", "refusal", "safety", "prohibited_content", "blocklist", "recitation", "sensitive")
"""Beginnings of ``finish_reason`` that mean a refusal, in lower case; the later ones are Gemini's and Zhipu's."""
_TOKENS_OF_IMAGE = 1000
"""Of an estimate before anything is known; servers count from 85 to several thousand."""
_LETTERS_OF_TOKEN = 4


def server_of(model: ModelConfig) -> Server:
    """The server of a configuration."""
    return Server(model.PATH, model.BASE_URL, model.KEY_VARIABLE, model.TIMEOUT)


class EndpointEngine:
    """Asks a server; see `pipeline.base.Answerer` and `pipeline.base.StreamingAnswerer`.

    Args:
        model: which server and how.
        profile: of the model.
        environ: the process environment, for the key.
        pause: waits for some seconds; by default until the time is over or the run is stopped.
        spending: counts what is spent; None for one of this engine alone.

    Raises:
        JudgeError: the client library is missing, or the key is none that can be sent.
    """

    image_size = None

    def __init__(
        self,
        model: ModelConfig,
        profile: ResolvedProfile,
        environ: Mapping[str, str],
        pause: Callable[[float], object] | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._model, self._profile = model, profile.profile
        self._connection = Connection(server_of(model), environ, "the server")
        self._main = is_main(environ)
        self.spending = Spending(model, 1) if spending is None else spending
        self.gate = ConcurrencyGate(model.CONCURRENCY)
        self._stopped = threading.Event()
        self._why: Callable[[], str] | None = None  # worded when all that was under way has come back
        self._wait = self._stopped.wait if pause is None else pause
        self._lock = threading.Lock()
        self._urls: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        self._in_a_row = 0

    @property
    def name(self) -> str:
        """Model and address."""
        return self._connection.name

    @property
    def place(self) -> str:
        """The address."""
        return self._connection.place

    def probe(self) -> str:
        """Ask one trivial thing; returns the name under which the server answers.

        Raises:
            JudgeError: it cannot be used.
        """
        messages = [{"role": "user", "content": "Reply with the single word ready."}]
        for attempt in range(self._model.ATTEMPTS):
            try:
                self._connection.complete(messages, {"max_tokens": 16, "extra_body": self._model.EXTRA_BODY})
                return self._connection.answered_as
            except TemporaryError as error:
                failure = str(error)
                if attempt + 1 < self._model.ATTEMPTS:
                    self._wait(pause_before(attempt, self._model.BACKOFF, error.wait, _LONGEST_PAUSE))
            except (RefusedError, JudgeLostError) as error:
                failure = str(error)
                break
        raise JudgeError(f"MODEL.NAME endpoint: {self.name} cannot be used: {failure}")

    def read_image(self, source: ImageSource) -> DecodedImage:
        """See `pipeline.base.ImageReader`."""
        return read_images(source, several=self._profile.images == "several", model=self._model.PATH)

    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply | NoReply]:
        """Answer questions whose images are decoded, side by side; in order."""
        found: list[Reply | NoReply | None] = [None] * len(queries)
        asks = [functools.partial(self._ask, self._content(query.image), query, generation) for query in queries]
        for index, reply, _ in self._each(asks):
            found[index] = reply
        return [reply for reply in found if reply is not None]

    def answer_each(
        self, questions: Sequence[Question], generation: Generation
    ) -> Generator[tuple[int, Reply | NoReply, float], None, None]:
        """See `pipeline.base.StreamingAnswerer`.

        Raises:
            RunError: the server answers nothing any more, or ``MODEL.MAX_COST`` is reached; whatever was answered has
                been given before.
        """
        from collavo.engine import Query

        if generation.num_beams > 1:
            raise RunError("NUM_BEAMS: the chat protocol has no beam search; leave it 1 for an endpoint")

        def ask(question: Question) -> Reply | NoReply | None:
            try:
                parts = self._parts_of(question.image)
            except DataError as error:
                return NoReply(outcome="failed", reason=str(error))
            return self._ask(parts, Query(image=None, question=question.prompt), generation)

        with self._lock:
            self._urls.clear()  # another benchmark's images may have the same names
        self._estimate(questions, generation)
        yield from self._each([functools.partial(ask, question) for question in questions])
        if self._main:
            say(f"  server: {self.spending.describe()}; up to {self.gate.limit} requests at a time in the end")

    def _each(
        self, asks: Sequence[Callable[[], Reply | NoReply | None]]
    ) -> Generator[tuple[int, Reply | NoReply, float], None, None]:
        """Run requests side by side, in their order; see `answer_each`."""
        self._stopped.clear()
        self._why = None
        pool = ThreadPoolExecutor(self._model.CONCURRENCY, thread_name_prefix="endpoint")
        waiting: dict[Future[tuple[Reply | NoReply | None, float]], int] = {}
        rest = iter(enumerate(asks))
        try:
            while True:
                while len(waiting) < self._model.CONCURRENCY and not self._stopped.is_set():
                    if (following := next(rest, None)) is None:
                        break
                    waiting[pool.submit(self._timed, following[1])] = following[0]
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    index = waiting.pop(future)
                    reply, seconds = future.result()
                    if reply is not None:
                        yield index, reply, seconds
            if self._why is not None:
                raise RunError(self._why())
        finally:
            self._stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, ask: Callable[[], Reply | NoReply | None]) -> tuple[Reply | NoReply | None, float]:
        """A reply with its seconds; None where the run was stopped before it was asked."""
        if not self.gate.enter(self._stopped):
            return None, 0.0
        begun, reply = time.monotonic(), None
        try:
            reply = ask()
        finally:
            self.gate.leave(good=reply is not None and not _is_failure(reply))
        return reply, round(time.monotonic() - begun, 4)

    def _stop(self, why: Callable[[], str]) -> None:
        with self._lock:
            self._why = self._why or why
        self._stopped.set()

    def _failed(self, reason: str) -> NoReply:
        """A question that the server did not answer; too many of them in a row end the run."""
        with self._lock:
            self._in_a_row += 1
            number = self._in_a_row
        if number >= self._model.GIVE_UP_AFTER:
            self._stop(
                lambda: (
                    f"{number} questions in a row have no reply, the last one: {reason}. What was answered is "
                    "kept; the same command goes on from there (MODEL.GIVE_UP_AFTER)"
                )
            )
        return NoReply(outcome="failed", reason=reason)

    def _parts_of(self, image: ImageSource | None) -> list[dict[str, Any]]:
        """An image's part of a message; those used last are kept for the image's other questions.

        Raises:
            DataError: it is unreadable.
        """
        if image is None:
            return []
        with self._lock:
            if image.name in self._urls:
                self._urls.move_to_end(image.name)
                return self._urls[image.name]
        made = self._content(self.read_image(image))
        with self._lock:
            self._urls[image.name] = made
            while len(self._urls) > self._model.CONCURRENCY:
                self._urls.popitem(last=False)
        return made

    def _content(self, image: DecodedImage | PreparedImage | None) -> list[dict[str, Any]]:
        """Images as parts of a message."""
        options = self._model.IMAGE
        detail = {} if options.DETAIL is None else {"detail": options.DETAIL}
        urls = (data_url(one, options.MAX_SIDE) for one in images_of(image))
        return [{"type": "image_url", "image_url": {"url": url, **detail}} for url in urls]

    def _messages(self, images: Sequence[dict[str, Any]], question: str) -> list[dict[str, Any]]:
        """A conversation: the system's turn, if there is one, and the question with its images."""
        prompt, placed = self._profile.prompt, place_images(question, len(images))
        places: list[dict[str, Any]] = []
        for number in placed.apart:
            if prompt.several and len(images) > 1:
                places.append({"type": "text", "text": prompt.several.format(number=number + 1)})
            places.append(images[number])
        text = [images[p] if isinstance(p, int) else {"type": "text", "text": p} for p in placed.pieces]
        content: Any = [*places, *text] if prompt.image_place == "before" else [*text, *places]
        system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        return [*system, {"role": "user", "content": content if images else question}]

    def _settings(self, generation: Generation) -> dict[str, Any]:
        """What every request says besides its messages."""
        own = self._profile.generation
        optional = {"top_p": own.top_p, "seed": own.seed, "stop": own.stop or None}
        extra = dict(self._model.EXTRA_BODY)
        if own.repetition_penalty is not None:
            extra = {"repetition_penalty": own.repetition_penalty, **extra}
        return {
            "max_tokens": generation.max_new_tokens,
            **({} if own.temperature is None else {"temperature": own.temperature}),
            **{name: value for name, value in optional.items() if value is not None},
            **({"extra_body": extra} if extra else {}),
        }

    def _ask(self, parts: list[dict[str, Any]], query: Query, generation: Generation) -> Reply | NoReply | None:
        """Ask one question until it is settled; None where the money is used up."""
        if not self.spending.reserve():
            self._stop(
                lambda: (
                    f"MODEL.MAX_COST is reached: {self.spending.describe()}. What was answered is kept; the same "
                    "command with a higher MODEL.MAX_COST goes on from there"
                )
            )
            return None
        messages, settings = self._messages(parts, query.question), self._settings(generation)
        failure, found = "", None
        try:
            for attempt in range(self._model.ATTEMPTS):
                begun = time.monotonic()
                try:
                    found = self._connection.complete(messages, settings)
                    self._in_a_row = 0
                    return settled(found, _as_text(messages))
                except TemporaryError as error:
                    failure = f"{error} ({attempt + 1} of {self._model.ATTEMPTS} tries)"
                    wanted = error.wait * random.uniform(1.0, 1.1)  # not all at the same moment
                    pause = pause_before(attempt, self._model.BACKOFF, wanted, _LONGEST_PAUSE)
                    if error.crowded:
                        self.gate.crowded(begun, error.wait and pause)
                    if self._stopped.is_set():
                        break
                    if attempt + 1 < self._model.ATTEMPTS:
                        self._wait(pause)
            return self._failed(failure)
        except FilteredError as error:
            return NoReply(outcome="refused", reason=str(error))
        except RefusedError as error:
            return self._failed(str(error))
        except JudgeLostError as error:
            lost = f"{error}. What was answered is kept; the same command goes on from there"
            self._stop(lambda: lost)
            return NoReply(outcome="failed", reason=str(error))
        finally:
            self.spending.settle(found)

    def _estimate(self, questions: Sequence[Question], generation: Generation) -> None:
        """Say what the questions will cost, as far as that can be known."""
        if not self._main:
            return
        images = sum(question.image is not None for question in questions)
        tokens = sum(len(q.prompt) for q in questions) / _LETTERS_OF_TOKEN + images * _TOKENS_OF_IMAGE
        longest = len(questions) * generation.max_new_tokens
        words = f"about {tokens:,.0f} tokens in ({_TOKENS_OF_IMAGE} for an image), at most {longest:,} out"
        least, most = self.spending.cost_of(tokens, len(questions)), self.spending.cost_of(tokens, longest)
        if least is not None and most is not None:
            words += f"; {least:.2f} to {most:.2f} US dollars{self.spending.earlier()}"
        say(f"  estimate: {len(questions)} requests of this process, {words}")


def _is_failure(reply: Reply | NoReply) -> bool:
    return isinstance(reply, NoReply) and reply.outcome == "failed"


def settled(found: Completion, prompt: str) -> Reply | NoReply:
    """What a completion is: a reply, or what came in its place.

    A reply that was cut off at the token limit is no reply, whatever it holds by then; thoughts in front of a reply
    (``<think>``, or up to ``</think>``) are not part of it.

    Args:
        found: what the server sent.
        prompt: what it was asked, for the journal.
    """
    from collavo.engine import Reply

    text = found.text or ""
    said = _THOUGHT.sub("", text, count=1)
    if found.refusal or found.finish.startswith(_REFUSALS):
        reason = found.refusal or f"finish_reason {found.finish}"
        return NoReply(outcome="refused", reason=f"the model refuses: {quoted(reason)}", text=said.strip())
    if found.finish in ("length", "max_tokens") or _UNENDED_THOUGHT.match(text):
        thinking = found.thought or text != said or _UNENDED_THOUGHT.match(text)
        why = " by the model's thoughts" if thinking else ""
        reason = f"the reply is cut off: {found.output_tokens} tokens were used up{why} (MAX_NEW_TOKENS)"
        return NoReply(outcome="truncated", reason=reason, text=said.strip())
    if not said.strip():
        return NoReply(outcome="empty", reason=f"the reply is empty (finish_reason {found.finish or 'not given'})")
    return Reply(text=said.strip(), prompt=prompt, num_tokens=found.output_tokens, finished=True)


def _as_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """A conversation as one text, with ``<image>`` for each image."""
    lines = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part["text"] if part["type"] == "text" else "<image>" for part in parts)
        lines.append(f"{message['role']}: {text}")
    return "\n".join(lines)
