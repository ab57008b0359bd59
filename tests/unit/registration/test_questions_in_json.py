"""Readers of GQA, ScienceQA, TextVQA and SEED-Bench, on small files in the release's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.registration import gqa, scienceqa, seed, textvqa
from datasets.types import BadRecord, DataError, ImageFile, Record


def write(root: Path, name: str, content: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")


def split(items: Any) -> tuple[list[Record], list[BadRecord]]:
    read = list(items)
    return [i for i in read if isinstance(i, Record)], [i for i in read if isinstance(i, BadRecord)]


def gqa_question(**changes: Any) -> dict[str, Any]:
    return {
        "question": "What color is the tall cup?",
        "imageId": "n1",
        "answer": "red",
        "isBalanced": True,
        "groups": {"global": "color", "local": None},
        "types": {"structural": "query", "semantic": "attr", "detailed": "color"},
        "semantic": [
            {"operation": "select", "argument": "cup (1)", "dependencies": []},
            {"operation": "exist", "argument": "?", "dependencies": [0]},
            {"operation": "query", "argument": "name", "dependencies": [0]},
            {"operation": "query", "argument": "color", "dependencies": [0]},
        ],
        **changes,
    }


def test_gqa_record(tmp_path: Path) -> None:
    questions = {"11": gqa_question(), "12": gqa_question(isBalanced=False), "13": gqa_question(groups=None)}
    write(tmp_path, "GQA/testdev_balanced_questions.json", questions)
    (first, second), bad = split(gqa.read([tmp_path], gqa.Options()))
    assert bad == []
    assert (first.id, second.id, first.target) == ("11", "13", "red")
    assert first.image == ImageFile(tmp_path / "GQA/images/n1.jpg", "n1.jpg")
    assert first.meta == {"structural": "query", "semantic": "attr", "words": 6, "steps": 2, "global_group": "color"}
    assert second.meta["global_group"] is None


def test_gqa_test_questions_have_no_answer(tmp_path: Path) -> None:
    write(tmp_path, "GQA/q.json", {"1": {"question": "Why?", "imageId": "n1", "isBalanced": True}})
    (record,), bad = split(gqa.read([tmp_path], gqa.Options(file="q.json")))
    assert (record.target, bad) == (None, [])


def test_gqa_faults_are_named(tmp_path: Path) -> None:
    lacking = {key: value for key, value in gqa_question().items() if key != "imageId"}
    write(tmp_path, "GQA/q.json", {"1": lacking, "2": gqa_question(types={}), "3": "?", "4": gqa_question(answer=3)})
    records, bad = split(gqa.read([tmp_path], gqa.Options(file="q.json")))
    assert records == []
    assert [item.where.rsplit(" ", 1)[1] for item in bad] == ["1", "2", "3", "4"]
    assert "lacks 'imageId'" in bad[0].reason
    assert "lacks 'structural'" in bad[1].reason
    assert "expected an object" in bad[2].reason
    assert "'answer' should be a text, got 3" in bad[3].reason


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"1": ', "not valid JSON at line 1"), ("[]", "expected an object at the top, got list"), ("\xff", "JSON")],
)
def test_broken_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path, "GQA/testdev_balanced_questions.json", content)
    with pytest.raises(DataError, match=message) as error:
        list(gqa.read([tmp_path], gqa.Options()))
    assert "testdev_balanced_questions.json" in str(error.value)


def test_a_missing_file_lists_the_places(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        list(gqa.read([tmp_path / "one", tmp_path / "two"], gqa.Options()))
    for root in ("one", "two"):
        assert str(tmp_path / root / "GQA/testdev_balanced_questions.json") in str(error.value)


def problem(**changes: Any) -> dict[str, Any]:
    return {
        "question": "Which one?",
        "choices": ["this", "that"],
        "answer": 1,
        "hint": "Look.",
        "image": "image.png",
        "split": "test",
        "subject": "natural science",
        "grade": "grade7",
        **changes,
    }


def scienceqa_files(root: Path, problems: dict[str, Any], ids: list[str], folder: str = "ScienceQA") -> None:
    write(root, f"{folder}/problems.json", problems)
    write(root, f"{folder}/pid_splits.json", {"test": ids, "val": []})


@pytest.mark.parametrize("folder", ["ScienceQA", "ScienceQA/data/scienceqa"])
def test_scienceqa_record(tmp_path: Path, folder: str) -> None:
    scienceqa_files(tmp_path, {"5": problem(), "6": problem(image=None, hint="")}, ["6", "5"], folder)
    (record,), bad = split(scienceqa.read([tmp_path], scienceqa.Options()))
    assert bad == []
    assert (record.id, record.target) == ("5", "B")
    assert record.image == ImageFile(tmp_path / "ScienceQA/images/test/5/image.png", "test/5/image.png")
    assert record.fields["context"] == "Context: Look.\n"
    assert record.fields["options"] == "A. this\nB. that"
    assert record.meta == {
        "options": {"A": "this", "B": "that"},
        "subject": ["NAT"],
        "context": ["TXT", "IMG"],
        "grade": ["G7-12"],
    }
    every, _ = split(scienceqa.read([tmp_path], scienceqa.Options(image_only=False)))
    assert [r.id for r in every] == ["6", "5"]
    assert (every[0].image, every[0].fields["context"], every[0].meta["context"]) == (None, "", ["NO"])


def test_scienceqa_faults_are_named(tmp_path: Path) -> None:
    problems = {"1": problem(answer=2), "2": problem(choices=["one"]), "4": problem()}
    scienceqa_files(tmp_path, problems, ["1", "2", "3", "4", "4"])
    records, bad = split(scienceqa.read([tmp_path], scienceqa.Options()))
    assert [r.id for r in records] == ["4"]
    assert [item.reason.split(",")[0] for item in bad] == [
        "'answer' should be an index into 2 choices",
        "expected 2 to 5 choices",
        "the split names it",
        f"repeats id 4 of {tmp_path}/ScienceQA/problems.json",
    ]
    with pytest.raises(DataError, match="no split 'dev'; it has: test, val"):
        list(scienceqa.read([tmp_path], scienceqa.Options(split="dev")))


def text_question(**changes: Any) -> dict[str, Any]:
    return {"question": "what is NASA?", "image_id": "ab", "question_id": 34602, "answers": ["x"] * 10, **changes}


ROSETTA = {"data": [{"image_id": "ab", "ocr_tokens": ["NASA", "1,5"]}]}
PROMPT = {"question_id": "ab", "text": "What is NASA?\nReference OCR token: NASA, 1,5\nAnswer the question using ..."}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("TextVQA_Rosetta_OCR_v0.2_val.json", ROSETTA),
        ("llava_textvqa_val_v051_ocr.json", [PROMPT]),
        ("llava_textvqa_val_v051_ocr.jsonl", json.dumps(PROMPT) + "\n\n"),
    ],
)
def test_textvqa_tokens_from_either_file(tmp_path: Path, name: str, content: Any) -> None:
    write(tmp_path, "TextVQA/TextVQA_0.5.1_val.json", {"data": [text_question()]})
    write(tmp_path, f"TextVQA/{name}", content)
    (record,), bad = split(textvqa.read([tmp_path], textvqa.Options()))
    assert bad == []
    assert record.fields == {"question": "What is NASA?", "ocr": "NASA, 1,5"}
    assert (record.id, record.target) == ("34602", ["x"] * 10)
    assert record.image == ImageFile(tmp_path / "TextVQA/train_images/ab.jpg", "ab.jpg")


def test_textvqa_scores_without_tokens_and_names_faults(tmp_path: Path) -> None:
    questions = [text_question(), text_question(question_id=2, answers=["x"]), text_question(question_id=True), 7]
    write(tmp_path, "TextVQA/TextVQA_0.5.1_val.json", {"data": questions})
    (record,), bad = split(textvqa.read([tmp_path], textvqa.Options()))
    assert "ocr" not in record.fields
    assert ["expected 10 answers" in bad[0].reason, "'question_id'" in bad[1].reason] == [True, True]
    write(tmp_path, "TextVQA/TextVQA_Rosetta_OCR_v0.2_val.json", {"data": []})
    records, bad = split(textvqa.read([tmp_path], textvqa.Options()))
    assert records == []
    assert "no image ab" in bad[0].reason


def seed_question(number: str, **changes: Any) -> dict[str, Any]:
    return {
        "answer": "A",
        **{f"choice_{letter}": letter * 2 for letter in "abcd"},
        "data_id": f"{number}_1",
        "data_type": "image",
        "question": "How many?",
        "question_id": number,
        "question_type_id": 5,
        **changes,
    }


def seed_file(root: Path, *questions: Any) -> None:
    write(root, "SEED-Bench/SEED-Bench.json", {"questions": questions, "question_type": {"Instances Counting": 5}})


def test_seed_keeps_both_questions_of_one_id(tmp_path: Path) -> None:
    video = seed_question("v1", data_type="video")
    seed_file(tmp_path, seed_question("49914"), video, seed_question("49914", answer="B"))
    records, bad = split(seed.read([tmp_path], seed.Options()))
    assert bad == []
    assert [(r.id, r.target, r.meta["release_id"]) for r in records] == [
        ("49914", "A", "49914"),
        ("49914#2", "B", "49914"),
    ]
    assert records[0].fields == {"question": "How many?", "options": "A. aa B. bb C. cc D. dd"}
    assert records[0].group == "Instances Counting"
    assert records[0].image == ImageFile(tmp_path / "SEED-Bench/SEED-Bench-image/49914_1", "49914_1")
    with_video, _ = split(seed.read([tmp_path], seed.Options(data_types=("image", "video"))))
    assert [r.id for r in with_video] == ["49914", "v1", "49914#2"]
    with pytest.raises(OSError, match="not shown to the model"):
        with_video[1].image.read()  # type: ignore[union-attr]


def test_seed_faults_are_named(tmp_path: Path) -> None:
    seed_file(
        tmp_path,
        seed_question("1", answer="E"),
        seed_question("2", question_type_id=99),
        seed_question("3", question=None),
    )
    records, bad = split(seed.read([tmp_path], seed.Options()))
    assert records == []
    assert "answer 'E' is none of the choices A, B, C, D" in bad[0].reason
    assert "99 is not in 'question_type'" in bad[1].reason
    assert "'question' should be a text, got None" in bad[2].reason


@pytest.mark.parametrize("image", ["", "../../secret", "/etc/passwd", "a//../b"])
def test_a_image_outside_its_folder_is_a_fault(tmp_path: Path, image: str) -> None:
    seed_file(tmp_path, seed_question("1", data_id=image))
    records, bad = split(seed.read([tmp_path], seed.Options()))
    assert records == []
    assert "expected the name of an image below" in bad[0].reason
