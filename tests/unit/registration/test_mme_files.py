"""MME's folders: both layouts, the evaluation tool's lists, and directories with missing or extra files."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.evaluation.mme import COGNITION, PERCEPTION
from datasets.registration import mme
from datasets.types import BadRecord, DataError, ImageFile, Record

ROOT = "MME_Benchmark_release_version"
APART = {"artwork", "celebrity", "landmark", "posters", "scene"}
TEXT = "Is it a  cat?  Please answer yes or no.\tYes\nIs it a dog? Please answer yes or no.\tNo\n"


def release(root: Path) -> Path:
    """All 14 subtasks with one image each."""
    for task in (*PERCEPTION, *COGNITION):
        folder = root / ROOT / task
        images, texts = (folder / "images", folder / "questions_answers_YN") if task in APART else (folder, folder)
        for path in {images, texts}:
            path.mkdir(parents=True)
        (images / f"0001.{'png' if task == 'OCR' else 'jpg'}").touch()
        (texts / "0001.txt").write_text(TEXT, encoding="utf-8")
    return root / ROOT


def read(root: Path) -> tuple[list[Record], list[BadRecord]]:
    items = list(mme.read([root], mme.Options()))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, BadRecord)]


def test_both_layouts(tmp_path: Path) -> None:
    folder = release(tmp_path)
    records, bad = read(tmp_path)
    assert bad == []
    assert [r.group for r in records[::2]] == [*PERCEPTION, *COGNITION]
    by_id = {r.id: r for r in records}
    first, second = by_id["posters/0001.jpg/0"], by_id["posters/0001.jpg/1"]
    assert first.image == ImageFile(folder / "posters/images/0001.jpg", "posters/0001.jpg")
    assert by_id["OCR/0001.png/1"].image == ImageFile(folder / "OCR/0001.png", "OCR/0001.png")
    assert (first.fields["question"], first.target) == ("Is it a  cat?", "yes")
    assert (second.fields["question"], second.target) == ("Is it a dog?", "no")
    assert first.meta["pair"] == second.meta["pair"] == "posters/0001.jpg"


def test_extra_files_are_ignored_and_missing_ones_reported(tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / "eval_tool").mkdir()
    (folder / "eval_tool" / "readme.txt").write_text("hello", encoding="utf-8")
    (folder / "count" / ".DS_Store").touch()
    (folder / "count" / "notes.txt").write_text("look here", encoding="utf-8")
    (folder / "count" / "0001.jpg").unlink()
    (folder / "color" / "0001.txt").write_text("Is it red?\tYes\n", encoding="utf-8")
    (folder / "position" / "0001.txt").write_text("Is it left?\tmaybe\nIs it right?\tNo\n", encoding="utf-8")
    (folder / "code_reasoning" / "0001.txt").unlink()
    (folder / "code_reasoning" / "0001.jpg").unlink()
    (folder / "code_reasoning").rmdir()
    records, bad = read(tmp_path)
    assert len(records) == 2 * 14 - 7
    reasons = {item.where.removeprefix(f"{folder}/"): item.reason for item in bad}
    assert "no image 0001.jpg or .png" in reasons["count/0001.txt"]
    assert "expected two lines, got 1" in reasons["color/0001.txt"]
    assert "expected 'question<TAB>Yes'" in reasons["position/0001.txt, line 1"]
    assert reasons["code_reasoning"] == "this subtask is missing"


def test_lists_of_the_evaluation_tool(tmp_path: Path) -> None:
    (tmp_path / ROOT).mkdir()
    for task in (*PERCEPTION, *COGNITION):
        lines = "".join(
            f"{n}.jpg\tIs it {what}?\t{label}\n" for n in range(2) for what, label in (("a", "Yes"), ("b", "No"))
        )
        (tmp_path / ROOT / f"{task}.txt").write_text(lines, encoding="utf-8")
    records, bad = read(tmp_path)
    assert bad == []
    assert [r.id for r in records[:4]] == [
        "existence/0.jpg/0",
        "existence/0.jpg/1",
        "existence/1.jpg/0",
        "existence/1.jpg/1",
    ]
    with pytest.raises(OSError, match="the images are not there"):
        records[0].image.read()  # type: ignore[union-attr]


def test_a_folder_without_subtasks(tmp_path: Path) -> None:
    (tmp_path / ROOT / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="found none of them"):
        read(tmp_path)
