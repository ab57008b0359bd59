"""Benchmarks that are declared and not coded: every format, every way to write an answer, and every mistake."""

from __future__ import annotations

import base64
import csv
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.declaration import Benchmark
from datasets.evaluation import evaluate
from datasets.registration import tables
from datasets.types import BadRecord, DataError, ImageGroup, Record, sources_of
from pipeline.catalog import load_catalog
from pipeline.declaration_file import parse_declaration
from tests.limits import examples
from tests.reading import load_records

IMAGES = [base64.b64encode(bytes([n]) * 90).decode() for n in range(3)]
Rows = Sequence[Mapping[str, Any]]


def separated(rows: Rows, delimiter: str) -> bytes:
    """A table in which lists stand as JSON, as pandas and others write them."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])
    return text.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink, row_group_size=2)
    return sink.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "oneline.json": lambda rows: json.dumps(rows, ensure_ascii=False).encode(),
    "lines.json": lambda rows: "\n".join(json.dumps(row) for row in rows).encode(),
    "jsonl": lambda rows: "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows).encode(),
    "tsv": lambda rows: separated(rows, "\t"),
    "csv": lambda rows: b"\xef\xbb\xbf" + separated(rows, ","),
    "parquet": parquet,
}


def load(root: Path, **data: Any) -> tuple[list[Record], list[BadRecord]]:
    return load_records(declared(data), [root])


def declared(data: Mapping[str, Any], scorer: Any = "exact_match") -> Benchmark:
    return parse_declaration(
        {"name": "mine", "data": dict(data), "prompt": "{question}", "scorer": scorer}, "mine.yaml"
    )


def put(root: Path, name: str, rows: Rows | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows if isinstance(rows, bytes) else WRITERS[name.partition(".")[2]](rows))
    return path


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
QUESTION = TEXT.filter(lambda text: text.strip() != "")
ROW = st.fixed_dictionaries(
    {
        "question": QUESTION,
        "note": TEXT,
        "number": st.integers(-9, 10**15),
        "options": st.lists(QUESTION, min_size=1, max_size=5, unique_by=str.strip),
        "image": st.binary(min_size=60, max_size=90).map(lambda data: base64.b64encode(data).decode()),
    }
)


@pytest.mark.slow
@settings(max_examples=examples(60))
@given(st.lists(ROW, min_size=1, max_size=5), st.data())
def test_every_format_gives_the_same_records(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    for number, row in enumerate(rows):
        row |= {"id": f"q{number}", "answer": data.draw(st.sampled_from(row["options"]))}
    letters = [dict(zip("ABCDE", row["options"], strict=False)) for row in rows]
    for name, write in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            put(Path(folder), f"rows.{name}", write(rows))
            records, bad = load(Path(folder), file=f"rows.{name}", answer="option", keep=["note"])
            assert bad == []
            assert [record.id for record in records] == [row["id"] for row in rows]
            for record, row, options in zip(records, rows, letters, strict=True):
                assert record.fields["question"] == row["question"]
                assert (record.fields["note"], record.fields["number"]) == (row["note"], str(row["number"]))
                assert record.meta == {"options": options, **({"note": row["note"]} if row["note"] else {})}
                assert record.fields["options"] == "\n".join(f"{k}. {v}" for k, v in options.items())
                assert options[record.target] == row["answer"]
                assert record.image is not None
                assert record.image.read() == base64.b64decode(row["image"])
            assert len({r.image.name for r in records if r.image}) == len({row["image"] for row in rows})


@settings(max_examples=examples(100))
@given(st.sampled_from(sorted(WRITERS)), st.lists(ROW, min_size=1, max_size=2), st.data())
def test_a_spoilt_file_never_ends_in_another_error(name: str, rows: list[dict[str, Any]], data: st.DataObject) -> None:
    content = bytearray(WRITERS[name](rows))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), f"rows.{name}", bytes(content))
        try:
            records, bad = load(Path(folder), file=f"rows.{name}", answer=data.draw(st.sampled_from(["text", "index"])))
        except DataError as error:
            assert f"rows.{name}" in str(error)
            return
        assert records or bad
        for record in records:
            if record.image is not None:
                try:
                    assert isinstance(record.image.read(), bytes)
                except OSError:
                    continue


def kit(index: int | str, image: str = IMAGES[0], **changes: str) -> dict[str, str]:
    row = {"index": str(index), "question": "What?", "hint": "", "A": "one", "B": "None", "C": "", "D": "four"}
    return {**row, "answer": "B", "category": "ocr", "image": image, "l2-category": "text", **changes}


def test_tables_of_vlmevalkit_need_no_columns(tmp_path: Path) -> None:
    put(tmp_path, "Kit/kit.tsv", [kit(7), kit(8, "9", hint="Look.", answer=""), kit(9, IMAGES[1]), kit(10, "11")])
    (first, second, third), (bad,) = load(tmp_path, file="Kit/kit.tsv", keep=["category", "l2-category"])
    assert (first.id, first.target, first.group) == ("7", "B", "")
    assert first.meta == {
        "category": "ocr",
        "l2-category": "text",
        "options": {"A": "one", "B": "None", "D": "four"},
    }
    assert (first.fields["options"], first.fields["context"]) == ("A. one\nB. None\nD. four", "")
    assert (second.target, second.fields["hint"], second.fields["context"]) == (None, "Look.", "Look.\n")
    assert "image" not in first.fields
    assert second.image == third.image != first.image
    assert second.image is not None
    assert second.image.read() == b"\1" * 90
    assert bad.reason == "the image is that of row 11, which has none"
    assert bad.where.endswith("kit.tsv, line 5")


def test_open_questions_of_vlmevalkit(tmp_path: Path) -> None:
    rows = [{"index": "0", "image_path": "a/0.jpg", "question": "Who?", "answer": "me"}]
    put(tmp_path, "Kit/kit.tsv", rows)
    (record,), _ = load(tmp_path, file="Kit/kit.tsv", images="Kit/images")
    assert (record.target, record.fields["options"], record.meta) == ("me", "", {})
    assert record.image is not None
    assert (record.image.name, getattr(record.image, "path", None)) == ("a/0.jpg", tmp_path / "Kit/images/a/0.jpg")


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv", "csv", "parquet"])
@pytest.mark.parametrize(
    ("kind", "answer", "target"),
    [
        ("", "B", "B"),
        ("letter", " (b). ", "B"),
        ("letter", "C", "none of the options A, B"),
        ("index", 1, "B"),
        ("index", "0", "A"),
        ("index", 2, "none of the options"),
        ("index", "-1", "none of the options"),
        ("option", "cat ", "A"),
        ("option", "Cat", "none of the options"),
        ("text", "a cat", "a cat"),
        ("text", 2.5, "2.5"),
        ("yes_no", "Yes.", "yes"),
        ("yes_no", 0, "no"),
        ("yes_no", True, "yes"),
        ("yes_no", "maybe", "should be yes or no, got 'maybe'"),
        ("list", ["a", "b"], ["a", "b"]),
        ("list", "a", ["a"]),
        ("list", "[a", "should be a list of accepted answers"),
        ("", "b", "B"),
        ("", "(A)", "A"),
        ("", ["B"], "B"),
        ("", "DOG", "B"),
        ("", "B. dog", "B"),
        ("", "B. cat", "none of the options A, B"),
        ("", ["A", "B"], "should be one of the options"),
        ("", 1, "may count the options from 0 or from 1"),
        ("", "0", "may count the options from 0 or from 1"),
        ("", 7, "none of the options"),
        ("index", "1.0", "B"),
        ("text", "['a']", "['a']"),
        ("text", "[3, 4]", ["[3, 4]"]),
        ("yes_no", "ＹＥＳ", "yes"),
        ("yes_no", 1.0, "yes"),
        ("yes_no", "没有", "no"),
        ("yes_no", 2, "should be yes or no, got"),
        ("box", [1, 2, 3.5, 4], [1.0, 2.0, 3.5, 4.0]),
        ("box", [1, 2, 3], "should be a list of four numbers"),
    ],
)
def test_ways_to_write_an_answer(tmp_path: Path, name: str, kind: str, answer: Any, target: Any) -> None:
    row = {"question": "?", "choices": ["cat", "dog"], "label": answer}
    if name == "parquet" and kind == "box":
        row["label"] = [float(n) for n in answer]
    put(tmp_path, f"q.{name}", [row, {**row, "label": None if name != "tsv" and name != "csv" else ""}])
    records, bad = load(tmp_path, file=f"q.{name}", columns={"answer": "label", "options": "choices"}, answer=kind)
    assert records[-1].target is None
    if bad:
        assert target in bad[0].reason
        assert "data.answer" in bad[0].reason or "options" not in target
    else:
        assert records[0].target == target


def test_lists_as_python_writes_them_and_options_by_letter(tmp_path: Path) -> None:
    put(tmp_path, "q.csv", b'question,options,answer\n?,"[\'it\'\'s\', ""b, c"", 3]",2\n')
    (record,), _ = load(tmp_path, file="q.csv", answer="index")
    assert (record.meta["options"], record.target) == ({"A": "its", "B": "b, c", "C": "3"}, "C")
    put(tmp_path, "q.json", [{"question": "?", "options": {"A": "x", "C": "y"}, "answer": "C"}])
    (record,), _ = load(tmp_path, file="q.json")
    assert (record.meta["options"], record.fields["options"]) == ({"A": "x", "C": "y"}, "A. x\nC. y")


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv", "csv", "parquet"])
def test_every_option_is_listed_with_its_letter(tmp_path: Path, name: str) -> None:
    options = {"A": "x", "B": "", "C": "y", "D": "", "E": "z", "F": "w"}
    put(tmp_path, f"q.{name}", [{"question": "?", **options, "answer": "F"}])
    (record,), _ = load(tmp_path, file=f"q.{name}")
    assert record.fields["options"] == "A. x\nC. y\nE. z\nF. w"
    assert (record.target, list(record.meta["options"])) == ("F", ["A", "C", "E", "F"])


def test_options_that_a_record_of_json_leaves_out_hide_none_that_follow(tmp_path: Path) -> None:
    put(
        tmp_path, "q.jsonl", [{"question": "?", "A": "x", "D": "y", "answer": "D"}, {"question": "?", "B": "a", "C": 5}]
    )
    first, second = load(tmp_path, file="q.jsonl")[0]
    assert (first.fields["options"], first.target) == ("A. x\nD. y", "D")
    assert (second.fields["options"], second.target) == ("B. a\nC. 5", None)
    put(tmp_path, "q.jsonl", [{"Q": "Where?", "A": "here", "X": 3, "Y": 4}])
    (record,) = load(tmp_path, file="q.jsonl", columns={"question": "Q", "answer": "A"})[0]
    assert (record.fields["options"], record.target, record.meta) == ("", "here", {})


def test_lists_and_plain_answers_may_stand_side_by_side(tmp_path: Path) -> None:
    put(tmp_path, "q.tsv", b"question\tanswer\na\t['14']\nb\t14\nc\t[]\nd\t \n")
    assert [r.target for r in load(tmp_path, file="q.tsv")[0]] == ["['14']", "14", None, None]
    assert [r.target for r in load(tmp_path, file="q.tsv", answer="list")[0]] == [["14"], ["14"], None, None]


def test_whole_numbers_among_missing_ones(tmp_path: Path) -> None:
    put(tmp_path, "q.parquet", [{"question": "?", "answer": answer} for answer in (3.0, None, 0.5, float("nan"))])
    records, _ = load(tmp_path, file="q.parquet")
    assert [(r.target, r.fields["answer"]) for r in records] == [("3", "3"), (None, ""), ("0.5", "0.5"), (None, "")]


def test_splits_are_groups_and_lead_ids(tmp_path: Path) -> None:
    for split in ("val", "test"):
        put(tmp_path, f"My/{split}.jsonl", [{"question": split, "image": "1.png", "kind": "k"}] * 2)
    data = {"file": "My/{split}.jsonl", "splits": ["val", "test"], "images": "My/{split}"}
    records, _ = load(tmp_path, **data)
    assert [(r.id, r.group) for r in records] == [(f"{s}/{n}", s) for s in ("val", "test") for n in (0, 1)]
    assert [getattr(r.image, "path", None) for r in records[::2]] == [
        tmp_path / f"My/{s}/1.png" for s in data["splits"]
    ]
    assert {r.group for r in load(tmp_path, **data, columns={"group": "kind"})[0]} == {"k"}


def test_records_inside_a_json_file_and_their_keys(tmp_path: Path) -> None:
    content = {"data": {"questions": {"x1": {"question": "a"}, "x2": 5, "x3": {"question": "c", "id": 7}}}}
    put(tmp_path, "q.json", json.dumps(content).encode())
    records, (bad,) = load(tmp_path, file="q.json", records="data.questions")
    assert [r.id for r in records] == ["x1", "x3"]
    assert bad.where.endswith("q.json, data.questions[x2]")
    assert bad.reason == "expected an object, got int"
    with pytest.raises(DataError, match=r"no 'question'; did you mean questions\? It has: questions"):
        load(tmp_path, file="q.json", records="data.question")
    with pytest.raises(DataError, match="'question'.*There are: questions. If records stand.*data.records"):
        load(tmp_path, file="q.json")
    put(tmp_path, "q.json", b'{"info": 1, "data": []}')
    with pytest.raises(DataError, match="'question'.*There are: info, data. If records stand.*data.records"):
        load(tmp_path, file="q.json")
    put(tmp_path, "q.json", b'{"info": 1,\n"data": []}')
    with pytest.raises(DataError, match="data.records may name where they are.*It has: info, data"):
        load(tmp_path, file="q.json")
    with pytest.raises(DataError, match=r"no records that can be read$"):
        load(tmp_path, file="q.json", records="data")


def test_images_of_parquet_tables(tmp_path: Path) -> None:
    images: list[Any] = [{"bytes": b"one", "path": "x.png"}, {"bytes": None, "path": "b.png"}, None]
    put(tmp_path, "q.parquet", [{"question": "?", "image": image} for image in images])
    (first, second, third), _ = load(tmp_path, file="q.parquet", images="pics")
    assert first.image is not None
    assert first.image.read() == b"one"
    assert getattr(second.image, "path", None) == tmp_path / "pics/b.png"
    assert third.image is None
    put(tmp_path, "q.parquet", [{"question": "?", "image": [b"a"]}, {"question": "?", "image": [b"a", b"b"]}])
    (only, both), _ = load(tmp_path, file="q.parquet")
    assert only.image is not None
    assert only.image.read() == b"a"
    assert [one.read() for one in sources_of(both.image)] == [b"a", b"b"]


def encoded(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv", "csv", "parquet"])
def test_several_images_in_a_cell(tmp_path: Path, name: str) -> None:
    """As MMMU and BLINK have them in VLMEvalKit's tables: a list of base64, also as a text; and as objects."""
    cells: list[Any] = [[encoded(b"one"), encoded(b"two")], encoded(b"three"), [encoded(b"one")]]
    if name == "parquet":
        cells = [[{"bytes": b"one"}, {"bytes": b"two", "path": "x.png"}], [{"bytes": b"three"}], [{"bytes": b"one"}]]
    put(tmp_path, f"q.{name}", [{"question": "?", "image": cell} for cell in cells])
    (both, single, again), bad = load(tmp_path, file=f"q.{name}")
    assert bad == []
    assert isinstance(both.image, ImageGroup)
    assert [one.read() for one in sources_of(both.image)] == [b"one", b"two"]
    assert single.image is not None and single.image.read() == b"three"
    assert again.image is not None and again.image.name == sources_of(both.image)[0].name, "equal images, equal names"
    with pytest.raises(DataError, match="the record has 2 images, and this model takes one"):
        both.image.read()


def test_several_images_of_the_row_that_a_cell_points_to(tmp_path: Path) -> None:
    rows = [
        {"index": 1, "question": "?", "image": "2"},
        {"index": 2, "question": "!", "image": [encoded(b"a" * 60)] * 2},
    ]
    put(tmp_path, "q.tsv", rows)
    (first, second), _ = load(tmp_path, file="q.tsv")
    assert first.image == second.image
    assert [one.read() for one in sources_of(first.image)] == [b"a" * 60] * 2


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv", "csv", "parquet"])
def test_numbered_columns_of_images(tmp_path: Path, name: str) -> None:
    """As in MMMU's release; a column before the last that is empty would change what a mark means."""
    rows: list[list[Any]] = [["a.png", "b.png", None], ["a.png", None, None], ["a.png", None, "c.png"], [None] * 3]
    columns = ("image_1", "image_2", "image_3")
    put(tmp_path, f"q.{name}", [{"question": "?", **dict(zip(columns, row, strict=True))} for row in rows])
    (both, one, none), (bad,) = load(tmp_path, file=f"q.{name}", images="pics")
    paths = [[getattr(image, "path", None) for image in sources_of(record.image)] for record in (both, one, none)]
    assert paths == [[tmp_path / "pics/a.png", tmp_path / "pics/b.png"], [tmp_path / "pics/a.png"], []]
    assert bad.reason == "has image_3, and no image_2"
    assert not set(both.fields) & set(columns) and not set(both.meta) & set(columns)


def test_numbered_columns_of_parquet_hold_objects(tmp_path: Path) -> None:
    image: list[Any] = [
        {"bytes": b"one", "path": "1.png"},
        {"bytes": b"two", "path": None},
        {"bytes": None, "path": None},
    ]
    row = {f"image_{number}": value for number, value in enumerate(image, start=1)}
    put(tmp_path, "q.parquet", [{"question": "?", **row}])
    ((record,), bad) = load(tmp_path, file="q.parquet")
    assert bad == [] and [one.read() for one in sources_of(record.image)] == [b"one", b"two"]


def test_names_next_to_images_and_lists_within_lists_are_refused(tmp_path: Path) -> None:
    cells = [["a.png", encoded(b"one")], [[["a.png"]]]]
    put(tmp_path, "q.json", [{"question": "?", "image": cell} for cell in cells])
    _, bad = load(tmp_path, file="q.json")
    assert [item.reason for item in bad] == [
        "'image' has names of files next to images",
        "has images in lists within lists",
    ]


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv", "csv", "parquet"])
def test_file_names_one_image_several_and_none(tmp_path: Path, name: str) -> None:
    images = [["a.png"], ["b.png", "c.png"], ["../x.png"], ["/etc/passwd"], []]
    put(tmp_path, f"q.{name}", [{"question": "?", "image": image} for image in images])
    (first, both, last), bad = load(tmp_path, file=f"q.{name}", images="pics")
    assert getattr(first.image, "path", None) == tmp_path / "pics/a.png"
    assert first.image is not None
    with pytest.raises(OSError, match=r"a\.png"):
        first.image.read()
    assert last.image is None
    assert isinstance(both.image, ImageGroup)
    paths = [getattr(one, "path", None) for one in sources_of(both.image)]
    assert paths == [tmp_path / "pics/b.png", tmp_path / "pics/c.png"]
    assert [item.reason.startswith("expected the name of an image below") for item in bad] == [True, True]


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv", "csv", "parquet"])
def test_a_file_without_its_images_can_be_scored_but_not_asked(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"q.{name}", [{"question": "?", "image": ""}, {"question": "!", "image": ""}])
    records, bad = load(tmp_path, file=f"q.{name}")
    assert bad == []
    for record in records:
        assert record.image is not None
        with pytest.raises(OSError, match="no image; the file was stripped of its images"):
            record.image.read()


@pytest.mark.parametrize("name", ["json", "jsonl", "tsv"])
def test_damaged_images_are_named(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, f"q.{name}", [{"question": "?", "image": "data:image/png;base64,%%%"}])
    (record,), _ = load(tmp_path, file=f"q.{name}")
    assert record.image is not None
    with pytest.raises(OSError, match=f"{path.name}.*not base64"):
        record.image.read()


def test_malformed_lines_are_named_and_spoil_nothing_else(tmp_path: Path) -> None:
    lines = [b'{"question": "a", "id": 1}', b"{", b"3", b'{"question": " ", "id": 2}', b'{"id": 3}', b"\xff"]
    lines += [b'{"question": "a"}', b'{"question": "b", "id": 1}', b'{"question": [1], "id": 9}']
    put(tmp_path, "q.jsonl", b"\n\n".join(lines))
    (record,), bad = load(tmp_path, file="q.jsonl")
    assert (record.id, record.image, record.target) == ("1", None, None)
    assert [(item.where.rsplit(" ", 1)[1], item.reason.split(" (")[0].split(" of /")[0]) for item in bad] == [
        ("3", "not a JSON object"),
        ("5", "expected an object, got int"),
        ("7", "'question' is empty"),
        ("9", "lacks 'question'; it has: id"),
        ("11", "not UTF-8 text"),
        ("13", "lacks 'id'; it has: question"),
        ("15", "repeats id 1"),
        ("17", "'question' should be a text or a number, got [1]; for a list say data.answer: list"),
    ]
    put(tmp_path, "q.csv", b"question,answer\na,b\nonly one\n")
    assert load(tmp_path, file="q.csv")[1][0].reason == "has 1 cells, the header has 2"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"file": "no.tsv"}, r"looked for\n.*no\.tsv"),
        ({"file": "q.txt"}, "data.file: the name 'q.txt' does not tell its format; set data.format: json"),
        ({"file": "q.tsv", "splits": ["a"]}, "data.file takes {split} where data.splits lists them"),
        ({"file": "{split}.tsv"}, "data.file takes {split} where"),
        ({"file": "q.tsv", "records": "data"}, "data.records is for files of JSON"),
        ({"file": "q.tsv", "columns": {"anser": "A"}}, "data.columns: unknown 'anser'; did you mean answer"),
        (
            {"file": "q.tsv", "columns": {"question": "query", "answer": "lable"}},
            "data.columns.answer.*'lable'; did you mean label.*query",
        ),
        ({"file": "q.tsv"}, r"data.columns.question.*'question'.*There are: query, label"),
        ({"file": "q.tsv", "columns": {"question": "query"}, "keep": ["kind"]}, r"data.keep\[0\].*'kind'"),
        (
            {"file": "q.tsv", "columns": {"question": "query", "answer": "label"}, "answer": "letter"},
            "data.answer: 'letter'.*Name their column in data.columns.options",
        ),
        ({"file": "q.tsv", "answer": "number"}, "'number' is not one of"),
        ({"file": "empty.jsonl"}, "no records that can be read"),
        ({"file": "bad.jsonl"}, "no records that can be read. The first one, .*line 1: not a JSON object"),
        ({"file": "q.tsv", "format": "parquet"}, "not a readable parquet table"),
        ({"file": "q.tsv", "format": "json"}, "not valid JSON"),
        ({"file": "folder.json"}, "folder.json: cannot be read"),
        ({"file": "folder.parquet"}, "folder.parquet: not a readable"),
    ],
)
def test_wrong_declarations_and_files_name_the_key(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    put(tmp_path, "q.tsv", b"query\tlabel\nWhy?\tso\n")
    put(tmp_path, "q.txt", b"")
    put(tmp_path, "empty.jsonl", b"\n")
    put(tmp_path, "bad.jsonl", b"{\n{\n")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(DataError, match=f"(?s){message}"):
        load(tmp_path, **data)


DECLARED = """
name: zoo
data:
  file: Zoo/{split}.jsonl
  splits: [val, test]
  images: Zoo/images
  columns: {question: query, answer: label, image: file, options: choices}
  answer: %s
  keep: [skills]
prompt: "{hall} {question}\\n{options}"
scorer: %s
"""


@pytest.mark.parametrize(
    ("answer", "scorer", "labels", "texts", "figures"),
    [
        ("yes_no", "yes_no", ["Yes", "No"], ["Yes.", "yes"], {"val/accuracy": 1.0, "mean/accuracy": 0.5}),
        (
            "index",
            "{kind: choice, rule: seed, by: [skills]}",
            [1, 0],
            ["B", "B"],
            {"accuracy": 0.5, "skills/x/accuracy": 0.5},
        ),
        ("text", "{kind: exact_match, normalise: lower}", ["Cat", 3], [" cat.", "4"], {"accuracy": 0.5}),
        ("list", "exact_match", [["cat", "tom"], ["3"]], ["Tom", "3"], {"accuracy": 1.0}),
        ("list", "vqa_accuracy", [["cat"] * 10, ["3"] * 10], ["a cat", "4"], {"accuracy": 0.5}),
        ("text", "graded", ["a cat", "three"], ["cat", "3"], {"total": None, "unscored": 2}),
    ],
)
def test_a_declaration_is_read_asked_and_scored(
    tmp_path: Path, answer: str, scorer: str, labels: list[Any], texts: list[str], figures: dict[str, float | None]
) -> None:
    for split, label in zip(("val", "test"), labels, strict=True):
        row = {"query": "Who?", "file": "1.png", "label": label, "choices": ["cat", "dog"], "skills": "x", "hall": 4}
        put(tmp_path, f"Zoo/{split}.jsonl", [row])
    benchmark = parse_declaration(yaml.safe_load(DECLARED % (answer, scorer)), "zoo.yaml")
    records, bad = load_records(benchmark, [tmp_path])
    assert bad == []
    assert benchmark.render(records[0].fields) == "4 Who?\nA. cat\nB. dog"
    metrics = evaluate(benchmark, zip(records, texts, strict=True)).metrics
    found = {f"{m.group}/{m.name}" if m.group else m.name: m.value for m in metrics}
    assert {name: found[name] for name in figures} == figures


def test_chartqa_and_mmstar_as_declared(tmp_path: Path) -> None:
    catalog = load_catalog().benchmarks
    for split in ("human", "augmented"):
        put(tmp_path, f"ChartQA/test/test_{split}.json", [{"imgname": "1.png", "query": "How many?", "label": "14"}])
    chartqa = catalog["chartqa_test"]
    (first, second), _ = load_records(chartqa, [tmp_path])
    assert [(r.id, r.group, r.target) for r in (first, second)] == [
        ("human/0", "human", "14"),
        ("augmented/0", "augmented", "14"),
    ]
    assert getattr(first.image, "path", None) == tmp_path / "ChartQA/test/png/1.png"
    assert chartqa.render(first.fields) == "How many?\nAnswer the question using a single word or phrase."
    star = {key: value for key, value in kit(0).items() if key not in ("hint", "l2-category")}
    put(tmp_path, "MMStar/MMStar.tsv", [{**star, "l2_category": "ocr", "C": "three"}])
    mmstar = catalog["mmstar"]
    (record,), bad = load_records(mmstar, [tmp_path])
    assert bad == []
    assert mmstar.render(record.fields).startswith("What?\nA. one\nB. None\nC. three\nD. four\n")
    found = {(m.group, m.name): m.value for m in evaluate(mmstar, [(record, "(b) None")]).metrics}
    assert found["l2_category/ocr", "accuracy"] == found["", "accuracy"] == 1.0


def test_the_reader_is_the_one_of_declarations_that_name_none() -> None:
    assert declared({"file": "a.json"}).reader == tables.__name__.rpartition(".")[2]
