"""Minis of the multiple-choice benchmarks: ScienceQA, MMBench in two languages, SEED-Bench, Q-Bench, AI2D, MMStar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .facts import AskedFact, Fact, draw_facts
from .options import LETTERS, passes, shuffled_options
from .release import Release
from .scenes import Scene
from .wording import ask, ask_chinese, chinese

_ABILITIES = {
    "count": ("attribute_reasoning", "object_counting"),
    "colour": ("finegrained_perception (instance-level)", "attribute_recognition"),
    "corner": ("finegrained_perception (instance-level)", "object_localization"),
    "present": ("coarse_perception", "image_topic"),
    "text": ("finegrained_perception (instance-level)", "ocr"),
}
"""Kinds that MMBench has in both languages, with its two levels of abilities."""
_DIMENSIONS = {
    "Scene Understanding": "scene",
    "Instance Identity": "present",
    "Instance Attributes": "colour",
    "Instance Location": "corner",
    "Instances Counting": "count",
    "Spatial Relation": "beside",
    "Instance Interaction": "nearest",
    "Visual Reasoning": "sum",
    "Text Understanding": "text",
}
_CORE = {
    "present": ("coarse perception", "image topic"),
    "colour": ("fine-grained perception", "attribute & celebrity recognition"),
    "corner": ("instance reasoning", "single-instance reasoning"),
    "nearest": ("instance reasoning", "cross-instance relation reasoning"),
    "sum": ("math", "numeric commonsense and calculation"),
    "text": ("fine-grained perception", "recognition"),
}
PASS_STRIDE = 1_000_000


def write_scienceqa(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """ScienceQA: problems with an image in the test split, and one without."""
    problems: dict[str, Any] = {}
    for number, asked in enumerate(draw_facts(scenes, rng, ("count", "side", "present", "colour"), 16), start=1):
        choices, right = shuffled_options(asked.fact, rng, 2 + number % 3)
        release.image(f"ScienceQA/images/test/{number}/image.png", f"test/{number}/image.png", scenes[asked.scene])
        hint = "Look at the drawing." if number % 2 else ""
        problems[str(number)] = _problem(ask(asked.fact), choices, right, hint, "image.png")
    problems["17"] = _problem("Which of these is an animal?", ["dog", "kite"], 0, "", None)
    release.json("ScienceQA/problems.json", problems)
    release.json("ScienceQA/pid_splits.json", {"train": [], "val": [], "test": list(problems)})


def _problem(question: str, choices: Sequence[str], right: int, hint: str, image: str | None) -> dict[str, Any]:
    return {
        "question": question,
        "choices": list(choices),
        "answer": right,
        "hint": hint,
        "image": image,
        "task": "closed choice",
        "grade": "grade3",
        "subject": "natural science",
        "topic": "units-and-measurement",
        "category": "tiny world",
        "skill": "look",
        "lecture": "",
        "solution": "",
        "split": "test",
    }


def write_mmbench(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """MMBench's tables, every question once under each shift of its options."""
    chosen = draw_facts(scenes, rng, _ABILITIES, 10)
    same: Callable[[str], str] = str
    for file, word, translate in (
        ("mmbench_dev_20230712", ask, same),
        ("mmbench_dev_cn_20231003", ask_chinese, chinese),
    ):
        first: list[dict[str, Any]] = []
        rest: list[dict[str, Any]] = []
        for number, asked in enumerate(chosen, start=1):
            options, right = shuffled_options(asked.fact, rng, 4 if number % 3 else 3)
            texts = [translate(option) for option in options]
            for turn, (turned, place) in enumerate(passes(texts, right)):
                row = _row(number + turn * PASS_STRIDE, word(asked.fact), turned, place, asked.fact, number)
                (rest if turn else first).append({**row, "image": release.base64(scenes[asked.scene])})
        release.table(f"MMBench/{file}.tsv", first + rest)


def _row(index: int, question: str, options: Sequence[str], right: int, fact: Fact, number: int) -> dict[str, Any]:
    cells = dict.fromkeys("ABCD", "") | dict(zip(LETTERS, options, strict=False))
    upper, lower = _ABILITIES[fact.kind]
    return {
        "index": index,
        "question": question,
        "hint": "Look closely." if number % 4 == 0 else "",
        **cells,
        "answer": LETTERS[right],
        "category": lower,
        "source": "tiny world",
        "l2-category": upper,
        "comment": "",
        "split": "dev",
    }


def write_seed(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """SEED-Bench's nine dimensions of images, and a video question that its image part leaves out."""
    questions: list[dict[str, Any]] = []
    types = {name: number for number, name in enumerate(_DIMENSIONS, start=1)} | {"Action Recognition": 10}
    for name, kind in _DIMENSIONS.items():
        for asked in draw_facts(scenes, rng, (kind,), 2):
            number = len(questions) + 1
            data_id = f"{1_000_000 + number}_{number}"
            release.image(f"SEED-Bench/SEED-Bench-image/{data_id}", data_id, scenes[asked.scene])
            questions.append(_seed_question(str(number), data_id, "image", types[name], asked, rng))
    questions.append({**questions[0], "question_id": "v1", "data_id": "v1", "data_type": "video"})
    questions[-1]["question_type_id"] = 10
    release.json("SEED-Bench/SEED-Bench.json", {"questions": questions, "question_type": types})


def _seed_question(
    name: str, data_id: str, kind: str, number: int, asked: AskedFact, rng: np.random.Generator
) -> dict[str, Any]:
    options, right = shuffled_options(asked.fact, rng)
    return {
        "answer": LETTERS[right],
        **{f"choice_{letter.lower()}": option for letter, option in zip(LETTERS, options, strict=False)},
        "data_id": data_id,
        "data_type": kind,
        "question": ask(asked.fact),
        "question_id": name,
        "question_type_id": number,
    }


def write_qbench(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """Q-Bench's three types of question and four concerns."""
    entries: list[dict[str, Any]] = []
    kinds = {"existence": 0, "colour": 1, "corner": 1, "count": 2}
    for number, asked in enumerate(draw_facts(scenes, rng, kinds, 16)):
        options, right = shuffled_options(asked.fact, rng, 4 - number % 2)
        name = f"qbench_{number:04d}.jpg"
        release.image(f"LLVisionQA-QBench/images/{name}", name, scenes[asked.scene])
        entry = {"img_path": name, "question": ask(asked.fact), "candidates": options, "correct_ans": options[right]}
        entries.append({**entry, "type": kinds[asked.fact.kind], "concern": number % 4})
    release.json("LLVisionQA-QBench/llvisionqa_dev.json", entries)


def write_ai2d(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """AI2D: one file of questions per diagram, and the list of test diagrams."""
    by_scene: dict[int, list[AskedFact]] = {}
    for asked in draw_facts(scenes, rng, ("count", "present", "corner", "nearest"), 16):
        by_scene.setdefault(asked.scene, []).append(asked)
    for scene, members in by_scene.items():
        name = f"{scene}.png"
        release.image(f"ai2d/images/{name}", f"images/{name}", scenes[scene])
        questions: dict[str, Any] = {}
        for asked in members:
            options, right = shuffled_options(asked.fact, rng)
            question = {"abcLabel": False, "answerTexts": options, "correctAnswer": right}
            questions[ask(asked.fact)] = {**question, "questionId": f"{name}-{len(questions)}"}
        release.json(f"ai2d/questions/{name}.json", {"imageName": name, "questions": questions})
    release.text("ai2d/ai2d_test_ids.csv", "".join(f"{scene}\n" for scene in by_scene))


def write_mmstar(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """MMStar in VLMEvalKit's layout."""
    rows: list[dict[str, Any]] = []
    for number, asked in enumerate(draw_facts(scenes, rng, _CORE, 12)):
        options, right = shuffled_options(asked.fact, rng)
        category, lower = _CORE[asked.fact.kind]
        cells = dict.fromkeys("ABCD", "") | dict(zip(LETTERS, options, strict=False))
        row = {"index": number, "question": ask(asked.fact), **cells, "answer": LETTERS[right]}
        rows.append({**row, "category": category, "l2_category": lower, "image": release.base64(scenes[asked.scene])})
    release.table("MMStar/MMStar.tsv", rows)
