"""One line of ``predictions.jsonl``: everything that is known of one record and its reply.

The file has one JSON object per record, in data order. docs/results.md documents the fields.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.common.safe_json import parse_json
from configs.common.words import did_you_mean, shown
from datasets.evaluation.judges.base import Verdict
from datasets.evaluation.statistics.rates import outcome
from datasets.types import DataError, ImageFile, ImageGroup, ImageSource, Scored

if TYPE_CHECKING:
    from ...run.journal import JournalEntry

RIGHT, PARTLY, WRONG, UNREADABLE = "right", "partly right", "wrong", "unreadable"
VERDICTS = (RIGHT, PARTLY, WRONG, UNREADABLE, "unscored", "withheld", "error")
"""What can be said of a record, see `verdict_of`."""
FAULTS = (WRONG, PARTLY, UNREADABLE, "error")
"""The verdicts that somebody who looks for mistakes wants to see."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A record, its reply and what was decided about it.

    Attributes:
        id: of the record.
        image: path below the dataset root; ``sha256:`` and 16 digits for an image that lies inside a table; None for a
            text-only question.
        question: as the release has it.
        prompt: the whole prompt that the model saw; None where there is no reply.
        text: the reply; None where there is none.
        extracted: what the scorer read in the reply; None where there is no reply.
        target: the ground truth, as the scorer compares with it; None where the release withholds it.
        score: credit from 0 to 1; None where nothing decided.
        verdict: one of `VERDICTS`.
        judge: what a judge said of the reply: objects with ``part``, ``verdict`` and ``reply``; empty without a judge.
        group: split or category that scores are reported by, coarse to fine, separated by `` / ``; "" for one group.
        finished: whether the reply ended by itself, rather than at the token limit; None where there is no reply.
        error: why there is no reply; None where there is one.
        seconds: spent on the reply: its share of the batch; 0 where another record's reply was used; None if unknown.
    """

    id: str
    image: str | None = None
    question: str = ""
    prompt: str | None = None
    text: str | None = None
    extracted: str | None = None
    target: Any = None
    score: float | None = None
    verdict: str = ""
    judge: Sequence[Mapping[str, Any]] = ()
    group: str = ""
    finished: bool | None = None
    error: str | None = None
    seconds: float | None = None

    @property
    def cluster(self) -> tuple[str, str]:
        """What the replies to one image share; the record itself for a text-only question."""
        return ("image", self.image) if self.image else ("record", self.id)


_TYPES: dict[str, tuple[type, ...]] = {
    "image": (str,),
    "question": (str,),
    "prompt": (str,),
    "text": (str,),
    "extracted": (str,),
    "score": (int, float),
    "verdict": (str,),
    "judge": (list,),
    "group": (str,),
    "finished": (bool,),
    "error": (str,),
    "seconds": (int, float),
}


class ImageNames:
    """Names of images for the predictions file, each found once.

    Args:
        roots: dataset folders; a file's name is its path below the first that holds it.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [Path(os.path.abspath(root)) for root in roots]
        self._names: dict[str, str] = {}

    def of(self, source: ImageSource | None) -> str | None:
        """The name of an image, see `Prediction.image`."""
        if source is None:
            return None
        if source.name not in self._names:
            self._names[source.name] = self._made(source)
        return self._names[source.name]

    def _made(self, source: ImageSource) -> str:
        if isinstance(source, ImageGroup):
            return " + ".join(self._made(one) for one in source.sources)
        return self._file(source) if isinstance(source, ImageFile) else _digest(source)

    def _file(self, source: ImageFile) -> str:
        path = Path(os.path.abspath(source.path))
        below = next((path.relative_to(root) for root in self._roots if path.is_relative_to(root)), None)
        return source.name if below is None else below.as_posix()


def _digest(source: ImageSource) -> str:
    """The hash of an image's bytes; its name where they cannot be read, as the record's error says."""
    try:
        return f"sha256:{hashlib.sha256(source.read()).hexdigest()[:16]}"
    except (OSError, ValueError):
        return source.name


def verdict_of(scored: Scored) -> str:
    """What became of a record, in one word or two, see `VERDICTS`."""
    became = outcome(scored)
    if became != "scored":
        return became
    if scored.score.no_answer:
        return UNREADABLE
    value = scored.score.value or 0.0
    return RIGHT if value >= 1.0 else PARTLY if value > 0.0 else WRONG


def prediction_of(
    scored: Scored, entry: JournalEntry, group: str = "", names: ImageNames | None = None, said: Sequence[Verdict] = ()
) -> Prediction:
    """What the predictions file says of a record.

    Args:
        scored: the record with its score.
        entry: its reply.
        group: see `Prediction`.
        names: of images; None where no dataset folder is known.
        said: a judge's verdicts on it.
    """
    record, given = scored.record, entry.error is None
    return Prediction(
        id=record.id,
        image=(names or ImageNames(())).of(record.image),
        question=record.fields.get("question") or entry.question,
        prompt=entry.prompt if given else None,
        text=entry.text if given else None,
        extracted=scored.score.extracted if given else None,
        target=_plain(record.target),
        score=scored.score.value if given else None,
        verdict=verdict_of(scored),
        judge=[{"part": v.part, "verdict": v.value, "reply": v.reply or v.failure} for v in said],
        group=group,
        finished=entry.finished if given else None,
        error=entry.error,
        seconds=entry.seconds if entry.id == record.id else 0.0,
    )


def group_name(groups: Sequence[str]) -> str:
    """The groups of a record in one text; what is empty or said twice is left out."""
    return " / ".join(dict.fromkeys(filter(None, groups)))


def as_line(prediction: Prediction) -> dict[str, Any]:
    """A line of the file, as an object; all fields, in their order."""
    return {**asdict(prediction), "judge": list(prediction.judge)}


def _plain(value: Any) -> Any:
    """A target as JSON can hold it."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value), key=repr)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else str(value)


def read_prediction_file(path: Path) -> list[Prediction]:
    """Read a ``predictions.jsonl``, also one of an earlier version, which has fewer fields.

    Raises:
        DataError: it is unreadable, a line is not of this form, or an id occurs twice; with the line.
    """
    found: dict[str, Prediction] = {}
    for where, item in _objects(path):
        prediction = _read(where, item)
        if prediction.id in found:
            raise DataError(f"{where}: a second line of record {shown(prediction.id)}")
        found[prediction.id] = prediction
    if not found:
        raise DataError(f"{path}: holds no predictions")
    return list(found.values())


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            item = parse_json(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        if not isinstance(item, dict) or not isinstance(item.get("id"), str) or "text" not in item:
            raise DataError(
                f"{where}: not a line of a run's predictions.jsonl, which has at least 'id' and 'text'; "
                "`score` reads other files, and writes such a one"
            )
        yield where, item


def _read(where: str, item: Mapping[str, Any]) -> Prediction:
    values = {field.name: item[field.name] for field in fields(Prediction) if item.get(field.name) is not None}
    for name, kinds in _TYPES.items():
        value = values.get(name)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise DataError(f"{where}: '{name}' should be {' or '.join(k.__name__ for k in kinds)}, got {shown(value)}")
    for name in ("score", "seconds"):
        if name in values and not math.isfinite(values[name]):
            raise DataError(f"{where}: '{name}' is not a finite number")
    if not all(isinstance(said, Mapping) for said in values.get("judge", ())):
        raise DataError(f"{where}: 'judge' should list objects")
    if "verdict" not in values:
        values["verdict"] = _old_verdict(values)
    return Prediction(**values)


def _old_verdict(values: Mapping[str, Any]) -> str:
    """The verdict of a line that has none: of an earlier version, or of another tool."""
    if values.get("text") is None:
        return "error"
    score = values.get("score")
    if score is None:
        return "unscored"
    if not values.get("extracted") and score <= 0:
        return UNREADABLE
    return RIGHT if score >= 1 else PARTLY if score > 0 else WRONG


def target_words(target: Any) -> str:
    """A target as readers see it: a text as it is, a list of texts separated by semicolons, else JSON."""
    if target is None:
        return ""
    if isinstance(target, str):
        return target
    if isinstance(target, list) and all(isinstance(item, (str, int, float)) for item in target):
        return "; ".join(map(str, target))
    return json.dumps(target, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class PredictionFilter:
    """Which records of a predictions file to show.

    Attributes:
        wrong: only what is one of `FAULTS`.
        ids: only these records, in this order; empty for any.
        num: how many at most; named ids are shown whatever their number.
    """

    wrong: bool = False
    ids: tuple[str, ...] = ()
    num: int = 4

    def choose(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The wanted records; unnamed ones evenly spread over the data.

        Raises:
            DataError: an id that there is not, or no record is left.
        """
        if self.ids:
            by_id = {prediction.id: prediction for prediction in predictions}
            missing = [name for name in self.ids if name not in by_id]
            if missing:
                raise DataError(f"there is no record {shown(missing[0])}{did_you_mean(missing[0], by_id)}")
            predictions = [by_id[name] for name in dict.fromkeys(self.ids)]
        kept = [prediction for prediction in predictions if not self.wrong or prediction.verdict in FAULTS]
        if not kept:
            raise DataError(f"none of {len(predictions)} records is wrong, unreadable or an error")
        if self.ids:
            return kept
        count = min(self.num, len(kept))
        return [kept[index * len(kept) // count] for index in range(count)]
