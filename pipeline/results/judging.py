"""Which judge a run has, and scores with its help: asked before anything is answered, used after, kept on disk."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.common.words import shown as inline
from datasets.declaration import Benchmark
from datasets.evaluation import Evaluation
from datasets.evaluation.judges.base import Judge, JudgeError, Request, Usage, Verdict, Verdicts, collect
from datasets.evaluation.judges.chat import ChatJudge
from datasets.evaluation.judges.options import JudgeConfig, is_configured
from datasets.evaluation.judges.recorded import read_verdicts, write_verdicts
from datasets.evaluation.judging import judge_requests, method, recorded_field, uses_judge
from datasets.types import DataError, Record

from ..base import BenchmarkPipeline
from ..runtime.console import say
from .result_files.extractions import extractions

VERDICTS = "verdicts.jsonl"
"""File of a run's folder that keeps what the judge said."""
ANNOUNCED = 50
"""Requests after which a word is said."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What decided about a benchmark's answers.

    Attributes:
        decided_by: in words; "" where rules alone ever decide.
        usage: what a judge cost in this session; None if none was asked.
        failed: requests that have no verdict, with the reason.
        asked_on: date, ISO; "" if none was asked.
        judge: whose verdicts they are, see ``pipeline/results/judge_folders.py``; "" where the rules alone decided.
        said: every verdict, with the judge's words where they are known.
    """

    decided_by: str = ""
    usage: Usage | None = None
    failed: Sequence[Verdict] = ()
    asked_on: str = ""
    judge: str = ""
    said: Sequence[Verdict] = ()

    def described(self) -> dict[str, Any]:
        """For ``results.json``."""
        by = {"decided_by": self.decided_by, **({"judge": self.judge} if self.judge else {})}
        if self.usage is None:
            return by
        usage = vars(self.usage)
        failed = [{"id": v.record, "part": v.part, "reason": v.failure} for v in self.failed]
        return {**by, "asked_on": self.asked_on, "usage": usage, "without_verdict": failed}


@dataclass(frozen=True, kw_only=True)
class FileVerdicts:
    """Verdicts that a file of replies holds next to them.

    Attributes:
        verdicts: by record.
        path: where they stand; None for none.
    """

    verdicts: Verdicts = field(default_factory=dict)
    path: Path | None = None


def held_in(path: Path, benchmark: Benchmark) -> FileVerdicts:
    """What a file of replies holds of a judge's verdicts, as the result files of MathVista's authors do.

    Raises:
        DataError: unknown scorer or option.
    """
    name = recorded_field(benchmark) if needs_judge(benchmark) else ""
    verdicts = extractions(path, name) if name and path.is_file() else {}
    return FileVerdicts(verdicts=verdicts, path=path) if verdicts else FileVerdicts()


def to_be_asked(benchmark: Benchmark, answers: Sequence[tuple[Record, str]], held: FileVerdicts) -> list[Request]:
    """What a judge must be asked about some answers that no verdict is held on.

    Raises:
        DataError: the benchmark's scorer has no use for a judge.
    """
    return judge_requests(benchmark, [(record, text) for record, text in answers if record.id not in held.verdicts])


def needs_judge(benchmark: Benchmark) -> bool:
    """Whether a judge has a part in a benchmark's rules; it had none in those of the first CoLLaVO release.

    Raises:
        DataError: unknown scorer or option.
    """
    return benchmark.rules != "released" and uses_judge(benchmark)


def judge_of(config: JudgeConfig, environ: Mapping[str, str]) -> JudgeConfig | None:
    """The judge that a configuration asks for, resolved; None for none.

    Raises:
        JudgeError: one is asked for and nothing says whom, or a setting is no such value.
    """
    if config.USE == "never":
        return None
    judge = config.resolved(environ)
    if is_configured(judge, environ):
        return judge
    if config.USE == "always":
        raise JudgeError(
            f"JUDGE.USE always: nobody is there to be asked; put a key into the environment variable "
            f"{judge.KEY_VARIABLE}, or set JUDGE.BASE_URL to a server that speaks the OpenAI chat protocol"
        )
    return None


def make_judge(config: JudgeConfig, environ: Mapping[str, str]) -> Judge:
    """Connect to a judge and let it prove that it answers.

    Raises:
        JudgeError: it cannot be used as configured.
    """
    judge = ChatJudge(config, environ, progress=_Announcer())
    answers_as = judge.probe()
    kept = f"; its replies are kept in {config.CACHE}" if config.CACHE else ""
    say(f"judge: {inline(judge.name)}, answering as {inline(answers_as)}{kept}")
    return judge


class _Announcer:
    """Says from time to time how many verdicts there are."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, judged: int, done: int, total: int) -> None:
        """See ``progress`` of `ChatJudge`."""
        if done == total or done // ANNOUNCED > self._said:
            vain = done - judged
            failed = f", {vain} request{'s' if vain > 1 else ''} without one" if vain else ""
            say(f"  {judged} of {total} verdicts{failed}")
        self._said = 0 if done == total else done // ANNOUNCED


def score(
    pipeline: BenchmarkPipeline,
    answers: Sequence[tuple[Record, str | None]],
    judge: Judge | None,
    folder: Path,
    recorded: Path | None = None,
    held: FileVerdicts = FileVerdicts(),
) -> tuple[Evaluation, Judgement]:
    """Score a benchmark's answers: by its rules alone, with recorded verdicts, or with a judge that is asked now.

    Args:
        pipeline: of the benchmark.
        answers: every record with the model's text; None for one that has none.
        judge: to be asked where the benchmark has a use for it.
        folder: where the verdicts are kept.
        recorded: file of verdicts to use instead of asking.
        held: verdicts of the answers' own file; nothing is asked about what they decide.

    Raises:
        DataError: the benchmark has no use for recorded verdicts, or the file is unreadable.
        JudgeError: the judge's replies cannot be kept.
    """
    benchmark = pipeline.declaration
    if recorded is not None:
        if benchmark.rules == "released":
            raise DataError(
                f"{benchmark.dataset}: the rules of SCORING released ask no judge, so the verdicts in {recorded} count "
                "for nothing; leave --verdicts out, or set SCORING official"
            )
        verdicts = read_verdicts(recorded)
        judgement = Judgement(
            decided_by=f"verdicts of {recorded}",
            judge=decider(benchmark, judge, recorded),
            said=_without_words(verdicts),
        )
        return pipeline.evaluate(answers, verdicts), judgement
    if not pipeline.needs_judge:
        return pipeline.evaluate(answers), Judgement()
    if judge is None and not held.verdicts:
        return pipeline.evaluate(answers), Judgement(decided_by=method(benchmark, None))
    kept = f"what {held.path} holds next to the replies" if held.verdicts else ""
    if judge is None:
        judgement = Judgement(
            decided_by=kept, judge=decider(benchmark, None, held.path), said=_without_words(held.verdicts)
        )
        return pipeline.evaluate(answers, held.verdicts), judgement
    requests = to_be_asked(benchmark, [(record, text) for record, text in answers if text is not None], held)
    if requests:
        say(f"{benchmark.dataset}: asking the judge {inline(judge.name)} for {len(requests)} verdicts")
    before = judge.usage
    said = judge.ask(requests)
    usage = _since(before, judge.usage)
    write_verdicts(folder / VERDICTS, said, judge.name)
    if requests:
        say(f"{benchmark.dataset}: {usage.describe()}")
    found: Verdicts = {**collect(said), **held.verdicts}
    judgement = Judgement(
        decided_by="; ".join(filter(None, (kept, method(benchmark, judge.name)))),
        usage=usage,
        failed=[verdict for verdict in said if verdict.value is None],
        asked_on=datetime.datetime.now(datetime.UTC).date().isoformat(),
        judge=decider(benchmark, judge),
        said=[*_without_words(held.verdicts), *said],
    )
    return pipeline.evaluate(answers, found), judgement


def _without_words(verdicts: Verdicts) -> list[Verdict]:
    """Recorded verdicts, of which the judge's own words are not known."""
    return [Verdict(record=name, part=p, value=value) for name, parts in verdicts.items() for p, value in parts.items()]


def decider(benchmark: Benchmark, judge: Judge | None, recorded: Path | None = None) -> str:
    """Who decides about a benchmark's answers: `judge_folders.RULES`, a judge by its identity, or a file of verdicts.

    Args:
        benchmark: says whether a judge has a part in its rules.
        judge: that is at hand; None for none.
        recorded: file of verdicts to use instead.

    Raises:
        DataError: unknown scorer or option.
    """
    if recorded is not None:
        digest = hashlib.sha256(recorded.read_bytes()).hexdigest()[:8] if recorded.is_file() else "missing"
        return f"verdicts of {recorded.name} ({digest})"
    return judge.identity if judge is not None and needs_judge(benchmark) else ""


def _since(before: Usage, now: Usage) -> Usage:
    """What was spent between two moments."""
    cost = None if now.cost is None else now.cost - (before.cost or 0.0)
    return Usage(
        asked=now.asked - before.asked,
        cached=now.cached - before.cached,
        failed=now.failed - before.failed,
        input_tokens=now.input_tokens - before.input_tokens,
        output_tokens=now.output_tokens - before.output_tokens,
        cost=cost,
    )
