"""GQA, TextVQA, POPE and MME next to their official scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .case import Case, Outcome, Row, questions, rows_of

_GQA = (("StructuralType", "structural"), ("SemanticType", "semantic"), ("Steps", "steps"), ("Length", "words"))


def gqa(case: Case) -> Iterator[Row]:
    """Accuracy, binary, open, distribution and four tables; after LLaVA's conversion and on the raw text."""
    for key, conversion in (("metrics", "llava"), ("metrics_llava_conversion", "llava"), ("metrics_raw_text", "none")):
        official = case.get(key)
        if official:
            ours = case.run("gqa_testdev_balanced", data={"root": "."}, scoring={"conversion": conversion})
            yield from _gqa_figures(key, official, ours)
    if verdicts := case.get("per_question"):
        ours = case.run("gqa_testdev_balanced", data={"root": "."})
        yield questions("per_question", verdicts, ours.values())


def _gqa_figures(key: str, official: Any, ours: Outcome) -> Iterator[Row]:
    for figure, name in (("accuracy", "accuracy"), ("binary", "binary/accuracy"), ("open", "open/accuracy")):
        yield Row(figure=f"{key} {figure}", expected=official[figure], ours=ours.value(name, 100))
    yield Row(figure=f"{key} distribution", expected=official["distribution"], ours=ours.value("distribution"))
    for table, group in _GQA:
        table_rows = ours.group(group)
        for name, (accuracy, num) in official[f"accuracyPer{table}"].items():
            metric = table_rows.get(name)
            got = None if metric is None or metric.value is None else 100 * metric.value
            yield Row(figure=f"{key} {table} {name}", expected=accuracy, ours=got)
            yield Row(figure=f"{key} {table} {name} num", expected=num, ours=metric and metric.num, tolerance=0)


def textvqa(case: Case) -> Iterator[Row]:
    """Accuracy, and of every question the normalised text and its credit; the release scored the same."""
    ours = case.run("textvqa_val", annotations=case.folder, data={"root": "."})
    official = case.get("metrics")
    yield Row(figure="accuracy", expected=official["accuracy"], ours=ours.value("accuracy"))
    yield Row(figure="count", expected=official["count"], ours=ours.num("accuracy"), tolerance=0)
    each = case.get("per_question") or {}
    texts = {key: row["normalised_prediction"] for key, row in each.items()}
    yield questions("normalised text", texts, ours.extracted())
    yield questions("score", {key: row["score"] for key, row in each.items()}, ours.values(), 1e-9)
    if original := case.get("collavo_original"):
        released = case.run("textvqa_val", annotations=case.folder, data={"root": "."}, released=True)
        yield Row(figure="released", expected=original["metrics"]["accuracy"], ours=released.value("accuracy", 100))


def pope(case: Case) -> Iterator[Row]:
    """Every figure of every list, the mean over the lists, and what each answer was read as."""
    official = case.get("metrics")
    place = (case.folder / case.expected["annotations"]).parent.resolve()
    data = {"folders": [place.name], "splits": [name for name in official if name != "mean_over_categories"]}
    ours = case.run("pope_test", annotations=place.parent, data=data)
    for group, figures in official.items():
        prefix = "mean" if group == "mean_over_categories" else group
        named = {name: ours.value(f"{prefix}/{'accuracy' if name == 'acc' else name}") for name in figures}
        yield from rows_of(f"{group} ", figures, named)
    yield questions("read as", case.get("per_question") or {}, ours.extracted())
    released = case.run("pope_test", annotations=place.parent, data=data, released=True)
    for group, figures in ((case.get("collavo_original") or {}).get("metrics") or {}).items():
        named = {name: released.value(f"{group}/{name}") for name in figures or {}}
        yield from rows_of(f"released {group} ", figures or {}, named)
    if published := case.get("published"):
        for group, figure in published["f1"].items():
            yield Row(figure=f"published f1 {group}", expected=figure, ours=_percent(ours.value(f"{group}/f1")))
        yield Row(figure="published mean f1", expected=published["mean_f1"], ours=_percent(ours.value("mean/f1")))


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)


def mme(case: Case) -> Iterator[Row]:
    """All figures of the sub-tasks, both sums, and what each answer was read as."""
    place = (case.folder / case.expected["annotations"]).parent.resolve()
    ours = case.run("mme", annotations=place, data={"root": "."})
    official = case.get("metrics")
    for task, figures in official["tasks"].items():
        yield from rows_of(f"{task} ", figures, {name: ours.value(f"{task}/{name}") for name in figures})
    for total, figure in official["total"].items():
        yield Row(figure=total, expected=figure, ours=ours.value(f"{total.lower()}/score"))
    read = {key: text or "other" for key, text in ours.extracted().items()}
    yield questions("read as", case.get("per_question") or {}, read)
    # The leaderboard cuts digits off as often as it rounds: 1531.319 stands there as 1531.31, 963.611 as 963.6.
    for name, figure in ((case.get("published") or {}).get("scores") or {}).items():
        group = name.lower() if name in ("Perception", "Cognition") else name
        yield Row(figure=f"published {name}", expected=figure, ours=ours.value(f"{group}/score"), tolerance=0.012)
    by_number = case.get("collavo_original_by_number_of_processes") or {}
    if one := (by_number.get("perception_cognition") or {}).get("1"):
        sums = [ours.value(f"{name}/score") for name in ("perception", "cognition")]
        for name, figure, got in zip(("perception", "cognition"), one, sums, strict=True):
            yield Row(figure=f"released, 1 process, {name}", expected=figure, ours=got)
