"""The sample loop of one process: decode ahead, answer in batches, write each answer down. No communication in it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collavo.errors import NonFiniteError
from configs.common.words import quoted
from configs.common.words import shown as inline
from datasets.image import decode
from datasets.types import DataError, ImageSource
from modeling.segmenters.base import DecodedImage
from modeling.segmenters.errors import SegmenterError

from ..base import Answerer
from ..runtime.console import Progress
from ..runtime.errors import RunError, SampleError
from ..runtime.files import WriteError
from .journal import Entry, Journal
from .questions import Question, batches

if TYPE_CHECKING:
    from collavo.engine import Generation, Query, Reply

SAMPLE_ERRORS = (DataError, SegmenterError)
"""What can be wrong with one image and not with the others."""

EARLY = 32
"""Answers after which a process first looks whether they end."""

LONGEST = 1000
"""Characters of a prompt or a reply that are shown."""

HOPELESS = 100
"""Questions after which a process ends if none of them has an answer: a folder or the weights are wrong then."""

Extract = Callable[[str, str], str]
"""From a record's id and the reply to what the scorer understands of it."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a process goes through its questions.

    Attributes:
        run: identity that its journal lines carry.
        batch_size: questions answered at a time.
        workers: threads that decode images ahead, and how many batches they are ahead.
        strict: whether the first unreadable image ends the run.
        generation: how to search.
    """

    run: str
    batch_size: int
    workers: int
    strict: bool
    generation: Generation


def answer_all(
    questions: Sequence[Question],
    answerer: Answerer,
    journal: Journal,
    extract: Extract,
    settings: LoopSettings,
    progress: Progress,
) -> list[Entry]:
    """Answer a process's questions.

    Args:
        questions: in the order in which they are asked.
        answerer: the engine.
        journal: every answer is in it before the next batch starts.
        extract: for the journal's reader.
        settings: see `LoopSettings`.
        progress: told after every batch.
    Returns: one entry per question, for its first record.

    Raises:
        DataError, SegmenterError: ``strict``, and an image is unreadable or has no map.
        RunError: none of the first questions has an answer, or (``strict``) one has scores that are not finite.
        WriteError: the journal or a map cannot be written.
        SampleError: the engine failed.
    """
    entries: list[Entry] = []
    todo = list(batches(questions, settings.batch_size))
    for batch, images in _decoded(todo, answerer.image_size, settings.workers):
        try:
            entries += _answer_and_note(batch, images, answerer, journal, extract, settings)
        except (*SAMPLE_ERRORS, RunError, WriteError):
            raise
        except Exception as error:
            raise SampleError(", ".join(inline(question.ids[0]) for question in batch)) from error
        progress.advance(len(batch))
        _remark(entries, len(batch), progress)
    return entries


def _remark(entries: Sequence[Entry], new: int, progress: Progress) -> None:
    """Show the first answer whole; warn early where replies do not end (the prompt or template may be wrong).

    Raises:
        RunError: none of the first questions has an answer.
    """
    if len(entries) - new >= HOPELESS:
        return
    answered = [entry for entry in entries if entry.error is None]
    if len(entries) >= HOPELESS and not answered:
        raise RunError(f"none of the first {len(entries)} questions has an answer; the last: {entries[-1].error}")
    before = sum(entry.error is None for entry in entries[:-new])
    if not before and answered and answered[0].question:
        prompt, reply = (quoted(text, LONGEST) for text in (answered[0].prompt, answered[0].text))
        progress.note(f"  first prompt:   {prompt}\n  first reply:    {reply}")
    unfinished = sum(not entry.finished for entry in answered)
    if before < EARLY <= len(answered) and unfinished > len(answered) / 2:
        progress.note(
            f"warning: {unfinished} of the first {len(answered)} replies did not end within the token limit; "
            "check the prompt, the checkpoint's template, or MAX_NEW_TOKENS"
        )


def _answer_and_note(
    batch: Sequence[Question],
    images: dict[str, Future[DecodedImage]],
    answerer: Answerer,
    journal: Journal,
    extract: Extract,
    settings: LoopSettings,
) -> list[Entry]:
    """Answer a batch and write it down; one entry per question, for its first record."""
    start = time.perf_counter()
    results = _answer_batch(batch, images, answerer, settings)
    seconds = (time.perf_counter() - start) / len(batch)
    firsts: list[Entry] = []
    for question, result in zip(batch, results, strict=True):
        entries = [_entry(question, i, result, extract, settings.run, seconds) for i in range(len(question.ids))]
        for entry in entries:
            journal.append(entry)
        firsts.append(entries[0])
    return firsts


def _entry(question: Question, index: int, result: Reply | str, extract: Extract, run: str, seconds: float) -> Entry:
    """What the journal keeps of a result, for one of the question's records; only the first one took time."""
    image, text = question.key
    name, took = question.ids[index], 0.0 if index else round(seconds, 4)
    if isinstance(result, str):
        return Entry(run=run, id=name, image=image, question=text, seconds=took, error=result)
    return Entry(
        run=run,
        id=name,
        image=image,
        question=text,
        prompt=result.prompt,
        text=result.text,
        extracted=extract(name, result.text),
        finished=result.finished,
        num_tokens=result.num_tokens,
        seconds=took,
    )


def _answer_batch(
    batch: Sequence[Question], images: dict[str, Future[DecodedImage]], answerer: Answerer, settings: LoopSettings
) -> list[Reply | str]:
    """One reply, or the reason for none, per question.

    Raises:
        DataError, SegmenterError: ``strict``, and an image is unreadable or has no map.
        RunError: ``strict``, and the model's scores are not finite.
    """
    results: list[Reply | str] = [""] * len(batch)
    good: list[tuple[int, Query]] = []
    for index, question in enumerate(batch):
        try:
            good.append((index, _query(question, images)))
        except (DataError, SegmenterError) as error:
            if settings.strict:
                raise DataError(
                    f"{inline(question.ids[0])}: {error} (EVAL.STRICT False counts it and goes on)"
                ) from error
            results[index] = str(error)
    try:
        replies = _replies(good, answerer, settings)
    except NonFiniteError as error:
        name = batch[good[error.replies.index(None)][0]].ids[0]
        raise RunError(f"{name}: {error} (EVAL.STRICT False counts it and goes on)") from error
    for index, reply in replies:
        results[index] = reply
    return results


def _replies(
    queries: Sequence[tuple[int, Query]], answerer: Answerer, settings: LoopSettings
) -> list[tuple[int, Reply | str]]:
    """Ask the engine; where one query's data is at fault (a missing segmentation file), only that one fails.

    Raises:
        SegmenterError: ``strict``, and an image has no map.
        NonFiniteError: ``strict``, and the model's scores are not finite.
    """
    if not queries:
        return []
    try:
        replies = answerer.answer([query for _, query in queries], settings.generation)
        return [(index, reply) for (index, _), reply in zip(queries, replies, strict=True)]
    except NonFiniteError as error:
        if settings.strict:
            raise
        return [(index, reply or str(error)) for (index, _), reply in zip(queries, error.replies, strict=True)]
    except SAMPLE_ERRORS as error:
        if settings.strict:
            raise
        if len(queries) == 1:
            return [(queries[0][0], str(error))]
    return [result for query in queries for result in _replies([query], answerer, settings)]


def _query(question: Question, images: dict[str, Future[DecodedImage]]) -> Query:
    from collavo.engine import Query

    image = None if question.image is None else images[question.image.name].result()
    return Query(image=image, question=question.prompt)


def _decoded(
    todo: Sequence[list[Question]], size: int | None, workers: int
) -> Iterator[tuple[list[Question], dict[str, Future[DecodedImage]]]]:
    """Yield batches with their images, decoding as many batches ahead as there are workers.

    An image is decoded once for all batches within reach, and let go when none needs it any more.
    """
    held: dict[str, Future[DecodedImage]] = {}
    window: deque[list[Question]] = deque()
    rest = iter(todo)
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:
        try:
            for _ in todo:
                while len(window) <= workers and (batch := next(rest, None)) is not None:
                    window.append(batch)
                    for source in _sources(batch):
                        if source.name not in held:
                            held[source.name] = pool.submit(_decode, source, size)
                done = window.popleft()
                yield done, held
                needed = {source.name for batch in (done, *window) for source in _sources(batch)}
                held = {name: future for name, future in held.items() if name in needed}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _sources(batch: Sequence[Question]) -> list[ImageSource]:
    return [question.image for question in batch if question.image is not None]


def _decode(source: ImageSource, size: int | None) -> DecodedImage:
    return DecodedImage(pixels=decode(source, size), name=source.name)
