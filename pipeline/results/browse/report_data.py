"""What a report's page holds of a benchmark, as the lists that ``report_page/page.js`` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from configs.common.words import shown as inline

from ..join import part_in_words, place_of_figure, warnings
from ..report import CHANCE, CLASS, interval_words, rules_in_words, shown
from .prediction import FAULTS, VERDICTS, Prediction, target_words
from .runs import BenchmarkRun, RecordImages
from .thumbnails import Thumbnail, within_budget

RECORD_FIELDS = ("id", "path", "image", "group", "question", "target", "first", "second")
REPLY_FIELDS = (
    *("prompt", "text", "extracted", "score", "verdict", "judge", "finished", "error", "seconds"),
)  # fmt: skip


def page_data(
    runs: Sequence[BenchmarkRun], sights: RecordImages, thumbnails: Mapping[str, Thumbnail], budget: float
) -> dict[str, Any]:
    """All of a benchmark's page.

    Args:
        runs: one, or two to set side by side.
        sights: images and maps of the first.
        thumbnails: by image name.
        budget: bytes of thumbnails that the page carries; those of wrong answers come first, the others are linked.
    """
    pairs = pair_up(runs)
    groups = sorted({either.group for pair in pairs for either in pair if either is not None}, key=_natural)
    images = _Images(sights, thumbnails, _carried(pairs, sights, thumbnails, budget))
    prompts = [p.prompt for pair in pairs for p in pair if p is not None and p.prompt is not None]
    around = common_ends(prompts)
    records = [
        _record(pair, groups.index(_either(pair).group), images.index(_either(pair).id), around) for pair in pairs
    ]
    columns, metrics = metric_table(runs)
    return {
        "title": " against ".join(dict.fromkeys((runs[0].title, *(run.title for run in runs[1:])))),
        "about": _about(runs),
        "warnings": " · ".join(_warnings(runs)),
        "runs": [{"name": run.name} for run in runs],
        "metric_columns": columns,
        "metrics": metrics,
        "verdicts": list(VERDICTS),
        "fields": list(RECORD_FIELDS),
        "reply_fields": list(REPLY_FIELDS),
        "groups": groups,
        "prompt": list(around),
        "images": images.listed,
        "no_images": f"images are not shown: {sights.missing}" if sights.missing else "",
        "records": records,
    }


Pair = tuple[Prediction | None, ...]


def pair_up(runs: Sequence[BenchmarkRun]) -> list[Pair]:
    """The records of one run or two, by id, in the order of the first run; then those that only the second has."""
    by_id = [{p.id: p for p in run.predictions} for run in runs]
    ids = dict.fromkeys(name for found in by_id for name in found)
    return [tuple(found.get(name) for found in by_id) for name in ids]


def _either(pair: Pair) -> Prediction:
    return next(prediction for prediction in pair if prediction is not None)


def _natural(name: str) -> tuple[bool, str, str]:
    """Numbers before words, each in order."""
    return not name.isdigit(), name.zfill(9) if name.isdigit() else name, name


def _carried(
    pairs: Sequence[Pair], sights: RecordImages, thumbnails: Mapping[str, Thumbnail], budget: float
) -> set[str]:
    """Names of the images that stand in the page itself: those of wrong answers, as far as the budget goes."""
    faulty = [
        source.name
        for pair in pairs
        if any(p is not None and p.verdict in FAULTS for p in pair)
        and (source := sights.images.get(_either(pair).id)) is not None
    ]
    return within_budget(faulty, thumbnails, budget)


class _Images:
    """The page's list of images, each once."""

    def __init__(self, sights: RecordImages, thumbnails: Mapping[str, Thumbnail], carried: set[str]) -> None:
        self._sights, self._thumbnails, self._carried = sights, thumbnails, carried
        self._places: dict[str, int] = {}
        self.listed: list[dict[str, Any]] = []

    def index(self, record: str) -> int | None:
        """Place of a record's image in the list; None where it has none that can be shown."""
        source = self._sights.images.get(record)
        thumbnail = None if source is None else self._thumbnails.get(source.name)
        if source is None or thumbnail is None:
            return None
        if source.name not in self._places:
            self._places[source.name] = len(self.listed)
            kept = self._sights.maps.get(source.name)
            self.listed.append(
                {
                    "file": thumbnail.file,
                    "inside": thumbnail.data_uri if source.name in self._carried else None,
                    "map": None if kept is None else {"side": kept.side, "runs": kept.runs, "objects": kept.objects},
                }
            )
        return self._places[source.name]


def _record(pair: Pair, group: int, image: int | None, around: tuple[str, str]) -> list[Any]:
    one = _either(pair)
    target = None if one.target is None else target_words(one.target)
    replies = [None if prediction is None else _reply(prediction, around) for prediction in pair]
    return [one.id, one.image, image, group, one.question, target, replies[0], replies[1] if len(replies) > 1 else None]


def _reply(one: Prediction, around: tuple[str, str]) -> list[Any]:
    prompt = None if one.prompt is None else one.prompt[len(around[0]) : len(one.prompt) - len(around[1])]
    verdict = VERDICTS.index(one.verdict) if one.verdict in VERDICTS else -1
    score = None if one.score is None else round(one.score, 4)
    return [
        *(prompt, one.text, one.extracted, score, verdict, [_said(said) for said in one.judge]),
        *(one.finished, one.error, one.seconds),
    ]


def _said(said: Mapping[str, Any]) -> dict[str, str | None]:
    """A judge's verdict with its texts alone, whatever else a file holds of it."""
    return {name: said[name] if isinstance(said.get(name), str) else None for name in ("part", "verdict", "reply")}


def common_ends(texts: Sequence[str]) -> tuple[str, str]:
    """What all texts begin and end with, so that a page holds it once; the two never overlap in any of them."""
    if not texts:
        return "", ""
    once = set(texts)
    start = os.path.commonprefix(list(once))
    rest = [text[len(start) :][::-1] for text in once]
    return start, os.path.commonprefix(rest)[::-1]


def metric_table(runs: Sequence[BenchmarkRun]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the figures: value and interval of each run, and what was published."""
    tables = [_figures(run) for run in runs]
    rows = list(dict.fromkeys(key for table in tables for key in table))
    published = {key: text for run in runs for key, text in _published(run).items()}
    columns = ["group", "figure"]
    for run in runs:
        columns += [run.name if len(runs) > 1 else "value", "95 % interval"]
    found = [
        [
            key[0] or "all",
            key[1],
            *(cell for table in tables for cell in table.get(key, ("–", ""))),
            published.get(key, ""),
        ]
        for key in rows
    ]
    return [*columns, "published"], found


def _figures(run: BenchmarkRun) -> dict[tuple[str, str], tuple[str, str]]:
    """Value and interval of each figure; without results, how many records have which verdict."""
    if not run.results:
        counts = {verdict: sum(p.verdict == verdict for p in run.predictions) for verdict in VERDICTS}
        return {("", verdict): (str(number), "") for verdict, number in counts.items() if number}
    return {
        (m["group"], m["name"]): (
            f"{shown(m)}  (of {m['num']})" if m["kind"] == "count" else shown(m),
            interval_words(m),
        )
        for m in run.results["metrics"]
        if m["name"] != CHANCE and not m["group"].startswith(CLASS)
    }


def _published(run: BenchmarkRun) -> dict[tuple[str, str], str]:
    """Published figures by the row that they belong to."""
    if not run.results or run.results.get("another_model"):
        return {}
    keys = [(m["group"], m["name"]) for m in run.results["metrics"]]
    found = [(place_of_figure(e["metric"], keys), e["published"]) for e in run.results.get("expected", ())]
    return {keys[place]: f"{published:.2f}" for place, published in found if place is not None}


def _about(runs: Sequence[BenchmarkRun]) -> str:
    """One line on what is shown."""
    words = []
    for run in runs:
        rules = f", {rules_in_words(run.results)}" if run.results else ""
        part = f", {part_in_words(run.results)}" if run.results and part_in_words(run.results) else ""
        words.append(f"{inline(run.name)}: {len(run.predictions)} records{part}{rules}")
    return " · ".join(words)


def _warnings(runs: Sequence[BenchmarkRun]) -> list[str]:
    """What a reader must know, of each run."""
    found = [(run, sentence) for run in runs if run.results for sentence in warnings(run.results, run.folder)]
    return [f"{inline(run.name)}: {sentence}" if len(runs) > 1 else sentence for run, sentence in found]
