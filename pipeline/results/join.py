"""From answers to results: every record joined to its answer by id, scored, and summed up with what was counted.

Nothing is scored before the ids of the answers equal the ids of the data. A record without an answer (an unreadable
image) reaches the scorer as unanswered, is counted, and is never given an answer.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs.common.nested import flattened
from configs.common.words import quoted, shown
from datasets.declaration import Benchmark, Expected
from datasets.evaluation import Evaluation, counted_as_wrong, groups_of
from datasets.evaluation.judges.base import Verdict
from datasets.evaluation.statistics import rates
from datasets.types import LONGEST_REASON, BadRecord, Metric, Record

from ..base import BenchmarkPipeline
from ..run.journal import JournalEntry
from ..runtime.files import json_line
from .browse.prediction import ImageNames, as_line, group_name, prediction_of
from .judging import Judgement

MANY = 0.1
"""Share of replies from which a run warns that they are empty, unreadable or cut at the token limit."""
SHOWN_REPLY = 100
"""Characters of a reply in a message."""


@dataclass(frozen=True, kw_only=True)
class AnsweredBenchmark:
    """A benchmark with an answer, or the reason for none, for every record.

    Attributes:
        records: in data order.
        bad: what could not be read from the release files.
        entries: by record id.
        evaluation: of all records, in data order.
        judgement: what decided about the answers.
    """

    records: Sequence[Record]
    bad: Sequence[BadRecord]
    entries: Mapping[str, JournalEntry]
    evaluation: Evaluation
    judgement: Judgement = field(default_factory=Judgement)


@dataclass(frozen=True, kw_only=True)
class RunEffort:
    """What a run took.

    Attributes:
        seconds: from its start to its last answer, by the clock, of this session.
        answered: questions answered in this session; earlier ones were found in the journal.
        processes: how many there were.
        devices: of each process.
    """

    seconds: float
    answered: int
    processes: int
    devices: Sequence[str]


def predictions(answered: AnsweredBenchmark, benchmark: Benchmark | None = None, roots: Sequence[Path] = ()) -> bytes:
    """The predictions file: one JSON line per record, in data order; see `browse.prediction.Prediction`.

    All of it but ``seconds`` is the same for any number of processes.

    Args:
        answered: see `AnsweredBenchmark`.
        benchmark: says how records are grouped; None for their own group.
        roots: dataset folders, below which images are named.
    """
    groups = (lambda record: (record.group,)) if benchmark is None else groups_of(benchmark)
    names = ImageNames(roots)
    said: dict[str, list[Verdict]] = {}
    for verdict in answered.judgement.said:
        said.setdefault(verdict.record, []).append(verdict)
    lines = []
    for scored in answered.evaluation.scored:
        name = scored.record.id
        group = group_name(groups(scored.record))
        lines.append(as_line(prediction_of(scored, answered.entries[name], group, names, said.get(name, ()))))
    return b"".join(map(json_line, lines))


def counts(answered: AnsweredBenchmark) -> dict[str, int]:
    """What was counted next to the scores.

    ``records`` is ``scored + unscored + withheld + errors`` (see `datasets.evaluation.statistics.rates.outcome`), and
    ``answered`` the first three of them; ``bad_records`` could not be read and were never asked. ``no_answer`` and
    ``unfinished`` are replies, whatever became of them.
    """
    given = [scored for scored in answered.evaluation.scored if answered.entries[scored.record.id].error is None]
    became = Counter(map(rates.outcome, answered.evaluation.scored))
    return {
        "records": len(answered.records),
        "answered": len(given),
        "scored": became["scored"],
        "unscored": became["unscored"],
        "withheld": became["withheld"],
        "errors": became["error"],
        "distinct_questions": len({entry.key for entry in answered.entries.values()}),
        "images": len({record.image.name for record in answered.records if record.image is not None}),
        "bad_records": len(answered.bad),
        "no_answer": sum(scored.score.no_answer for scored in given),
        "empty": sum(not scored.text.strip() for scored in given),
        "unfinished": sum(not answered.entries[scored.record.id].finished for scored in given),
    }


def examples(answered: AnsweredBenchmark) -> dict[str, dict[str, str]]:
    """The first reply of each kind that a run warns of, with its record's id."""
    found: dict[str, dict[str, str]] = {}
    for scored in answered.evaluation.scored:
        entry = answered.entries[scored.record.id]
        if entry.error is not None:
            continue
        blank = not scored.text.strip()
        kinds = {"empty": blank, "no_answer": scored.score.no_answer and not blank, "unfinished": not entry.finished}
        for kind in (kind for kind, is_so in kinds.items() if is_so):
            found.setdefault(kind, {"id": scored.record.id, "reply": scored.text[:SHOWN_REPLY]})
    return found


def nested(metrics: Iterable[Metric]) -> dict[str, dict[str, float | int | None]]:
    """Values by group and name; the whole benchmark is the group ``all``."""
    groups: dict[str, dict[str, float | int | None]] = {}
    for metric in metrics:
        groups.setdefault(metric.group or "all", {})[metric.name] = metric.value
    return groups


def flat(scores: Mapping[str, Mapping[str, float | int | None]], prefix: str) -> dict[str, float | int]:
    """Nested values as ``prefix/group/name``, for a tracker; undefined ones are left out."""
    return {
        name: value for name, value in flattened(scores, "/", f"{prefix}/").items() if isinstance(value, (int, float))
    }


def shown_value(metric: Metric) -> float | int | None:
    """A metric on the scale of published tables: percent for rates."""
    return 100 * metric.value if metric.kind == "rate" and metric.value is not None else metric.value


def part_in_words(about: Mapping[str, Any]) -> str:
    """What was asked of a benchmark in a limited run; "" for all of it."""
    part = about.get("part")
    return f"a random {part['records']} of {part['of']} records" if part else ""


def place_of_figure(metric: str, rows: Sequence[tuple[str, str]]) -> int | None:
    """Which row of a benchmark's figures an expected one belongs to; None where there is no such row.

    Args:
        metric: of the declaration, as ``group/name``, or a name alone: the whole benchmark's, else the first group's.
        rows: group and name of every figure.
    """
    full = [place for place, row in enumerate(rows) if "/".join(row) == metric]
    plain = [place for place, (_, name) in enumerate(rows) if name == metric]
    return next(iter((*full, *sorted(plain, key=lambda place: rows[place][0] != ""))), None)


def compare(expected: Expected, metrics: Sequence[Metric], *, comparable: bool = True) -> dict[str, Any]:
    """Set a published figure next to ours.

    Args:
        expected: the published figure.
        metrics: of the run.
        comparable: whether it is the same model and the whole benchmark; elsewhere there is no difference to speak of.
    Returns: ``got`` is None where the run has no such figure.
    """
    place = place_of_figure(expected.metric, [(metric.group, metric.name) for metric in metrics])
    got = None if place is None else shown_value(metrics[place])
    difference = got - expected.value if got is not None and comparable else None
    return {
        "metric": expected.metric,
        "title": expected.title,
        "published": expected.value,
        "got": got,
        "difference": difference,
        "tolerance": expected.tolerance,
        "within": None if difference is None else abs(difference) <= expected.tolerance,
        "source": expected.source,
    }


def summary(
    pipeline: BenchmarkPipeline, answered: AnsweredBenchmark, effort: RunEffort | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that ``results.json`` holds.

    Args:
        pipeline: that ran.
        answered: see `AnsweredBenchmark`.
        effort: see `RunEffort`; None where nothing was asked, only scored.
        about: model, part, identity, configuration hash, commit, versions; copied as it is.
    """
    benchmark, metrics = pipeline.declaration, answered.evaluation.metrics
    comparable = not about.get("another_model") and not about.get("part")
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "dataset": benchmark.dataset,
        "pipeline": type(pipeline).__name__,
        "scores": nested(metrics),
        "metrics": [asdict(metric) for metric in metrics],
        "expected": [compare(expected, metrics, comparable=comparable) for expected in benchmark.expected],
        "counts": counts(answered),
        "examples": examples(answered),
        "bad_records": [asdict(record) for record in answered.bad],
        "errors": [
            {"id": record.id, "reason": answered.entries[record.id].error}
            for record in answered.records
            if answered.entries[record.id].error is not None
        ],
        "asked": _asked(benchmark),
        "judged": answered.judgement.described(),
        **_outcomes(benchmark, answered),
        **({} if effort is None else _effort(answered, effort)),
        **about,
    }


OUTCOMES = ("refused", "truncated", "empty")
"""What comes in place of a reply and is the model's own doing."""


def _outcomes(benchmark: Benchmark, answered: AnsweredBenchmark) -> dict[str, Any]:
    """How many records have what in place of a reply, and the figures if that counts as wrong; nothing if none has."""
    became = {name: entry.outcome for name, entry in answered.entries.items() if entry.outcome}
    if not became:
        return {}
    failed = sum(entry.error is not None and not entry.outcome for entry in answered.entries.values())
    wrong = counted_as_wrong(benchmark, answered.evaluation, became.keys())
    return {
        "outcomes": {
            "answered": sum(entry.error is None for entry in answered.entries.values()),
            **{kind: sum(outcome == kind for outcome in became.values()) for kind in OUTCOMES},
            "failed": failed,
            "rule": "scores leave out what was refused, truncated, empty or failed; scores_if_wrong count the first "
            "three as wrong",
            "scores_if_wrong": nested(wrong),
            "metrics_if_wrong": [asdict(metric) for metric in wrong],
        }
    }


def _outcomes_in_words(results: Mapping[str, Any]) -> str:
    """What came in place of replies, and the main figure both ways."""
    held = results["outcomes"]
    kinds = ", ".join(f"{held[kind]} {kind}" for kind in OUTCOMES if held[kind])
    first = next((m for m in results["metrics"] if m["value"] is not None), None)
    words = f"{kinds} instead of a reply: left out of the scores"
    if first is None:
        return words
    same = ("group", "name")
    wrong = next((m for m in held["metrics_if_wrong"] if all(m[key] == first[key] for key in same)), None)
    value = None if wrong is None or wrong["value"] is None else shown_value(Metric(**wrong))
    as_wrong = "undefined" if value is None else f"{value:.2f}"
    left_out = shown_value(Metric(**first))
    name = "/".join(filter(None, (first["group"], first["name"])))
    return f"{words} ({name} {left_out:.2f}); counted as wrong: {as_wrong}"


def _unscored(results: Mapping[str, Any], folder: Path) -> str:
    """How many replies nobody judged, and how to have them judged."""
    number, judged = results["counts"], results["judged"]
    why = shown(judged["decided_by"] or "the rules decide nothing about them", LONGEST_REASON)
    head = f"{number['unscored']} of {number['answered']} replies are unscored ({why})"
    if "usage" in judged:
        return head
    again = "give the same command again"
    if "predictions" not in results:  # of a run, whose folder knows its configuration
        again = f"python lbk_entry.py score --predictions {shlex.quote(str(folder))} --overrides JUDGE.USE always"
    return (
        f"{head}. To have them judged, put a key into OPENAI_API_KEY, or set JUDGE.BASE_URL to a server that speaks "
        f"the OpenAI chat protocol, and: {again}"
    )


def _effort(answered: AnsweredBenchmark, effort: RunEffort) -> dict[str, Any]:
    once = {entry.key: entry for entry in answered.entries.values()}.values()
    return {
        "seconds": {
            "this_session": round(effort.seconds, 3),
            "answering_all_sessions_and_processes": round(sum(entry.seconds for entry in once), 3),
        },
        "answered_this_session": effort.answered,
        "questions_per_second": round(effort.answered / effort.seconds, 3) if effort.answered else None,
        "generated_tokens": sum(entry.num_tokens for entry in once),
        "processes": effort.processes,
        "devices": list(effort.devices),
        "decisions": _decisions(list(once), effort.devices),
    }


def _decisions(entries: Sequence[JournalEntry], devices: Sequence[str]) -> dict[str, Any]:
    """How many replies hang on a decision that rounding could turn, and whether the devices always round alike.

    On the CPU a block's shape is fixed and so is every sum's order. Kernels of other devices choose theirs by what else
    is in a batch, and where memory ran out a block had to get another shape.
    """
    replies = [entry for entry in entries if entry.error is None]
    close = sum(entry.close for entry in replies)
    notes = Counter(entry.note for entry in replies if entry.note)
    return {
        "close": close,
        "of": len(replies),
        "share": round(close / len(replies), 6) if replies else None,
        "fixed_order": all(device.startswith("cpu") for device in devices) and not notes,
        "shape_changes": dict(notes),
    }


def _asked(benchmark: Benchmark) -> dict[str, Any]:
    """How the benchmark was asked and judged."""
    return {
        "prompt": benchmark.prompt,
        "num_beams": benchmark.num_beams,
        "max_new_tokens": benchmark.max_new_tokens,
        "rules": benchmark.rules,
        "scorer": benchmark.scorer,
        "scoring": dict(benchmark.scoring),
        "version": benchmark.version,
        "source": benchmark.source,
    }


def paired(first: Evaluation, second: Evaluation) -> dict[str, float | int | None]:
    """Two runs compared question by question, which sees smaller differences than two intervals side by side do.

    Args:
        first: a run.
        second: another one, on the same records.
    Returns: over the questions that both answered: how many, the mean difference of the credits (first less second)
        with its standard error and 95 % interval, clustered by image, and how many only one of them got more credit
        for.
    """
    others = {scored.record.id: scored.score.value for scored in second.scored}
    pairs = [(s, s.score.value, others.get(s.record.id)) for s in first.scored]
    known = [(s, one - other) for s, one, other in pairs if one is not None and other is not None]
    clusters = [rates.image(s) for s, _ in known]
    mean = rates.mean("difference", [gap for _, gap in known], clusters=clusters, signed=True)
    return {
        "questions": len(known),
        "difference": mean.value,
        "stderr": mean.stderr,
        "low": mean.low,
        "high": mean.high,
        "first_better": sum(gap > 0 for _, gap in known),
        "second_better": sum(gap < 0 for _, gap in known),
    }


def _odd_replies(results: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with more than a tenth of the replies, with one of them and what to check."""
    number, asked = results["counts"], results["asked"]
    answered, empty, unread = number["answered"], number.get("empty", 0), number["no_answer"]
    many = MANY * answered
    if empty > many:
        yield (
            f"{empty} of {answered} replies are empty{_example(results, 'empty')}: check that the checkpoint is whole, "
            "that its template and CRAYON settings are those it was trained with, and MAX_NEW_TOKENS"
        )
    if unread - empty > many or (unread > many >= empty):
        kind = asked.get("scoring", {}).get("rule", asked.get("scorer", "its rule"))
        yield (
            f"{unread} of {answered} replies hold no answer that '{kind}' reads{_example(results, 'no_answer')}: check "
            "whether the prompt (TEST.PROMPT) asks for such answers, and the checkpoint's template and CRAYON settings"
            + ("; a judge reads more (JUDGE)" if results["judged"]["decided_by"].startswith("no judge") else "")
        )
    if number["unfinished"] > many:
        yield (
            f"{number['unfinished']} of {answered} replies did not end within {asked['max_new_tokens']} tokens"
            f"{_example(results, 'unfinished')}: check the prompt, the checkpoint's template, or MAX_NEW_TOKENS"
        )


def _open_decisions(results: Mapping[str, Any]) -> Iterator[str]:
    """What a device, or a lack of memory, leaves to rounding."""
    decisions = results.get("decisions")
    if not decisions:
        return
    for note, number in decisions["shape_changes"].items():
        yield f"memory ran out: {number} replies are of {note}, which can change last digits"
    if decisions["close"] and not decisions["fixed_order"]:
        yield (
            f"{decisions['close']} of {decisions['of']} replies ({100 * decisions['share']:.2f} %) hang on a decision "
            "that rounding could turn: on these devices another batch size or number of processes may change them"
        )


def _example(results: Mapping[str, Any], kind: str) -> str:
    """One reply of a kind, with its record."""
    example = results.get("examples", {}).get(kind)
    if example is None:
        return ""
    reply = f": {quoted(example['reply'])}" if example["reply"].strip() else ""
    return f", such as that to {shown(example['id'])}{reply}"


def warnings(results: Mapping[str, Any], folder: Path) -> list[str]:
    """What a reader of the scores must know, in sentences.

    Args:
        results: see `summary`.
        folder: where they go.
    """
    number, found = results["counts"], []
    if number["errors"] or number["bad_records"]:
        found.append(
            f"only {number['answered']} of {number['records'] + number['bad_records']} records have an answer: "
            f"{number['bad_records']} could not be read and {number['errors']} could not be answered "
            "(results.json lists them)"
        )
    if "outcomes" in results:
        found.append(_outcomes_in_words(results))
    if number["unscored"]:
        found.append(_unscored(results, folder))
    if number["withheld"]:
        found.append(
            f"{number['withheld']} of {number['answered']} replies cannot be scored here: the release withholds their "
            "targets"
        )
    if failed := results["judged"].get("without_verdict"):
        first = shown(failed[0]["reason"], LONGEST_REASON)
        found.append(f"the judge gave no verdict on {len(failed)} requests; the first: {first}")
    found += _odd_replies(results)
    found += _open_decisions(results)
    if part := part_in_words(results):
        found.append(f"only {part} were asked (EVAL.LIMIT {results['limit']})")
    if results.get("untaught"):
        found.append("this kind of question was not among the model's lessons (EVAL.UNTAUGHT)")
    if results.get("forced"):
        found.append(f"asked otherwise than the model was trained (CRAYON.FORCE): {_lines(results['forced'])}")
    if results.get("changes"):
        found.append(f"some answers are of an earlier configuration (EVAL.ON_CHANGE): {_lines(results['changes'])}")
    return found


def _lines(lines: Sequence[str]) -> str:
    return "; ".join(map(shown, lines))
