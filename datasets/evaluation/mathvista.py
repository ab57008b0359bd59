"""MathVista: first what a text comes to, then whether that is right; tables by source, task, skill and more.

*Extraction* follows ``extract_answer.py``: rules for texts that are an answer already; the rest goes to a judge, and
without one comes to nothing. *Scoring* follows ``calculate_score.py``: an extraction is brought into the form of the
answer, for multiple choice through a letter in brackets, a letter, or the nearest option by edit distance - also for an
empty extraction, which ``accuracy_ignoring_empty`` then counts as wrong. ``lenient_accuracy`` is what a reader would
have understood without any judge.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..registration.formats import cells
from ..registration.formats.files import MalformedError
from ..types import Metric, Record, Score, Scored
from .base import JudgedScorer
from .judges import extraction
from .judges.base import Request, UnjudgedScore, question_of
from .parsing import letters, levenshtein, numbers, targets
from .statistics import rates

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_LETTER = re.compile(r"\(([a-zA-Z])\)")


@dataclass(frozen=True, kw_only=True)
class MathVistaScorer(JudgedScorer):
    """MathVista's extraction and comparison.

    Attributes:
        quick_extract: read 'The answer is "...".' without a judge.
        by: names in a record's ``meta`` to report separately by; a list counts for each of its members.
    """

    offline: ClassVar[str] = "answers by the rules of extract_answer.py, which leave longer texts empty"
    recorded: ClassVar[str] = "extraction"

    quick_extract: bool = False
    by: tuple[str, ...] = (
        "question_type",
        "answer_type",
        "language",
        "source",
        "category",
        "task",
        "context",
        "grade",
        "skills",
    )

    def grouped_by(self) -> tuple[str, ...]:
        """What ``by`` names."""
        return self.by

    def prepare(self, record: Record) -> Record:
        """The record with its answer in the form that extractions are brought into.

        Raises:
            MalformedError: it does not say what kind of question it is, or its answer is not of that kind.
        """
        targets.need(record, "mathvista", "question_type", "answer_type")
        meta = record.meta
        for name, known in (("question_type", QUESTION_TYPES), ("answer_type", ANSWER_TYPES)):
            if meta[name] not in known:
                raise MalformedError(f"'{name}' should be {' or '.join(known)}, got {meta[name]!r}")
        choices = [] if cells.blank(meta.get("choices")) else cells.as_list(meta["choices"])
        if choices is None or (meta["question_type"] == "multi_choice" and not choices):
            raise MalformedError(f"'choices' should be a list of options, got {meta.get('choices')!r}")
        found = targets.with_meta(record, {"choices": [cells.as_text(choice, "choices") for choice in choices]})
        found = targets.with_meta(found, {"precision": _precision(found)} | _named(meta, self.by))
        return targets.with_target(found, lambda value: _answer(found, value))

    def own_reply(self, record: Record) -> str:
        """The answer."""
        return str(record.target)

    def own_verdict(self, record: Record, part: str) -> str:
        """What a judge copies out of a right reply: the letter of the option, or the answer."""
        if record.meta["question_type"] == "multi_choice":
            return string.ascii_uppercase[record.meta["choices"].index(record.target)]
        return str(record.target)

    def credits_empty(self, record: Record) -> bool:
        """The official script takes the nearest option to nothing, the shortest one."""
        return bool(record.meta["question_type"] == "multi_choice")

    def score(self, record: Record, text: str) -> Score:
        """Score by the rules alone."""
        said = extract(record, text, self.quick_extract)
        note = "the rules find no answer, and no judge was asked" if said is None else ""
        return _score(record, said or "", note)

    def judged(self, record: Record, text: str, verdicts: Mapping[str, str]) -> Score:
        """Score with what a judge extracted; a text that it was asked about in vain has no score."""
        said = verdicts.get("verdict")
        if said is None:
            said = extract(record, text, self.quick_extract)
        if said is None:
            return UnjudgedScore()
        return _score(record, said, "extracted by the judge" if "verdict" in verdicts else "")

    def requests(self, answers: Iterable[tuple[Record, str]]) -> Iterator[Request]:
        """What a judge is to extract: every text that the rules leave to it."""
        for record, text in answers:
            if extract(record, text, self.quick_extract) is None:
                meta = record.meta
                yield extraction.request(record.id, question_of(record), meta["choices"], meta["answer_type"], text)

    def summarize(self, scored: Sequence[Scored]) -> list[Metric]:
        """Accuracy as official, with empty extractions wrong, and under the robust reading; then the tables."""
        done = [s for s in scored if s.score.value is not None]
        clusters = [rates.image(s) for s in done]
        strict = [0.0 if s.score.no_answer else s.score.value or 0.0 for s in done]
        understood = [float(lenient(s.record, s.text) == s.record.target) for s in done]
        return [
            rates.accuracy(scored),
            rates.count("correct", sum(s.score.value == 1.0 for s in done), len(done)),
            rates.mean("accuracy_ignoring_empty", strict, clusters=clusters),
            rates.mean("lenient_accuracy", understood, clusters=clusters),
            *_tables(done, self.by),
            rates.no_answer(scored),
            *rates.unscored(scored),
        ]


def _named(meta: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str | list[str]]:
    """What records are reported under: a text as it is, one that writes a list and anything else as a list of texts."""
    groups = {key: targets.names(meta[key], key) for key in keys if not cells.absent(meta.get(key))}
    return {key: meta[key] if found == [meta[key]] else found for key, found in groups.items()}


QUESTION_TYPES = ("multi_choice", "free_form")
ANSWER_TYPES = ("text", "integer", "float", "list")


def _precision(record: Record) -> int | None:
    """Decimals of a float answer: as declared, else as its answer is written."""
    given = record.meta.get("precision")
    if cells.absent(given):
        is_float = record.meta["answer_type"] == "float" and record.meta["question_type"] == "free_form"
        said = targets.single(record.target) if is_float and not cells.blank(record.target) else None
        written = cells.as_text(said, "answer") if isinstance(said, (str, int, float)) else ""
        return max(1, len(written.partition(".")[2].strip())) if written else None
    try:
        return int(float(str(given)))
    except (ValueError, OverflowError):
        raise MalformedError(f"'precision' should be a whole number, got {given!r}") from None


def _answer(record: Record, value: object) -> str:
    """The target in the form of an extraction."""
    if record.meta["question_type"] == "multi_choice":
        choices = record.meta["choices"]
        options = dict(zip(string.ascii_uppercase, choices, strict=False))
        return value if isinstance(value, str) and value in choices else options[cells.option_letter(value, options)]
    if record.meta["answer_type"] == "list":
        return value if isinstance(value, str) else str(cells.as_list(value) or value)
    said = targets.text(value).strip()
    answer = normalise(record, said)
    if answer is None or (record.meta["answer_type"] == "integer" and float(said) != int(answer)):
        raise MalformedError(f"'answer' should be of the kind {record.meta['answer_type']}, got {value!r}")
    return answer


def extract(record: Record, text: str, quick: bool) -> str | None:
    """What the rules find in a text; None where they leave it to a judge."""
    if text == "":
        return ""
    kind = record.meta["answer_type"]
    if record.meta["question_type"] == "multi_choice" and text in record.meta["choices"]:
        return text
    try:
        if kind == "integer":
            return str(int(text))
        if kind == "float":
            return str(float(text))
    except ValueError:
        pass  # no bare number: the other rules follow
    said = _QUOTED.search(text) if quick else None
    return said[1] if said else None


def normalise(record: Record, said: str) -> str | None:
    """An extraction in the form of the answer; None if it cannot be brought into it."""
    if record.meta["question_type"] == "multi_choice":
        return _choice(said, record.meta["choices"])
    try:
        if record.meta["answer_type"] == "integer":
            return str(int(float(said)))
        if record.meta["answer_type"] == "float":
            return str(round(float(said), record.meta["precision"]))
    except (ValueError, OverflowError):
        return None
    return said


def _choice(said: str, choices: Sequence[str]) -> str:
    said = said.strip()
    bracketed = _LETTER.search(said)
    said = bracketed[1].upper() if bracketed else said
    if len(said) == 1 and said in string.ascii_uppercase[: len(choices)]:
        return choices[string.ascii_uppercase.index(said)]
    return levenshtein.nearest(said, choices)


def _score(record: Record, said: str, note: str) -> Score:
    answer = normalise(record, said)
    value = None if record.target is None else float(answer == record.target)
    return Score(value=value, extracted=answer or "", no_answer=not said.strip() or answer is None, explanation=note)


def lenient(record: Record, text: str) -> str | None:
    """What a reader would take for the answer in a text, in the form of the answer; None if there is none."""
    meta = record.meta
    if meta["question_type"] == "multi_choice":
        choices = dict(zip(string.ascii_uppercase, meta["choices"], strict=False))
        return choices.get(letters.lenient(text, choices))
    if meta["answer_type"] == "list":
        listed = re.search(r"\[[^\[\]]*\]", text)
        return listed[0] if listed else None
    number = numbers.lenient(text)
    return None if number is None or not math.isfinite(number) else normalise(record, repr(number))


def _tables(scored: Sequence[Scored], keys: Sequence[str]) -> Iterator[Metric]:
    for key in keys:
        groups: dict[str, list[Scored]] = {}
        for item in scored:
            value = item.record.meta.get(key) or ()
            for name in [value] if isinstance(value, str) else dict.fromkeys(value):
                groups.setdefault(name, []).append(item)
        for name in sorted(groups):
            yield rates.accuracy(groups[name], group=f"{key}/{name}")
