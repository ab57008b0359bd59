"""The sample loop of one process: images ahead, answers in batches, each one written down. No communication in it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from collavo.errors import NonFiniteError
from configs.common.words import quoted
from configs.common.words import shown as inline
from datasets.types import DataError
from modeling.segmenters.errors import SegmenterError

from ..base import Answerer, AwaitedAnswerer, NoReply, StreamingAnswerer
from ..runtime.console import Progress
from ..runtime.errors import RunError, SampleError
from ..runtime.files import WriteError
from .images_ahead import ImagesAhead, Ready
from .journal import Journal, JournalEntry
from .questions import Question, batches

if TYPE_CHECKING:
    from collavo.engine import Generation, Query, Reply

    from ..runtime.options import RunConfig

SAMPLE_ERRORS = (DataError, SegmenterError)
"""What can be wrong with one image and not with the others."""

EARLY = 32
"""Answers after which a process first looks whether they end."""

LONGEST = 1000
"""Characters of a prompt or a reply that are shown."""

HOPELESS = 100
"""Questions after which a process ends if none of them has an answer: a folder or the weights are wrong then."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a process goes through its questions.

    Attributes:
        run: identity that its journal lines carry.
        batch_size: questions answered at a time at first, see `pipeline.run.questions.batches`.
        most: questions answered at a time later.
        generation: how to search.
        options: of the run, see `RunConfig`: ``WORKERS`` is also how many batches images are ahead at least.
    """

    run: str
    batch_size: int
    most: int
    generation: Generation
    options: RunConfig


def answer_all(
    questions: Iterable[Question],
    answerer: Answerer,
    journal: Journal,
    settings: LoopSettings,
    progress: Progress,
) -> list[JournalEntry]:
    """Answer a process's questions.

    Args:
        questions: in the order in which they are asked; drawn a few batches ahead, so that they can be work that
            other processes may take as well (``pipeline/run/claims.py``).
        answerer: the engine.
        journal: every answer is in it before the next batch starts.
        settings: see `LoopSettings`.
        progress: advances after every batch.
    Returns: one entry per question, for its first record.

    Raises:
        DataError, SegmenterError: ``STRICT``, and an image is unreadable or has no map.
        RunError: none of the first questions has an answer, or (``STRICT``) one has scores that are not finite.
        WriteError: the journal or a map cannot be written.
        SampleError: the engine failed.
        CheckpointError: the engine, whose weights were still read, cannot be loaded.
    """
    entries: list[JournalEntry] = []
    todo = batches(questions, settings.batch_size, settings.most)
    with ImagesAhead(answerer, settings.options.WORKERS) as ahead:
        for batch, images in ahead.batches(todo):
            if not entries and isinstance(answerer, AwaitedAnswerer):
                answerer.wait()  # the first images are on their way meanwhile
                progress.restart()
            try:
                entries += _answer_and_note(batch, images, answerer, journal, settings)
            except (*SAMPLE_ERRORS, RunError, WriteError):
                raise
            except Exception as error:
                raise SampleError(", ".join(inline(question.ids[0]) for question in batch)) from error
            progress.advance(len(batch))
            _remark(entries, len(batch), progress)
    return entries


def answer_stream(
    questions: Sequence[Question],
    answerer: StreamingAnswerer,
    journal: Journal,
    settings: LoopSettings,
    progress: Progress,
) -> list[JournalEntry]:
    """Answer a process's questions by an engine that has many of them under way; see `answer_all`.

    Every reply is in the journal as soon as it comes.

    Raises:
        DataError: ``STRICT``, and a question has no reply.
        RunError: none of the first questions has an answer, or the engine ends the run.
        WriteError: the journal cannot be written.
    """
    entries: list[JournalEntry | None] = [None] * len(questions)
    came: list[JournalEntry] = []
    with closing(answerer.answer_each(questions, settings.generation)) as replies:
        for index, reply, seconds in replies:
            question = questions[index]
            if isinstance(reply, NoReply) and settings.options.STRICT:
                raise DataError(_strictly(question, reply.reason))
            made = [_entry(question, i, reply, settings.run, seconds) for i in range(len(question.ids))]
            for entry in made:
                journal.append(entry)
            entries[index] = made[0]
            came.append(made[0])
            progress.advance(1)
            _remark(came, 1, progress)
    return [entry for entry in entries if entry is not None]


def _strictly(question: Question, reason: object) -> str:
    """Why a strict run ends at a question."""
    return f"{inline(question.ids[0])}: {reason} (EVAL.STRICT False counts it and goes on)"


def _remark(entries: Sequence[JournalEntry], new: int, progress: Progress) -> None:
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
    images: Mapping[str, Ready],
    answerer: Answerer,
    journal: Journal,
    settings: LoopSettings,
) -> list[JournalEntry]:
    """Answer a batch and write it down; one entry per question, for its first record."""
    start = time.perf_counter()
    results = _answer_batch(batch, images, answerer, settings)
    seconds = (time.perf_counter() - start) / len(batch)
    firsts: list[JournalEntry] = []
    for question, result in zip(batch, results, strict=True):
        entries = [_entry(question, i, result, settings.run, seconds) for i in range(len(question.ids))]
        for entry in entries:
            journal.append(entry)
        firsts.append(entries[0])
    return firsts


def _entry(question: Question, index: int, result: Reply | NoReply | str, run: str, seconds: float) -> JournalEntry:
    """What the journal keeps of a result, for one of the question's records; only the first one took time."""
    image, text = question.key
    name, took = question.ids[index], 0.0 if index else round(seconds, 4)
    if isinstance(result, str):
        return JournalEntry(run=run, id=name, image=image, question=text, seconds=took, error=result)
    if isinstance(result, NoReply):
        outcome = "" if result.outcome == "failed" else result.outcome
        reason = result.reason + (f"; it said {quoted(result.text, LONGEST)}" if result.text else "")
        return JournalEntry(run=run, id=name, image=image, question=text, seconds=took, error=reason, outcome=outcome)
    return JournalEntry(
        run=run,
        id=name,
        image=image,
        question=text,
        prompt=result.prompt,
        text=result.text,
        finished=result.finished,
        num_tokens=result.num_tokens,
        seconds=took,
        margin=result.margin if isfinite(result.margin) else None,
        close=result.close,
        note=result.note,
    )


def _answer_batch(
    batch: Sequence[Question], images: Mapping[str, Ready], answerer: Answerer, settings: LoopSettings
) -> list[Reply | NoReply | str]:
    """One reply, or the reason for none, per question.

    Raises:
        DataError, SegmenterError: ``STRICT``, and an image is unreadable or has no map.
        RunError: ``STRICT``, and the model's scores are not finite.
    """
    results: list[Reply | NoReply | str] = [""] * len(batch)
    good: list[tuple[int, Query]] = []
    for index, question in enumerate(batch):
        try:
            good.append((index, _query(question, images)))
        except SAMPLE_ERRORS as error:
            if settings.options.STRICT:
                raise DataError(_strictly(question, error)) from error
            results[index] = str(error)
    try:
        replies = _replies(good, answerer, settings)
    except NonFiniteError as error:
        question = batch[good[error.replies.index(None)][0]]
        raise RunError(_strictly(question, error)) from error
    for index, reply in replies:
        if isinstance(reply, NoReply) and settings.options.STRICT:
            raise DataError(_strictly(batch[index], reply.reason))
        results[index] = reply
    return results


def _replies(
    queries: Sequence[tuple[int, Query]], answerer: Answerer, settings: LoopSettings
) -> list[tuple[int, Reply | NoReply | str]]:
    """Ask the engine; where one query's data is at fault (a missing segmentation file), only that one fails.

    Raises:
        SegmenterError: ``STRICT``, and an image has no map.
        NonFiniteError: ``STRICT``, and the model's scores are not finite.
    """
    if not queries:
        return []
    try:
        replies = answerer.answer([query for _, query in queries], settings.generation)
        return [(index, reply) for (index, _), reply in zip(queries, replies, strict=True)]
    except NonFiniteError as error:
        if settings.options.STRICT:
            raise
        return [(index, reply or str(error)) for (index, _), reply in zip(queries, error.replies, strict=True)]
    except SAMPLE_ERRORS as error:
        if settings.options.STRICT:
            raise
        if len(queries) == 1:
            return [(queries[0][0], str(error))]
    return [result for query in queries for result in _replies([query], answerer, settings)]


def _query(question: Question, images: Mapping[str, Ready]) -> Query:
    from collavo.engine import Query

    image = None if question.image is None else images[question.image.name].result()
    return Query(image=image, question=question.prompt)
