"""Minis of the benchmarks with short answers: GQA, TextVQA, ChartQA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .charts import draw_chart
from .facts import Fact, draw_facts
from .release import Release
from .scenes import Scene
from .wording import ask, plural

_TYPES = {
    "existence": ("verify", "obj"),
    "colour": ("query", "attr"),
    "side": ("choose", "rel"),
    "more": ("compare", "global"),
    "relation": ("choose", "rel"),
}
_ANSWERS = 10


def write_gqa(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """GQA's testdev_balanced, with one question that is not balanced and therefore not asked."""
    questions: dict[str, Any] = {}
    for asked in draw_facts(scenes, rng, _TYPES, 20):
        name = f"n{1_000_000 + asked.scene}"
        release.image(f"GQA/images/{name}.jpg", f"{name}.jpg", scenes[asked.scene])
        questions[str(20_000_000 + len(questions))] = _question(asked.fact, name)
    questions["29999999"] = {**next(iter(questions.values())), "isBalanced": False}
    release.json("GQA/testdev_balanced_questions.json", questions)


def _question(fact: Fact, image: str) -> dict[str, Any]:
    structural, semantic = _TYPES[fact.kind]
    steps: list[dict[str, Any]] = [
        {"operation": "select", "dependencies": [], "argument": f"{name} (0)"} for name in fact.about
    ]
    steps.append({"operation": structural, "dependencies": [*range(len(fact.about))], "argument": fact.kind})
    return {
        "question": ask(fact),
        "imageId": image,
        "answer": fact.answer,
        "fullAnswer": fact.answer.capitalize() + ".",
        "isBalanced": True,
        "groups": {"global": fact.kind if structural == "query" else None, "local": None},
        "types": {"structural": structural, "semantic": semantic, "detailed": fact.kind},
        "semantic": steps,
        "semanticStr": "->".join(f"{step['operation']}: {step['argument']}" for step in steps),
        "entailed": [],
        "equivalent": [],
        "annotations": {},
    }


def write_textvqa(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """TextVQA: what a sign says, ten times the same answer; its OCR tokens are left out, so that it must be read."""
    entries: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    for asked in draw_facts(scenes, rng, ("text",), 12):
        scene, image = scenes[asked.scene], f"{asked.scene + 1:016x}"
        release.image(f"TextVQA/train_images/{image}.jpg", f"{image}.jpg", scene)
        height, width, _ = scene.image.shape
        entry = {"question": ask(asked.fact).lower(), "image_id": image, "question_id": 34_000 + len(entries)}
        entry |= {"answers": [asked.fact.answer] * _ANSWERS, "image_width": width, "image_height": height}
        entries.append({**entry, "image_classes": ["Sign"], "set_name": "val"})
        tokens.append({"image_id": image, "ocr_tokens": []})
    about = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    release.json("TextVQA/TextVQA_0.5.1_val.json", {**about, "data": entries})
    release.json("TextVQA/TextVQA_Rosetta_OCR_v0.2_val.json", {"data": tokens})


def write_chartqa(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """ChartQA: questions about drawn charts, as people would ask them and as they follow from a summary."""
    size = scenes[0].image.shape[0]
    for split in ("human", "augmented"):
        entries = []
        for number in range(5):
            chart, name = draw_chart(rng, size), f"{split}_{number}.png"
            release.image(f"ChartQA/test/png/{name}", name, chart)
            most, _ = chart.counts.most_common(1)[0]
            fewest = chart.counts.most_common()[-1][0]
            if split == "human":
                entries.append((name, f"How many more {plural(most)} than {plural(fewest)} are there?", ""))
                entries[-1] = (*entries[-1][:2], str(chart.counts[most] - chart.counts[fewest]))
                entries.append((name, "Of which kind are there most?", most))
            else:
                entries.append((name, f"What is the number of {plural(most)}?", str(chart.counts[most])))
                entries.append((name, f"What is the number of {plural(fewest)}?", str(chart.counts[fewest])))
        rows = [{"imgname": name, "query": query, "label": label} for name, query, label in entries]
        release.json(f"ChartQA/test/test_{split}.json", rows)
