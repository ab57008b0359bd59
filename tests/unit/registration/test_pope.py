"""POPE's files: the three official lists, the merged one, and everything that can be wrong with a line."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.registration.pope import Options, read
from datasets.types import BadRecord, DataError, Record

LINE = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}


def write(root: Path, split: str, lines: list[Any], folder: str = "POPE") -> Path:
    file = root / folder / f"coco_pope_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


def load(root: Path, **options: Any) -> tuple[list[Record], list[BadRecord]]:
    items = list(read([root], Options(**({"splits": ("random",)} | options))))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, BadRecord)]


@pytest.mark.parametrize("folder", ["POPE", "POPE/output/coco", "POPE/coco"])
def test_official_lists(folder: str, tmp_path: Path) -> None:
    for split in ("random", "popular", "adversarial"):
        write(tmp_path, split, [LINE, LINE | {"question_id": 2, "label": "no"}], folder)
    records, bad = load(tmp_path, splits=("random", "popular", "adversarial"))
    assert bad == []
    assert [r.id for r in records] == [f"{s}/{n}" for s in ("random", "popular", "adversarial") for n in (1, 2)]
    first = records[0]
    assert (first.target, first.group, first.fields) == ("yes", "random", {"question": LINE["text"]})
    assert first.image is not None
    assert getattr(first.image, "path") == tmp_path / "coco2014" / "val2014" / "a.jpg"  # noqa: B009


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question_id": 2,', "not a JSON object"),
        ("[1]", "expected an object"),
        ({k: v for k, v in LINE.items() if k != "label"}, "lacks 'label'"),
        (LINE | {"question_id": 2, "label": "maybe"}, "'label' should be yes or no, got 'maybe'"),
        (LINE | {"question_id": 2, "image": ""}, "expected the name of an image below"),
        (LINE | {"question_id": 2, "image": "../../etc/passwd"}, "expected the name of an image below"),
        (LINE | {"question_id": 2, "text": " "}, "'text' is empty"),
        (LINE, "repeats id random/1"),
        ("[" * 100000, "not a JSON object"),
    ],
)
def test_a_malformed_line_is_named_and_the_rest_is_read(line: Any, reason: str, tmp_path: Path) -> None:
    file = write(tmp_path, "random", [LINE, line, LINE | {"question_id": 3}])
    records, bad = load(tmp_path)
    assert [r.id for r in records] == ["random/1", "random/3"]
    assert [item.where for item in bad] == [f"{file}, line 2"]
    assert reason in bad[0].reason


def test_bom_crlf_blank_lines_and_a_spoilt_byte(tmp_path: Path) -> None:
    file = write(tmp_path, "random", [LINE])
    good = json.dumps(LINE | {"question_id": 2}).encode()
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n\r\n\xff" + good + b"\r\n" + good + b"\r\n\n")
    records, bad = load(tmp_path)
    assert [r.id for r in records] == ["random/1", "random/2"]
    assert [item.reason for item in bad] == ["not UTF-8 text"]


def test_missing_lists_name_every_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    for folder in ("POPE", "POPE/output/coco", "POPE/coco"):
        assert str(tmp_path / folder / "coco_pope_random.json") in str(caught.value)


def merged(root: Path, items: list[dict[str, Any]]) -> None:
    (root / "POPE").mkdir(exist_ok=True)
    (root / "POPE" / "new_pope_test.json").write_text(json.dumps(items))


def test_merged_file_joins_labels_by_image_and_question(tmp_path: Path) -> None:
    """Offset ids, another order, the instruction in the text, and a question that is asked twice."""
    lines = [LINE, LINE | {"question_id": 2, "label": "no", "text": "Is there a cup in the image?"}]
    lines.append(LINE | {"question_id": 3, "label": "no"})
    write(tmp_path, "random", lines)
    instruction = "\nAnswer the question using a single word or phrase."
    asked = [("Is there a cup in the image?", 10000002), (LINE["text"], 10000001), (LINE["text"], 10000003)]
    items = [{"image": "a.jpg", "text": f"{t}{instruction}", "question_id": n, "category": "random"} for t, n in asked]
    merged(tmp_path, [*items, {"image": "b.jpg", "text": "?", "question_id": 9, "category": "random"}])
    records, bad = load(tmp_path, source="merged")
    assert [(r.id, r.target) for r in records] == [
        ("random/10000002", "no"),
        ("random/10000001", "yes"),
        ("random/10000003", "no"),
    ]
    assert all("\n" not in r.fields["question"] for r in records)
    assert "no list for 'random' has this question about b.jpg" in bad[0].reason


def test_merged_file_with_labels_needs_no_lists(tmp_path: Path) -> None:
    merged(tmp_path, [LINE | {"category": "random"}, LINE | {"category": "popular"}])
    records, bad = load(tmp_path, splits=("random", "popular"))
    assert [r.id for r in records] == ["random/1", "popular/1"]
    assert bad == []


def test_official_lists_are_preferred(tmp_path: Path) -> None:
    write(tmp_path, "random", [LINE])
    merged(tmp_path, [LINE | {"category": "random", "question_id": 77}])
    assert [r.id for r in load(tmp_path)[0]] == ["random/1"]
