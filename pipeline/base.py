"""What joins a benchmark to a model: the pipeline class, and what the loop needs of an engine.

A pipeline reads a benchmark's records, words the questions and scores the answers, all as the declaration says. The
loop around it (``pipeline/run/plan.py``) is the same for every benchmark. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from datasets.declaration import Benchmark
from datasets.evaluation import BenchmarkScorer, Evaluation, benchmark_scorer, groups_of, unit_of
from datasets.evaluation.judges.base import Verdicts
from datasets.evaluation.scorable import prepare_records
from datasets.registration.formats.files import without_bad
from datasets.registration.registry import reader_of
from datasets.subsample import subsample
from datasets.types import BadRecord, ImageSource, Record, Score

if TYPE_CHECKING:
    from collavo.engine import Generation, Query, Reply
    from modeling.image import DecodedImage
    from modeling.segmenters.base import Segmenter

    from .run.questions import Question


class Answerer(Protocol):
    """What the loop needs of an engine."""

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the square images it takes; None where it takes images of their own size."""

    def answer(self, queries: Sequence[Query], generation: Generation) -> Sequence[Reply | NoReply]:
        """Answer questions, in order; a reply must not depend on what else is asked with it."""


@runtime_checkable
class ImageReader(Protocol):
    """An engine that reads images in its own way: several of a record, or their encoded bytes."""

    def read_image(self, source: ImageSource) -> DecodedImage:
        """Read what a record's image stands for.

        Raises:
            DataError: it is unreadable, or there are more images than the model takes.
        """


@runtime_checkable
class StreamingAnswerer(Protocol):
    """An engine that has many questions under way, and whose replies are written down as they come."""

    def answer_each(
        self, questions: Sequence[Question], generation: Generation
    ) -> Generator[tuple[int, Reply | NoReply, float], None, None]:
        """Answer questions; yields the place, the reply and its seconds, in the order in which replies come."""


Outcome = Literal["refused", "truncated", "empty", "failed"]
"""What else than a reply can come of a question."""


@dataclass(frozen=True, kw_only=True)
class NoReply:
    """Why a question has no reply that could be scored.

    Attributes:
        outcome: refused by the model or a filter before it; truncated at the token limit before its end; empty; failed
            for reasons that are not the model's (out of memory, a server that does not answer), which a rerun may mend.
        reason: in words.
        text: what came of the reply.
    """

    outcome: Outcome
    reason: str
    text: str = ""


class EngineSource(Protocol):
    """An engine that is identified before it is loaded, and loaded only if something is to be asked."""

    def parts(self) -> Mapping[str, Any]:
        """Identity of everything that shapes its replies, by name."""

    def weights(self) -> str:
        """What the weights are and what memory they need, in words; "" if there is nothing left to load."""

    def engine(self) -> Answerer:
        """The engine, loaded at the first call."""

    def segmenter(self) -> Segmenter:
        """The segmenter alone, built at the first call; it needs no checkpoint."""


@runtime_checkable
class LoadsAhead(Protocol):
    """A source whose engine can be loaded while something else is done."""

    def loading_ahead(self) -> AbstractContextManager[None]:
        """Load the engine in another thread; what is wrong is raised by the method that needs it, as without this.

        The context ends the loading, if that still goes on, and does not wait for the rest of it.
        """

    def engine_ahead(self) -> Answerer:
        """What will answer, at once: where the engine is still loaded, an `AwaitedAnswerer`."""


@runtime_checkable
class AwaitedAnswerer(Protocol):
    """What answers once its engine is loaded; it may prepare images before."""

    def wait(self) -> None:
        """Wait for the engine; what is wrong with it is raised here."""


class BenchmarkPipeline:
    """A benchmark as its declaration has it. A subclass names its benchmark and overrides only what differs.

    Args:
        declaration: with the configuration's overrides.
    """

    benchmark: ClassVar[str] = ""
    """Name of the declaration a subclass belongs to; "" runs any."""

    def __init__(self, declaration: Benchmark) -> None:
        self.declaration = declaration

    def load(self, roots: Sequence[Path]) -> tuple[list[Record], list[BadRecord]]:
        """Read the benchmark's release files.

        Args:
            roots: dataset folders, in the order in which they are searched.
        Returns: the records in data order, in the form that the scorer needs, and what could not be read or scored.

        Raises:
            UnscorableError: the scorer understands no record.
            DataError: a file is missing.
        """
        records, bad = without_bad(reader_of(self.declaration).read(roots))
        good, unscorable = prepare_records(self.declaration, records)
        return good, [*bad, *unscorable]

    def part(self, records: Sequence[Record], limit: int | None, seed: int) -> list[Record]:
        """Draw the records of a limited run, see ``datasets/subsample.py``.

        Args:
            records: of the whole benchmark.
            limit: how many at most; None for all.
            seed: another one draws others.
        Returns: in data order, with all that the scorer takes together.
        """
        if limit is None:
            return list(records)
        return subsample(records, limit, seed, unit_of(self.declaration), groups_of(self.declaration))

    def prompt(self, record: Record) -> str:
        """Word the question of a record, without object list and template.

        Raises:
            DataError: the declaration's prompt names a field that the record lacks.
        """
        fields, options = record.fields, record.meta.get("options")
        if self.declaration.option_wording and isinstance(options, Mapping):
            wording = self.declaration.option_wording
            worded = "\n".join(wording.format(letter=letter, text=text) for letter, text in options.items())
            fields = {**fields, "options": worded}
        return self.declaration.render(fields, record.meta.get("absent"))

    @cached_property
    def scorer(self) -> BenchmarkScorer:
        """The declared scorer.

        Raises:
            DataError: unknown scorer or option.
        """
        return benchmark_scorer(self.declaration)

    @property
    def needs_judge(self) -> bool:
        """Whether a judge has a part in the rules; it had none in those of the first CoLLaVO release.

        Raises:
            DataError: unknown scorer or option.
        """
        return self.declaration.rules != "released" and self.scorer.uses_judge

    def score(self, record: Record, text: str, verdicts: Mapping[str, str] | None = None) -> Score:
        """Judge one reply; whatever is scored, with a judge or without, in a run, a check or later, comes through here.

        Args:
            record: that it answers.
            text: the reply.
            verdicts: of a judge on this reply, by part; None where the rules alone decide.
        """
        return self.scorer.score(record, text, verdicts)

    def evaluate(self, answers: Iterable[tuple[Record, str | None]], verdicts: Verdicts | None = None) -> Evaluation:
        """Judge all replies and sum them up.

        Args:
            answers: records with the model's text; None for a record that could not be asked.
            verdicts: of a judge, see `Scorer.evaluate`; None where the rules alone decide.

        Raises:
            DataError: see `Scorer.evaluate`.
        """
        return self.scorer.evaluate(answers, verdicts, self.score)
