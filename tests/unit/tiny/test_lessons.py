"""What the tiny model learns from: answers that agree with the scenes, kinds drawn by their shares, other scenes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from assets.tiny.train.scenes import CLASSES, COLOUR_NAMES, TEXTS, draw, panoptic_map, token_labels
from assets.tiny.train.vocabulary import CONTENT, pieces
from assets.tiny.world import STUFF, THINGS, draw_scene, write_lessons, write_world
from assets.tiny.world.__main__ import main
from assets.tiny.world.coco import corrupted
from assets.tiny.world.lessons import LETTER, SHORT, lessons
from assets.tiny.world.school import draw_kinds
from assets.tiny.world.wording import plural
from collavo.crayon import crayon_prompt
from datasets.instruct.llava import read_conversations
from datasets.instruct.panoptic import PanopticImage, classes_of, read_panoptic
from datasets.instruct.types import Sample
from modeling.segmenters.coco import INDEX_BY_NAME

SINGULAR = {plural(name): name for name in THINGS}


@pytest.mark.parametrize("seed", range(12))
def test_answers_agree_with_the_scene(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, 112)
    kinds = set()
    for lesson in lessons(scene, rng):
        kinds.add(lesson.kind)
        asked = lesson.question.removesuffix(SHORT)
        if lesson.kind == "existence":
            name = next(n for n in THINGS if f" {n} " in asked)
            assert lesson.answer == ("Yes" if scene.counts[name] else "No")
        elif lesson.kind == "count":
            (many,) = re.findall(r"How many (.+) are in the image\?", asked)
            assert lesson.answer == str(scene.counts[SINGULAR[many]])
        elif lesson.kind == "choice/present":
            options = dict(re.findall(r"([A-D])\. ([a-z ]+?)(?= [B-D]\.|\n|$)", asked.removesuffix(LETTER)))
            assert [letter for letter, name in options.items() if scene.counts[name.strip()]] == [lesson.answer]
        elif lesson.kind.startswith("judge/"):
            assert lesson.answer in ("Yes", "No")
    assert {"existence", "count", "choice/present", "describe", "judge/present"} <= kinds


def test_kinds_are_drawn_by_their_shares_and_nothing_twice() -> None:
    kinds = ["a"] * 10 + ["b"] * 2 + ["c"]
    counts: Counter[str] = Counter()
    for seed in range(3000):
        drawn = draw_kinds(kinds, {"a": 1.0, "b": 3.0}, 0.0, 1, np.random.default_rng(seed))
        counts.update(kinds[i] for i in drawn)
    assert counts["c"] == 0
    assert counts["b"] / 3000 == pytest.approx(0.75, abs=0.03)  # whatever the number of its questions
    everything = draw_kinds(kinds, {"a": 1.0, "b": 3.0}, 0.0, 99, np.random.default_rng(0))
    assert sorted(everything) == list(range(12))


def test_lessons_are_read_as_training_data_and_show_other_scenes_than_the_benchmarks(tmp_path: Path) -> None:
    assert write_lessons(tmp_path / "lessons", seed=3, scenes=5, size=112)
    assert not write_lessons(tmp_path / "lessons", seed=3, scenes=5, size=112)
    write_world(tmp_path / "world", seed=3, scenes=5, size=112)
    images, annotations = tmp_path / "lessons" / "coco" / "train2017", tmp_path / "lessons" / "coco" / "annotations"
    annotated = list(read_panoptic(annotations / "panoptic_train2017.json", images, check_images=True))
    assert all(isinstance(one, PanopticImage) for one in annotated)
    assert len(annotated) == 5
    assert classes_of(annotations / "panoptic_train2017.json") == CLASSES == (*THINGS, *STUFF)
    read = list(read_conversations(tmp_path / "lessons" / "LLaVA" / "lessons.json", [images], check_images=True))
    samples = [sample for sample in read if isinstance(sample, Sample)]
    assert len(samples) == len(read) == 5 * 16
    taught, asked = (
        {digest(file) for file in folder.glob("*.jpg")} for folder in (images, tmp_path / "world/coco/val2017")
    )
    assert len(taught) == 5
    assert not taught & asked


def test_kinds_are_left_out_of_lessons_however_they_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [str(tmp_path / "lessons"), "--scenes", "12", "--size", "64"]

    def drawn(*more: str) -> int:
        monkeypatch.setattr("sys.argv", ["world", *few, *more])
        return main()

    assert drawn("--lessons", "--without", "text", "colour") == 0
    assert drawn("--lessons", "--without", "text", "colour") == 0
    assert "as it was" in capsys.readouterr().out
    said = (tmp_path / "lessons" / "LLaVA" / "lessons.json").read_text()
    assert len(json.loads(said)) == 12 * 16 and "What color" not in said
    assert not re.search(r"\b(the|a) sign\b", said)  # "stop sign" is a thing's name
    assert drawn("--lessons") == 2  # lessons of another choice are not taken for these
    assert "is not the tiny lessons" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        drawn("--without", "text")
    assert "give --lessons too" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        drawn("--lessons", "--without", "texts")
    assert "invalid choice: 'texts'" in capsys.readouterr().err


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_spoiling_a_scene_drops_and_renames_things_only() -> None:
    rng = np.random.default_rng(0)
    kept = renamed = total = 0
    for _ in range(150):
        scene = draw_scene(rng, 64)
        after = corrupted(scene, 0.1, rng)
        names = {id(shape.pixels): shape.name for shape in after.shapes}
        assert [s for s in after.shapes if s.name in STUFF] == [s for s in scene.shapes if s.name in STUFF]
        total += len(scene.things)
        kept += sum(id(thing.pixels) in names for thing in scene.things)
        renamed += sum(names.get(id(thing.pixels), thing.name) != thing.name for thing in scene.things)
    assert kept / total == pytest.approx(0.9, abs=0.03)
    assert renamed / total == pytest.approx(0.1, abs=0.03)


def test_tokens_are_labelled_with_what_the_crayon_prompt_shows() -> None:
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed), 112, True)
        labels = token_labels(scene, 8)
        crayon = crayon_prompt(panoptic_map(scene), 8)
        for (kind, colour, text), semantic in zip(labels.tolist(), crayon.semantic.ravel(), strict=True):
            assert semantic == INDEX_BY_NAME[CLASSES[kind]] + 1
            same = [shape for shape in scene.shapes if shape.name == CLASSES[kind]]
            assert (COLOUR_NAMES[colour] if colour >= 0 else "") in {shape.colour for shape in same}
            assert (TEXTS[text] if text >= 0 else "") in {shape.text for shape in same}


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing() -> None:
    one, two = (draw(4, 300, 56, 4, workers) for workers in (1, 2))
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.labels, two.labels)
    assert list(one.lessons) == list(two.lessons)


def test_pieces_keep_content_words_whole_and_letters_with_their_options() -> None:
    texts = ["Is there a stop sign in the image?", "Which is it?\nA. dog\nB. cat", "Which is it?\nA. cat\nB. dog"] * 3
    found = pieces(texts)
    assert set(CONTENT) < set(found)
    assert {"Is there a ", " in the image?", "\nA. ", "\nB. "} <= set(found)
    assert not any("stop sign in" in piece for piece in found)


def test_families_ask_every_kind_and_are_answered_rightly(tmp_path: Path) -> None:
    write_world(tmp_path / "world", seed=2, scenes=24, size=112)
    lines = [json.loads(x) for x in (tmp_path / "world/TinyWorld/questions.jsonl").read_text().splitlines()]
    counts = Counter(line["kind"] for line in lines)
    assert max(counts.values()) == 24
    assert {"existence", "count", "relation", "text", "choice/present", "box_numbered"} <= set(counts)
    assert [line["id"] for line in lines] == list(range(len(lines)))
    assert all((tmp_path / "world/TinyWorld/images" / line["image"]).is_file() for line in lines)
