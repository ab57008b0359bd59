"""Visual instructions about the tiny world's scenes, in LLaVA's conversation JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .facts import facts
from .lessons import DESCRIBE, SHORT, description
from .release import Release
from .scenes import Scene
from .wording import ask

_TURNS = 6


def write_conversations(release: Release, scenes: Sequence[Scene], rng: np.random.Generator) -> None:
    """One conversation per image of COCO: short answers, then a description; and one without image."""
    entries: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes, start=1):
        known = facts(scene, rng)
        chosen = [known[int(i)] for i in rng.permutation(len(known))[:_TURNS]]
        turns = [(ask(fact) + SHORT, fact.answer) for fact in chosen if fact.kind not in ("present", "beside")]
        turns.append((DESCRIBE, description(scene)))
        image = f"coco/val2017/{number:012d}.jpg"
        entries.append({"id": f"{number:012d}", "image": image, "conversations": _conversation(turns, True)})
    text = [("Which of these is a fruit: a bus or an apple?", "apple"), ("And which has wheels?", "bus")]
    entries.append({"id": "text", "conversations": _conversation(text, False)})
    release.json("LLaVA/tiny_instruct.json", entries)


def _conversation(turns: Sequence[tuple[str, str]], image: bool) -> list[dict[str, str]]:
    said: list[dict[str, str]] = []
    for question, answer in turns:
        tag = "<image>\n" if image and not said else ""
        said += [{"from": "human", "value": tag + question}, {"from": "gpt", "value": answer}]
    return said
