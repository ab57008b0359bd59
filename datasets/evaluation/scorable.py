"""Can a record be scored: its target is understood, its own reply gets the most that the rule gives, nothing gets less.

`prepare_records` brings targets into the form that the scorer compares with. `try_records` scores every record with its
own target and with an empty reply, as a run will; where a judge helps, with the verdict that a judge gives of its
target. Both come before a model is asked, so that no question is answered in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from .. import evaluation
from ..declaration import Benchmark
from ..options import build_options
from ..registration import named_module
from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import BadRecord, DataError, Record, Score
from .judges.base import Request

UNREAD = "…"
"""A reply in which no rule finds an answer, so that a judge is asked about it."""
_ROUNDING = 1e-9


class UnscorableError(DataError):
    """A benchmark of which nothing can be scored; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A record's scores.

    Attributes:
        own: credit of the reply that says the target; None where the target is withheld.
        empty: credit of an empty reply; 0 where it has none.
        reply: that says the target; "" where it is withheld.
        verdicts: what a judge says of it, by part; empty where none helps.
        fault: why the record cannot be scored; "" if it can.
    """

    own: float | None = None
    empty: float = 0.0
    reply: str = ""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


def prepare_records(benchmark: Benchmark, records: Sequence[Record]) -> tuple[list[Record], list[BadRecord]]:
    """Records in the form that the benchmark's scorer needs.

    Args:
        benchmark: names the scorer and its options.
        records: as its reader made them.
    Returns: those that can be scored, in order, and why others cannot.

    Raises:
        UnscorableError: none of them can.
        DataError: unknown scorer or option.
    """
    module, options = _scorer(benchmark)
    if not hasattr(module, "prepare"):
        return list(records), []
    good: list[Record] = []
    bad: list[BadRecord] = []
    for record in records:
        try:
            good.append(module.prepare(record, options))
        except MalformedError as error:
            bad.append(BadRecord(where=place(record), reason=str(error)))
    if bad and not good:
        raise unscorable(benchmark, len(bad), bad[0])
    return good, bad


def place(record: Record) -> str:
    """Where a record stands, for messages."""
    return record.where or f"record {record.id}"


def unscorable(benchmark: Benchmark, number: int, first: BadRecord) -> UnscorableError:
    """The error of a benchmark that has no record which can be scored."""
    return UnscorableError(
        f"benchmark {benchmark.dataset} cannot be scored by '{benchmark.scorer}': none of its {number:,} records can. "
        f"The first, {first.where}: {first.reason}"
    )


def try_records(benchmark: Benchmark, records: Iterable[Record], *, judged: bool) -> Iterator[Trial]:
    """Score every record with its own target and with an empty reply.

    Args:
        benchmark: names the scorer and its options.
        records: from `prepare_records`.
        judged: whether a judge has a part in the benchmark's rules.

    Raises:
        DataError: unknown scorer or option.
    """
    module, options = _scorer(benchmark)
    for record in records:
        try:
            yield _try(module, options, record, judged)
        except (DataError, MalformedError) as error:
            yield Trial(fault=str(error))
        except Exception as error:  # noqa: BLE001 - a scorer that fails on a record is what is looked for
            yield Trial(fault=f"the scorer '{benchmark.scorer}' fails on it: {type(error).__name__}: {error}")


def gap(benchmark: Benchmark, records: Sequence[Record]) -> str:
    """Why the benchmark's main figure would have no value over these records; "" where it has one.

    Raises:
        DataError: unknown scorer or option.
    """
    module, _ = _scorer(benchmark)
    return str(module.gap(records)) if hasattr(module, "gap") else ""


def _try(module: ModuleType, options: Any, record: Record, judged: bool) -> Trial:
    empty = module.score(record, "", options).value or 0.0
    reply = _own_reply(module, options, record)
    if reply is None:
        return Trial(empty=empty)
    ruled: Score = module.score(record, reply, options)
    values = [ruled.value]
    verdicts: dict[str, str] = {}
    if judged:
        requests = [*module.requests([(record, reply)], options), *module.requests([(record, UNREAD)], options)]
        verdicts = _verdicts(module, options, record, requests)
        values += [module.judged(record, text, verdicts, options).value for text in (reply, UNREAD)] if verdicts else []
    own = max((value for value in values if value is not None), default=0.0)
    fault = _fault(module, options, record, own, empty)
    return Trial(own=own, empty=empty, reply=reply, verdicts=verdicts, fault=fault)


def _own_reply(module: ModuleType, options: Any, record: Record) -> str | None:
    """The reply that says the target; None where it is withheld, or the scorer does not say how it is said."""
    if cells.blank(record.target):
        return None
    if hasattr(module, "own_reply"):
        return str(module.own_reply(record, options))
    return record.target if isinstance(record.target, str) else None


def _verdicts(module: ModuleType, options: Any, record: Record, requests: Sequence[Request]) -> dict[str, str]:
    """A judge's verdicts as they are read from its replies.

    Raises:
        MalformedError: a reply that grants everything cannot be read.
    """
    found: dict[str, str] = {}
    for request in requests:
        said = module.own_verdict(record, request.part, options)
        verdict = request.parse(said)
        if verdict is None:
            raise MalformedError(f"a judge's reply {said!r} would not be understood")
        found[request.part] = verdict
    return found


def _fault(module: ModuleType, options: Any, record: Record, own: float, empty: float) -> str:
    highest = module.highest(record, options) if hasattr(module, "highest") else 1.0
    if own < highest - _ROUNDING:
        return f"its own answer {record.target!r} gets {own:g} by the rule, where the most is {highest:g}"
    if own <= 0.0:
        return f"nothing that agrees with its answer {record.target!r} gets any credit by the rule"
    credited = hasattr(module, "credits_empty") and module.credits_empty(record, options)
    if empty >= own and not credited:
        return f"an empty reply gets as much ({empty:g}) as its own answer {record.target!r}"
    return ""


def _scorer(benchmark: Benchmark) -> tuple[ModuleType, Any]:
    where = f"benchmark {benchmark.name}, scorer"
    module = named_module(evaluation.__name__, evaluation.__path__, benchmark.scorer, where, "summarize")
    return module, build_options(module.Options, benchmark.scoring, where)
