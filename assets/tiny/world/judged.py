"""Minis of the benchmarks that a judge helps to score: MM-Vet, MathVista."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .facts import Fact, draw_facts
from .options import LETTERS, shuffled_options
from .release import Release
from .scenes import Scene
from .wording import ask, plural

_CAPABILITIES = {
    "present": ["rec"],
    "text": ["ocr"],
    "corner": ["rec", "spat"],
    "sum": ["rec", "math"],
    "colour": ["rec"],
}
_HINTS = {
    "choice": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, "
    "at the end.",
    "float": "Please answer the question requiring a floating-point number with one decimal place and provide the "
    "final value, e.g., 1.2, 1.3, 1.4, at the end.",
}


def write_mmvet(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """MM-Vet: open questions with reference answers, some of which need two things or allow either of two."""
    entries: dict[str, Any] = {}
    for number, asked in enumerate(draw_facts(scenes, rng, _CAPABILITIES, 12)):
        key, scene = f"v1_{number}", scenes[asked.scene]
        release.image(f"mm-vet/images/{key}.png", f"{key}.png", scene)
        question, answer = ask(asked.fact), asked.fact.answer
        if asked.fact.kind == "present":
            question, answer = "What is in the image?", "<AND>".join(scene.counts)
        if asked.fact.kind == "sum":
            answer = f"{answer}<OR>{answer}.0"
        entry = {"imagename": f"{key}.png", "question": question, "answer": answer}
        entries[key] = {**entry, "capability": _CAPABILITIES[asked.fact.kind], "imagesource": "tiny world"}
    release.json("mm-vet/mm-vet.json", entries)


def write_mathvista(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """MathVista's testmini: choices, integers and numbers with a decimal."""
    problems: dict[str, Any] = {}
    queries: dict[str, str] = {}
    kinds = {"count": "choice", "sum": "integer", "more": "float"}
    for number, asked in enumerate(draw_facts(scenes, rng, kinds, 12), start=1):
        pid, scene = str(number), scenes[asked.scene]
        release.image(f"MathVista/images/{pid}.jpg", f"images/{pid}.jpg", scene)
        form = kinds[asked.fact.kind]
        question, answer, choices = _problem(asked.fact, form, scene, rng)
        problems[pid] = _entry(pid, question, answer, choices, form, scene)
        listed = [f"({letter}) {text}" for letter, text in zip(LETTERS, choices or (), strict=False)]
        lines = [f"Hint: {_HINTS[form]}", f"Question: {question}", *(["Choices:", *listed] if listed else [])]
        queries[pid] = "\n".join(lines)
    release.json("MathVista/data/testmini.json", problems)
    release.json("MathVista/data/query.json", queries)


def _problem(fact: Fact, form: str, scene: Scene, rng: np.random.Generator) -> tuple[str, str, list[str] | None]:
    """Question, answer and choices."""
    if form == "choice":
        options, right = shuffled_options(fact, rng)
        return ask(fact), options[right], options
    if form == "integer":
        return ask(fact), fact.answer, None
    first, second = fact.about
    share = scene.counts[first] / scene.counts[second]
    question = f"What is the number of {plural(first)} divided by the number of {plural(second)} in the image?"
    return question, str(round(share, 1)), None


def _entry(pid: str, question: str, answer: str, choices: list[str] | None, form: str, scene: Scene) -> dict[str, Any]:
    height, width, _ = scene.image.shape
    return {
        "pid": pid,
        "question": question,
        "image": f"images/{pid}.jpg",
        "choices": choices,
        "unit": None,
        "precision": 1 if form == "float" else None,
        "answer": answer,
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": "text" if choices else form,
        "metadata": {
            "split": "testmini",
            "language": "english",
            "img_width": width,
            "img_height": height,
            "source": "tiny world",
            "category": "math-targeted-vqa",
            "task": "visual question answering",
            "context": "synthetic scene",
            "grade": "elementary school",
            "skills": ["arithmetic reasoning"],
        },
    }
