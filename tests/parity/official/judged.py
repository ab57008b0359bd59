"""MM-Vet, MathVista and HallusionBench next to their official scripts, with recorded verdicts and without a judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from datasets.evaluation.hallusion_errors import ThreeWayScore
from datasets.evaluation.judges.recorded import read_verdicts

from .case import Case, Outcome, Row, questions, rows_of

_DENOMINATORS = {"questions": "aAcc", "pairs": "qAcc", "figures": "fAcc", "easy_pairs": "easy_aAcc"}
_DENOMINATORS |= {"hard_pairs": "hard_aAcc"}


def mmvet(case: Case) -> Iterator[Row]:
    """Both tables, with the official rounding, from recorded grades; and no score at all without them."""
    grades = case.folder / "grades.json"
    texts = dict.fromkeys(read_verdicts(grades), "")
    ours = case.run("mm-vet", data={"root": "."}, predictions=texts, verdicts=grades, answered_only=True)
    official, published = case.get("metrics"), case.get("published") or {}
    for table in ("capability", "integration"):
        parts = {name: metric.value for name, metric in ours.group(table).items()}
        parts |= {key: ours.value(key) for key in ("total", "std")}
        runs = [ours.value(f"run/{number}/total") for number in range(1, case.expected["num_run"] + 1)]
        for digits in (1, 10):
            wanted = dict(official[f"rounded_{digits}"][table])
            rounded = [round(run or 0.0, digits) for run in runs]
            yield Row(figure=f"{table} {digits} digits, runs", expected=wanted.pop("runs"), ours=rounded, tolerance=0)
            got = {key: None if value is None else round(value, digits) for key, value in parts.items()}
            yield from rows_of(f"{table} {digits} digits, ", wanted, got)
        given = {k: v for k, v in published.get(table, {}).items() if k not in ("runs", "std")}
        shown = {key: f"{parts[key]:.1f}" for key in given if parts.get(key) is not None}
        yield from rows_of(f"published {table} ", given, shown)
    plain = case.run("mm-vet", data={"root": "."}, predictions=texts, answered_only=True)
    yield Row(figure="without grades", expected=None, ours=plain.value("total"), tolerance=0)


def mathvista(case: Case) -> Iterator[Row]:
    """All tables from recorded extractions, and from the rules alone."""
    recorded = case.folder / "extractions.json"
    texts = dict.fromkeys(read_verdicts(recorded), "")
    ours = case.run("mathvista_testmini", data={"root": "."}, predictions=texts, verdicts=recorded, answered_only=True)
    yield from _mathvista(case.get("metrics"), case.get("per_question"), ours)
    if strict := case.get("metrics_ignore_empty_extractions"):
        got = ours.value("accuracy_ignoring_empty")
        yield Row(figure="ignoring empty extractions", expected=strict["average"]["accuracy"], ours=got)
    if published := case.get("published"):
        changed = case.expected.get("differences_to_published_file") or {}
        right = sum(value == 1.0 for key, value in ours.values().items() if key not in changed)
        right += sum(row["published"][1] for row in changed.values())
        yield Row(figure="published correct", expected=published["correct"], ours=right, tolerance=0)
        now = {key: row["this_commit"] for key, row in changed.items()}
        yield questions("changed since", now, {key: answer for key, answer in _answers(ours).items() if key in now})
    if rules := case.get("rule_only_extraction"):
        for quick, part in ((False, "without"), (True, "with")):
            official = rules[f"score_{part}_quick_extract"]
            alone = case.run(
                "mathvista_testmini", data={"root": "."}, scoring={"quick_extract": quick}, answered_only=True
            )
            figure = official["average"]["accuracy"]
            yield Row(figure=f"rules {part} quick extract", expected=figure, ours=alone.value("accuracy"))
            answers = {key: [answer or "", right] for key, (answer, right) in official["per_question"].items()}
            yield questions(f"rules {part} quick extract, per_question", answers, _answers(alone))


def _answers(outcome: Outcome) -> dict[str, Any]:
    return {key: [scored.score.extracted, scored.score.value] for key, scored in outcome.scored.items()}


def _mathvista(official: Mapping[str, Any], each: Mapping[str, Any] | None, ours: Outcome) -> Iterator[Row]:
    for key, table in official.items():
        if key == "average":
            yield Row(figure="average", expected=table["accuracy"], ours=ours.value("accuracy"))
            counts = ours.value("correct"), ours.num("correct")
            yield Row(figure="correct", expected=table["correct"], ours=counts[0], tolerance=0)
            yield Row(figure="total", expected=table["total"], ours=counts[1], tolerance=0)
            continue
        parts = ours.group(key)
        for name, row in table.items():
            metric = parts.get(name)
            yield Row(figure=f"{key} {name}", expected=row["accuracy"], ours=metric and metric.value)
            yield Row(figure=f"{key} {name} num", expected=row["total"], ours=metric and metric.num, tolerance=0)
    answers = {key: [answer or "", right] for key, (answer, right) in (each or {}).items()}
    yield questions("per_question", answers, _answers(ours))


def hallusion(case: Case) -> Iterator[Row]:
    """All figures from recorded verdicts, from the words alone, VLMEvalKit's and the released ones."""
    recorded, texts = case.folder / "judgements.json", case.load("predictions.json")
    data = {"root": "."}
    yield from _hallusion("", case.get("metrics"), case.run("hallusionbench", data=data, verdicts=recorded))
    if offline := case.get("offline_rule_judge"):
        ours = case.run("hallusionbench", data=data)
        said = {key: s.score.verdict for key, s in ours.scored.items() if isinstance(s.score, ThreeWayScore)}
        yield questions("offline verdicts", offline["verdicts"], said)
        plain = {g: {k: v for k, v in f.items() if k != "errors"} for g, f in offline["metrics"].items()}
        yield from _hallusion("offline ", plain, ours)
        # Only a judge says which answers agree; with what it said, errors are told apart as by the official script.
        held = read_verdicts(recorded)
        mixed = {key: {**held[key], "correctness": verdict} for key, verdict in offline["verdicts"].items()}
        yield from _hallusion(
            "offline, compared ", offline["metrics"], case.run("hallusionbench", data=data, verdicts=mixed)
        )
    if kit := case.get("vlmevalkit_exact_matching"):
        ours = case.run("hallusionbench", data=data, scoring={"rule": "hallusion_vlmevalkit"})
        yield Row(figure="VLMEvalKit count", expected=kit["count"], ours=ours.num("aAcc"), tolerance=0)
        whole = case.get("published_denominators") or {}
        for name, metric in (("figures", "fAcc"), ("pairs", "qAcc")):
            if name in whole:  # leaving out the questions without an image takes no figure and no pair away
                yield Row(figure=f"VLMEvalKit {name}", expected=whole[name], ours=ours.num(metric), tolerance=0)
        for group, figures in kit["metrics"].items():
            prefix = "" if group == "Overall" else f"{group}/"
            yield from rows_of(f"VLMEvalKit {group} ", figures, {n: ours.value(prefix + n, 100) for n in figures})
    if original := case.get("collavo_original"):
        released = case.run("hallusionbench", data=data, released=True, predictions=texts)
        yield Row(figure="released", expected=original["metrics"]["accuracy"], ours=released.value("aAcc", 100))


def _hallusion(name: str, official: Mapping[str, Mapping[str, Any]], ours: Outcome) -> Iterator[Row]:
    for group, figures in official.items():
        prefix = "" if group == "all" else f"{group}/"
        for key, figure in figures.items():
            if key == "counts":
                counts = {n: ours.num(prefix + m) for n, m in _DENOMINATORS.items()}
                yield from rows_of(f"{name}{group} ", {n: figure[n] for n in _DENOMINATORS}, counts, 0.0)
            elif key == "errors":
                yield from rows_of(f"{name}{group} errors ", figure, {n: ours.value(prefix + n) for n in figure}, 0.0)
            elif key == "yes_no_bias":
                bias = {"diff": ours.value(f"{prefix}yes_diff"), "fp": ours.value(f"{prefix}fp_ratio")}
                yield from rows_of(f"{name}{group} bias ", {n: figure[n] for n in bias}, bias)
            else:
                scale = 1 if key == "fig_score" else 100
                yield Row(figure=f"{name}{group} {key}", expected=figure, ours=ours.value(prefix + key, scale))
