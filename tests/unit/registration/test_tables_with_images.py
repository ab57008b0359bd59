"""MMBench's tables: base64 images read late, texts kept as written, passes, pointers, broken rows."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.registration import mmbench
from datasets.registration.formats import tsv
from datasets.types import BadRecord, DataError, Record

COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category", "split"]
IMAGES = [base64.b64encode(bytes([n]) * 90).decode() for n in range(3)]


def row(index: int | str, image: str = IMAGES[0], **changes: str) -> dict[str, str]:
    base = dict(
        zip(COLUMNS, [str(index), "What?", "", "one", "two", "", "", "B", "ocr", image, "", "dev"], strict=True)
    )
    return {**base, **changes}


def table(root: Path, *rows: dict[str, str], end: str = "\n") -> Path:
    path = root / "MMBench" / "mmbench_dev_20230712.tsv"
    path.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode())
    return path


def read(root: Path) -> tuple[list[Record], list[BadRecord]]:
    items = list(mmbench.MmBenchReader().read([root]))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, BadRecord)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_record_and_image(tmp_path: Path, end: str) -> None:
    hinted = row(1000007, IMAGES[1], hint='Say "so",\nplease.', answer="A", category="social_relation")
    table(tmp_path, row(7), hinted, row(8, IMAGES[2]), end=end)
    (first, second, third), bad = read(tmp_path)
    assert bad == []
    assert (first.id, first.target, first.meta["question"], first.meta["pass"]) == ("7", "B", 7, 0)
    assert (second.meta["question"], second.meta["pass"], second.meta["category"]) == (7, 1, "social_relation")
    assert second.fields["context"] == 'Say "so",\nplease.\n'
    assert first.fields["context"] == ""
    assert first.fields["options"] == "A. one\nB. two"
    assert [r.image.read() for r in (third, first, second)] == [b"\2" * 90, b"\0" * 90, b"\1" * 90]  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["None", "nan", "NA", "null", "N/A", "0"])
def test_options_that_look_like_nothing_are_options(tmp_path: Path, text: str) -> None:
    table(tmp_path, row(1, A=text, C="three", answer="A"))
    (record,), bad = read(tmp_path)
    assert bad == []
    assert record.meta["options"] == {"A": text, "B": "two", "C": "three"}


def test_equal_images_have_equal_names(tmp_path: Path) -> None:
    table(tmp_path, row(1), row(1000001), row(2, IMAGES[1]))
    records, _ = read(tmp_path)
    names = [r.image.name for r in records if r.image]
    assert names[0] == names[1] != names[2]


def test_later_releases_point_to_the_row_with_the_image(tmp_path: Path) -> None:
    table(tmp_path, row(241), row(1000241, "241"), row(2000241, "99"), row(5, "6"), row(6, IMAGES[1]))
    records, bad = read(tmp_path)
    assert [r.id for r in records] == ["241", "1000241", "5", "6"]
    assert records[1].image == records[0].image != records[2].image == records[3].image
    assert "row 99, which has none" in bad[0].reason


def test_test_split_and_tables_without_images(tmp_path: Path) -> None:
    stripped = {key: value for key, value in row(1).items() if key not in ("answer", "image", "hint")}
    table(tmp_path, stripped)
    (record,), bad = read(tmp_path)
    assert (record.target, bad) == (None, [])
    with pytest.raises(OSError, match="line 2: no image"):
        record.image.read()  # type: ignore[union-attr]


def test_faults_are_named_with_their_line(tmp_path: Path) -> None:
    path = table(tmp_path, row(1), row("x"), row(1), row(3, answer="C"), row(4, "no base64" * 9))
    with path.open("ab") as file:
        file.write(b"5\tonly two\n")
    (first, last), bad = read(tmp_path)
    assert (first.id, last.id) == ("1", "4")
    assert [(item.where.rsplit(" ", 1)[1], item.reason.split(" of ")[0]) for item in bad] == [
        ("3", "'index' should be a whole number, got 'x'"),
        ("4", "repeats id 1"),
        ("5", "answer 'C' is none"),
        ("7", "has 2 cells, the header has 12"),
    ]
    with pytest.raises(OSError, match="not base64"):
        last.image.read()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"question\tA\nx\ty\n", "no column index"),
        (b'index\t"question\n1\tcut off', "line 1, the header: cell 2 begins with a quote that is not closed"),
        (b"index\tquestion\tindex\n1\t?\t2\n", "the header: names index more than once"),
        ("index\tquestion\n1\t?\n".encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (b"index\tquestion\r1\t?\r", "end in CR alone"),
    ],
)
def test_broken_tables(tmp_path: Path, content: bytes, message: str) -> None:
    table(tmp_path, row(1)).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


CELL = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(CELL, st.binary(min_size=1, max_size=40)), min_size=1, max_size=6))
def test_any_table_comes_back_cell_by_cell_and_image_by_image(tmp_path: Path, content: list[tuple[str, bytes]]) -> None:
    rows = [{"text": text, "image": base64.b64encode(data).decode()} for text, data in content]
    path = table(tmp_path, *rows)
    read_back = [item for item in tsv.rows(path) if isinstance(item, tsv.TsvRow)]
    assert [item.cells["text"] for item in read_back] == [text for text, _ in content]
    for item, (_, data) in zip(read_back, content, strict=True):
        assert tsv.CellImage(path, "", item.start, item.length, 1).read() == data
