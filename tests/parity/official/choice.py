"""ScienceQA, MMBench, SEED-Bench, Q-Bench and AI2D next to their official scripts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.evaluation.circular import hits

from .case import Case, Outcome, Row, questions, rows_of

_PROTOCOLS = {
    "circular": "circular_accuracy",
    "vanilla_first_pass_only": "first_pass_accuracy",
    "vanilla_all_rows": "row_accuracy",
}
_QBENCH = {
    "type": ("yes-or-no", "what", "how"),
    "concern": ("distortion", "other", "in-context distortion", "in-context other"),
}


def scienceqa(case: Case) -> Iterator[Row]:
    """Both accuracies with their counts, what each answer was read as, and the released evaluation."""
    split = {"root": ".", "split": case.expected.get("split", "test")}
    ours = case.run("scienceqa_test", data={**split, "image_only": False})
    official = case.get("metrics")
    for prefix, group in (("", ""), ("img_", "IMG/")):
        yield Row(
            figure=f"{prefix}accuracy", expected=official[f"{prefix}accuracy"], ours=ours.value(f"{group}accuracy", 100)
        )
        counts = {"correct": ours.value(f"{group}correct"), "total": ours.num(f"{group}correct")}
        for name, count in counts.items():
            yield Row(figure=prefix + name, expected=official[prefix + name], ours=count, tolerance=0)
    each = case.get("per_question") or {}
    read = {key: [s.score.extracted or "FAILED", int(s.score.value or 0)] for key, s in ours.scored.items()}
    yield questions("read as", each, read)
    declared = case.run("scienceqa_test", data=split)
    yield Row(
        figure="img_accuracy as declared", expected=official["img_accuracy"], ours=declared.value("IMG/accuracy", 100)
    )
    if original := (case.get("collavo_original") or {}).get("metrics"):
        released = case.run("scienceqa_test", data=split, released=True)
        yield Row(figure="released accuracy", expected=original["accuracy"], ours=released.value("accuracy", 100))
        yield Row(figure="released correct", expected=original["correct"], ours=released.value("correct"), tolerance=0)
        yield Row(figure="released count", expected=original["count"], ours=released.num("accuracy"), tolerance=0)
    published = case.get("published") or {}
    if "accuracy" in published:
        yield Row(figure="published accuracy", expected=published["accuracy"], ours=ours.value("accuracy", 100))
    if "img_accuracy" in published:
        rounded = round(ours.value("IMG/accuracy", 100) or 0.0, 1)
        yield Row(figure="published img_accuracy", expected=published["img_accuracy"], ours=rounded, tolerance=0)


def mmbench(case: Case) -> Iterator[Row]:
    """Three protocols with their tables, what each row was read as, and which groups are hit."""
    dataset = case.top.name
    ours = case.run(dataset, annotations=case.folder, data={"root": ".", "files": [case.expected["annotations"]]})
    for protocol, name in _PROTOCOLS.items():
        official = case.get(protocol)
        if official is None:
            continue
        figures = {key: value for key, value in official["metrics"].items() if key != "split"}
        yield Row(figure=f"{protocol} overall", expected=figures.pop("Overall"), ours=ours.value(name))
        tables = {key.split("/")[1]: metric.value for key, metric in ours.metrics.items() if key.endswith(f"/{name}")}
        yield from rows_of(f"{protocol} ", figures, tables)
        counted = official.get("groups", official.get("rows"))
        yield Row(figure=f"{protocol} count", expected=counted, ours=ours.num(name), tolerance=0)
        if "per_row_hit" in official:
            yield questions(f"{protocol} hits", official["per_row_hit"], ours.values())
        if "per_group_hit" in official:
            yield questions(f"{protocol} hits", official["per_group_hit"], hits(list(ours.scored.values())))
    read = {key: text or None for key, text in ours.extracted().items()}
    yield questions("read as", case.get("rule_based_extraction") or {}, read)
    if published := (case.get("published") or {}).get("circular_accuracy_percent"):
        rounded = round(ours.value("circular_accuracy", 100) or 0.0, 1)
        yield Row(figure="published circular", expected=published, ours=rounded, tolerance=0)


def seed(case: Case) -> Iterator[Row]:
    """Accuracy with counts over images, videos and both, by dimension; the released evaluation."""
    with tempfile.TemporaryDirectory() as scratch:
        place = (case.folder / case.expected["annotations"].split(" ")[0]).resolve()
        if place.name != "SEED-Bench.json":  # right letters alone, where the release may not be spread
            place = _as_release(json.loads(place.read_text(encoding="utf-8")), Path(scratch))
        yield from _seed(case, place.parent)


def _as_release(letters: Mapping[str, str], folder: Path) -> Path:
    """Right letters in the form of the release, with empty choices."""
    records = []
    for key, letter in letters.items():
        kind = "video" if key.startswith("v") else "image"
        records.append({"question_id": key, "data_id": key, "data_type": kind, "question": "?", "answer": letter})
        records[-1] |= {"question_type_id": 1, **{f"choice_{name}": "" for name in "abcd"}}
    file = folder / "SEED-Bench.json"
    file.write_text(json.dumps({"questions": records, "question_type": {"All": 1}}), encoding="utf-8")
    return file


def _seed(case: Case, place: Path) -> Iterator[Row]:
    parts = {"image": ["image"], "video": ["video"], "all": ["image", "video"]}

    def run(part: str, **more: Any) -> Outcome:
        return case.run("seed", annotations=place, data={"root": ".", "data_types": parts[part]}, **more)

    published = case.get("published") or {}
    for part, official in (case.get("metrics") or {}).items():
        ours = run(part)
        yield Row(figure=f"{part} accuracy", expected=official["accuracy"], ours=ours.value("accuracy"))
        right = sum(value == 1.0 for value in ours.values().values())
        yield Row(figure=f"{part} correct", expected=official["correct"], ours=right, tolerance=0)
        yield Row(figure=f"{part} total", expected=official["total"], ours=ours.num("accuracy"), tolerance=0)
        dimensions = ours.group("dimension")
        for name, row in (official.get("by_type") or {}).items():
            metric = dimensions.get(name)
            yield Row(figure=f"{part} {name}", expected=row["accuracy"], ours=metric and metric.value)
            yield Row(figure=f"{part} {name} num", expected=row["count"], ours=metric and metric.num, tolerance=0)
        if f"{part}_percent" in published:
            rounded = round(ours.value("accuracy", 100) or 0.0, 1)
            yield Row(figure=f"published {part}", expected=published[f"{part}_percent"], ours=rounded, tolerance=0)
    if verdicts := case.get("per_question"):
        yield questions("per_question", verdicts, run("image").values())
    if percent := case.get("script_stdout_image_percent"):
        rounded = round(run("image").value("accuracy", 100) or 0.0, 2)
        yield Row(figure="LLaVA's script", expected=percent, ours=rounded, tolerance=0)
    if kit := case.get("lmms_eval"):
        first = run("image", scoring={"rule": "first_letter"}, answered_only=True)
        yield Row(figure="lmms-eval", expected=kit["accuracy_over_answered"], ours=first.value("accuracy"))
    if original := case.get("collavo_original"):
        released = run("image", released=True, answered_only=True)
        figure = original["evaluator"]["metrics"]["accuracy"]
        yield Row(figure="released", expected=figure, ours=released.value("accuracy"))


def qbench(case: Case) -> Iterator[Row]:
    """Accuracy over all, by type and concern; the released evaluation, and VLMEvalKit's reading."""
    ours = case.run("qbench_dev", data={"root": "."})
    official = case.get("metrics")
    yield Row(figure="overall", expected=official["overall"], ours=ours.value("accuracy"))
    for key, names in _QBENCH.items():
        for number, row in official[f"by_{key}"].items():
            name = f"{key}/{names[int(number)]}/accuracy"
            yield Row(figure=f"{key} {number}", expected=row["accuracy"], ours=ours.value(name))
            yield Row(figure=f"{key} {number} num", expected=row["count"], ours=ours.num(name), tolerance=0)
    yield questions("per_question", case.get("per_question") or {}, ours.values())
    if original := case.get("collavo_original"):
        released = case.run("qbench_dev", data={"root": "."}, released=True)
        yield Row(figure="released", expected=original["overall"], ours=released.value("accuracy"))
        yield questions("released per_question", original["per_question"], released.values())
    if kit := case.get("vlmevalkit_exact_matching"):
        matched = case.run("qbench_dev", data={"root": "."}, scorer="choice", scoring={"rule": "mmbench"})
        yield Row(figure="VLMEvalKit", expected=kit["overall"], ours=matched.value("accuracy"))
        yield questions("VLMEvalKit per_question", kit["per_question"], matched.values())


def ai2d(case: Case) -> Iterator[Row]:
    """lmms-eval's and VLMEvalKit's rules, both released evaluations, and the same from the files per diagram."""
    official = case.get("metrics")
    for rule, figures, each in (
        ("ai2d", official, case.get("per_question")),
        ("mmbench", case.get("vlmevalkit_exact_matching"), None),
    ):
        if figures:
            ours = case.run("ai2d", data={"root": "."}, scoring={"rule": rule})
            yield Row(figure=f"{rule} accuracy", expected=figures["accuracy"], ours=ours.value("accuracy"))
            yield questions(f"{rule} per_question", each or figures.get("per_question") or {}, ours.values())
            yield Row(figure=f"{rule} count", expected=official["count"], ours=ours.num("accuracy"), tolerance=0)
    if (case.folder / "questions").is_dir():
        flat, files = (case.run("ai2d", data={"root": ".", **o}).values() for o in ({}, {"file": "absent.json"}))
        yield questions("the files per diagram", flat, files)
    if original := case.get("collavo_original"):
        released = case.run("ai2d", data={"root": "."}, released=True)
        figure = original["evaluator_accuracy_counting_no_capital_as_wrong"]
        yield Row(figure="released accuracy", expected=figure, ours=released.value("accuracy"))
        # The release went on with a capital that no option has; it is then not the right one either.
        capitals = {key: v if v in tuple("ABCD") else "" for key, v in original["first_capital"].items()}
        yield questions("released read as", capitals, released.extracted())
        offline = case.run("ai2d", data={"root": "."}, scoring={"rule": "ai2d_released_offline"})
        figure = original["offline_script"]["accuracy"]
        yield Row(figure="released offline script", expected=figure, ours=offline.value("accuracy"))
