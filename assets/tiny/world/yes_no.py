"""Minis of the yes-or-no benchmarks: POPE, MME, HallusionBench."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .charts import draw_chart
from .facts import AskedFact, Fact, absent_classes, draw_facts
from .glyphs import WORDS
from .release import Release
from .scenes import SIGN, THINGS, Scene, recolour
from .wording import digit_in_letters, plural, with_article

_PAIRS_PER_IMAGE = 1
_IMAGES_PER_SUBTASK = 2
_SETS = 4


def write_pope(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """POPE's three lists: as many absent objects as present ones, drawn in POPE's three ways (arXiv 2305.10355)."""
    frequency = Counter(name for scene in scenes for name in scene.counts)
    together = Counter((a, b) for scene in scenes for a in scene.counts for b in scene.counts if a != b)
    rankings: dict[str, Callable[[Scene, str], float]] = {
        "random": lambda scene, name: float(rng.random()),
        "popular": lambda scene, name: -frequency[name],
        "adversarial": lambda scene, name: -sum(together[present, name] for present in scene.counts),
    }
    for number, scene in enumerate(scenes, start=1):
        name = _pope_image(number)
        release.image(f"coco2014/val2014/{name}", name, scene)
    for split, rank in rankings.items():
        lines: list[dict[str, Any]] = []
        for number, scene in enumerate(scenes, start=1):
            for name, label in _polled(scene, rank, rng):
                text = f"Is there {with_article(name)} in the image?"
                line = {"question_id": len(lines) + 1, "image": _pope_image(number), "text": text, "label": label}
                lines.append(line)
        release.json_lines(f"POPE/coco_pope_{split}.json", lines)


def _pope_image(number: int) -> str:
    return f"COCO_val2014_{number:012d}.jpg"


def _polled(scene: Scene, rank: Callable[[Scene, str], float], rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Classes to ask about, each with its label."""
    present = [str(name) for name in rng.permutation(list(scene.counts))[:_PAIRS_PER_IMAGE]]
    ranks = {name: rank(scene, name) for name in THINGS if name not in scene.counts}
    lacking = sorted(ranks, key=lambda name: (ranks[name], name))[: len(present)]
    for pair in zip(present, lacking, strict=True):
        yield from zip(pair, ("yes", "no"), strict=True)


def _other(fact: Fact, question: str) -> tuple[str, str]:
    """A yes-question about the right answer and a no-question about a wrong one; ``{}`` stands for the answer."""
    return question.format(fact.answer), question.format(fact.wrong[0])


def _existence(fact: Fact, scene: Scene) -> tuple[str, str]:
    return _asks("Is there {} in this image?", with_article(fact.answer), with_article(absent_classes(scene)[0]))


def _asks(question: str, right: str, wrong: str) -> tuple[str, str]:
    return question.format(right), question.format(wrong)


def _count(fact: Fact, scene: Scene) -> tuple[str, str]:
    return _other(fact, f"Is the number of {plural(fact.about[0])} in this image {{}}?")


def _code(fact: Fact, scene: Scene) -> tuple[str, str]:
    """The output of a line of code, compared with the image."""
    return _asks(
        f"The code is print({{}} + 1). Is its output the number of {plural(fact.about[0])} in this image?",
        str(int(fact.answer) - 1),
        str(int(fact.wrong[0]) - 1),
    )


def _spelling(fact: Fact, scene: Scene) -> tuple[str, str]:
    right, wrong = (
        " and ".join(text) if text in WORDS else f"the number {digit_in_letters(text)}"
        for text in (fact.answer, fact.wrong[0])
    )
    return _asks("Written out, does the sign read {}?", right, wrong)


def _fitting(fact: Fact, scene: Scene) -> tuple[str, str]:
    """Knowledge of what a thing is for, of the image's own things."""
    return _asks("Can {} be seen in this image?", _KNOWN[fact.answer], _KNOWN[_unlike(fact.answer, scene)])


_KNOWN = {
    **{"person": "a human being", "car": "something with a steering wheel for a family", "bus": "public transport"},
    **{"boat": "something that floats with a sail", SIGN: "something that is there to be read"},
    **{"bird": "an animal that flies", "cat": "an animal that purrs", "dog": "an animal that barks"},
    **{"umbrella": "something against rain", "kite": "a toy for windy days", "bottle": "something with a cork or cap"},
    **{"cup": "something to drink tea from", "apple": "a fruit", "chair": "something to sit on at a table"},
    **{"clock": "something that tells the time"},
}


def _unlike(name: str, scene: Scene) -> str:
    return absent_classes(scene)[0]


SUBTASKS: dict[str, tuple[str, Callable[[Fact, Scene], tuple[str, str]]]] = {
    "existence": ("present", _existence),
    "count": ("count", _count),
    "position": ("side", lambda fact, scene: _other(fact, f"Is the {fact.about[0]} on the {{}} side of this image?")),
    "color": ("colour", lambda fact, scene: _other(fact, f"Is the {fact.about[0]} in this image {{}}?")),
    "posters": ("text", lambda fact, scene: _other(fact, "Is this a poster on which a sign says {}?")),
    "celebrity": ("colour", lambda fact, scene: _other(fact, f"Is the {fact.about[0]} here known for being {{}}?")),
    "scene": ("scene", lambda fact, scene: _other(fact, "Is this a scene of the kind '{}'?")),
    "landmark": ("nearest", lambda fact, scene: _nearest(fact)),
    "artwork": ("present", lambda fact, scene: _asks(_ARTWORK, plural(fact.answer), plural(absent_classes(scene)[0]))),
    "OCR": ("text", lambda fact, scene: _other(fact, 'Is the text on the sign "{}"?')),
    "commonsense_reasoning": ("present", _fitting),
    "numerical_calculation": ("sum", lambda fact, scene: _sum(fact)),
    "text_translation": ("text", _spelling),
    "code_reasoning": ("count", _code),
}
"""MME's subtasks: the kind of fact, and its question with the right answer and with a wrong one."""
_ARTWORK = "Is the drawing of {} a part of this artwork?"
_APART = ("posters", "celebrity", "scene", "landmark", "artwork")
"""Subtasks that keep images and questions in folders of their own."""


def _nearest(fact: Fact) -> tuple[str, str]:
    question = f"Is the {fact.about[0]} closest to {{}}?"
    return _asks(question, with_article(fact.answer), with_article(fact.wrong[0]))


def _sum(fact: Fact) -> tuple[str, str]:
    return _other(fact, f"Are there {{}} {plural(fact.about[0])} and {plural(fact.about[1])} in this image in all?")


def write_mme(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """MME's 14 subtasks, each image with a question to answer by yes and one by no."""
    for task, (kind, word) in SUBTASKS.items():
        for number, asked in enumerate(_images(scenes, rng, kind), start=1):
            root, name = f"MME_Benchmark_release_version/{task}", f"{number:06d}"
            scene = scenes[asked.scene]
            images, questions = ("/images", "/questions_answers_YN") if task in _APART else ("", "")
            release.image(f"{root}{images}/{name}.jpg", f"{task}/{name}.jpg", scene)
            lines = zip(word(asked.fact, scene), ("Yes", "No"), strict=True)
            content = "".join(f"{question} Please answer yes or no.\t{label}\n" for question, label in lines)
            release.text(f"{root}{questions}/{name}.txt", content)


def _images(scenes: Sequence[Scene], rng: np.random.Generator, kind: str) -> list[AskedFact]:
    """Facts of different scenes; of any countable kind where the scenes have none of the wanted one."""
    return draw_facts(scenes, rng, (kind,), _IMAGES_PER_SUBTASK)


def write_hallusionbench(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """HallusionBench: scenes and edited doubles with another colour (VD), charts with and without an image (VS)."""
    entries: list[dict[str, Any]] = []
    for number, asked in enumerate(draw_facts(scenes, rng, ("colour",), _SETS)):
        scene, fact = scenes[asked.scene], asked.fact
        thing = next(thing for thing in scene.single if thing.name == fact.about[0])
        figures = ((scene, fact.answer), (recolour(scene, thing, fact.wrong[0]), fact.wrong[0]))
        for figure, (shown, colour) in enumerate(figures):
            file = _figure(release, "VD", "figure", number, figure, shown)
            for question, said in enumerate((fact.answer, fact.wrong[0])):
                text, right = f"Is the {thing.name} in the image {said}?", said == colour
                details = f"The {thing.name} is {colour}."
                entries.append(_entry("VD", "figure", number, figure, question, text, right, details, file))
    for number in range(_SETS):
        entries += _charts(release, number, rng, scenes[0].image.shape[0])
    release.json("HallusionBench/HallusionBench.json", entries)


def _charts(release: Release, number: int, rng: np.random.Generator, size: int) -> Iterator[dict[str, Any]]:
    """A count that is told, a chart that confirms it, and an edited one that corrects it."""
    chart = draw_chart(rng, size, columns=2)
    (first, many), (second, few) = chart.counts.most_common()
    edited = draw_chart(rng, size, heights={first: few, second: many})
    told = f"Ann counted {many} {plural(first)} and {few} {plural(second)}. A chart, if one is shown, corrects her. "
    for figure, shown in enumerate((None, chart, edited)):
        file = None if shown is None else _figure(release, "VS", "chart", number, figure, shown)
        counts = chart.counts if shown is None else shown.counts
        for question, (one, other) in enumerate(((first, second), (second, first))):
            text = f"{told}Are there more {plural(one)} than {plural(other)}?"
            details = f"There are {counts[one]} {plural(one)} and {counts[other]} {plural(other)}."
            right = counts[one] > counts[other]
            yield _entry("VS", "chart", number, figure, question, text, right, details, file)


def _figure(release: Release, category: str, sub: str, number: int, figure: int, scene: Scene) -> str:
    name = f"{category}/{sub}/{number}_{figure}.png"
    release.image(f"HallusionBench/hallusion_bench/{name}", name, scene)
    return f"./{name}"


def _entry(
    category: str, sub: str, number: int, figure: int, question: int, text: str, right: bool, details: str,
    file: str | None,
) -> dict[str, Any]:  # fmt: skip
    """A record; whatever can be a number is a text in this release."""
    edited = figure == (1 if category == "VD" else 2)
    return {
        "category": category,
        "subcategory": sub,
        "visual_input": "0" if file is None else "2" if edited else "1",
        "set_id": str(number),
        "figure_id": str(figure),
        "sample_note": "tiny",
        "question_id": str(question),
        "question": text,
        "gt_answer_details": details,
        "gt_answer": str(int(right)),
        "filename": file,
    }
