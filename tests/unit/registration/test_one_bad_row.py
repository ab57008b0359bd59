"""One bad file, row or value costs itself, with its place and reason, and never the table that it stands in."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasets.instruct.llava import read_conversations
from datasets.instruct.panoptic import read_panoptic
from datasets.instruct.segments import read_classes, read_segments
from datasets.registration import ai2d, coco_panoptic, gqa, mathvista, mmbench, mme, mmvet, pope, scienceqa, textvqa
from datasets.registration.base import Reader
from datasets.registration.formats import tsv
from datasets.registration.formats.files import is_hidden, parse_json
from datasets.types import BadRecord, DataError, Record
from tests.limits import examples

from .test_mme_files import ROOT, TEXT, release
from .test_questions_in_json import gqa_question, problem, text_question
from .test_tables import load, put

DEEP = b"[" * 200_000 + b"]" * 200_000


def split(items: Any) -> tuple[list[Record], list[BadRecord]]:
    found = list(items)
    return [i for i in found if isinstance(i, Record)], [i for i in found if isinstance(i, BadRecord)]


def read(reader: type[Reader], root: Path) -> tuple[list[Record], list[BadRecord]]:
    return split(reader().read([root]))


def write(root: Path, name: str, content: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# ---- MME: a folder of small files


def test_files_that_systems_leave_are_no_questions(tmp_path: Path) -> None:
    folder = release(tmp_path)
    whole, _ = read(mme.MmeReader, tmp_path)
    for place in (folder, folder / "count", folder / "posters/images", folder / "posters/questions_answers_YN"):
        for name in ("._0001.txt", "._0001.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.txt"):
            (place / name).write_bytes(b"\x00\x05\x16\x07\x00\xff" * 20)
    assert read(mme.MmeReader, tmp_path) == (whole, [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXT.replace("cat", "caf\xe9").encode("latin-1"), "the byte 0xE9, which is not UTF-8"),
        (b"\x00" * 60, "expected two lines, got 1"),
        (TEXT.encode().replace(b"a", b"\x00"), "holds a NUL"),
        (b"", "expected two lines, got 0"),
        (b"\xff\xfeY", "cannot be read"),
    ],
)
def test_one_damaged_file_of_mme(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = release(tmp_path)
    whole, _ = read(mme.MmeReader, tmp_path)
    (folder / "count/0001.txt").write_bytes(content)
    records, bad = read(mme.MmeReader, tmp_path)
    assert [r for r in whole if r.group != "count"] == [r for r in records if r.group != "count"]
    assert bad and all("count/0001.txt" in item.where for item in bad)
    assert reason in bad[0].reason


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_of_mme(tmp_path: Path, encoding: str, end: str) -> None:
    folder = release(tmp_path)
    whole = read(mme.MmeReader, tmp_path)
    (folder / "count/0001.txt").write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read(mme.MmeReader, tmp_path) == whole


def test_a_file_of_mme_that_is_a_folder(tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / "count/0001.txt").unlink()
    (folder / "count/0001.txt").mkdir()
    records, bad = read(mme.MmeReader, tmp_path)
    assert (len(records), len(bad)) == (26, 1) and "cannot be read" in bad[0].reason


def test_pipes_in_the_place_of_files_are_not_waited_for(tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / "count/0001.txt").unlink()
    os.mkfifo(folder / "count/0001.txt")
    records, bad = read(mme.MmeReader, tmp_path)
    assert (len(records), len(bad)) == (26, 1) and "a device or a pipe" in bad[0].reason
    (tmp_path / "MMBench").mkdir()
    os.mkfifo(tmp_path / "MMBench/mmbench_dev_20230712.tsv")
    with pytest.raises(DataError, match="mmbench_dev_20230712.tsv: is neither a file nor a folder"):
        read(mmbench.MmBenchReader, tmp_path)


def test_labels_of_mme_in_any_case(tmp_path: Path) -> None:
    folder = release(tmp_path)
    whole = read(mme.MmeReader, tmp_path)
    (folder / "count/0001.txt").write_text(TEXT.replace("\tYes", "\tYES ").replace("\tNo", "\tno"))
    assert read(mme.MmeReader, tmp_path) == whole


def test_a_bad_line_in_a_list_of_the_evaluation_tool(tmp_path: Path) -> None:
    (tmp_path / ROOT).mkdir()
    lines = [b"0.jpg\tIs it a?\tYes", b"0.jpg\tIs it caf\xe9?\tNo", b"1.jpg\tIs it b?\tYes", b"1.jpg\tIs it c?\tNo"]
    (tmp_path / ROOT / "count.txt").write_bytes(b"\n".join(lines))
    records, bad = read(mme.MmeReader, tmp_path)
    assert [r.id for r in records] == ["count/0.jpg/0", "count/1.jpg/0", "count/1.jpg/1"]
    assert [b.where.rsplit("/", 1)[1] for b in bad if "missing" not in b.reason] == ["count.txt, line 2"]


def test_hidden() -> None:
    assert all(is_hidden(Path("a") / name) for name in ("._x.yaml", ".DS_Store", "THUMBS.DB", "Desktop.ini"))
    assert not is_hidden(Path("a") / "x.yaml")


# ---- tables of text


COLUMNS = "index\tquestion\tA\tB\tanswer"
GOOD = [f"{n}\tQuestion {n}?\tone\ttwo\tA" for n in range(6)]


def mmbench_table(root: Path, lines: Sequence[str | bytes], end: bytes = b"\n") -> tuple[list[Record], list[BadRecord]]:
    content = end.join(line if isinstance(line, bytes) else line.encode() for line in [COLUMNS, *lines])
    write(root, "MMBench/mmbench_dev_20230712.tsv", content + end)
    return read(mmbench.MmBenchReader, root)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('2\t"What is this?\tone\ttwo\tA', "cell 2 begins with a quote that is not closed"),
        ('2\tWhat?\tone\ttwo\t"A', "cell 5 begins with a quote that is not closed"),
        ('"2\tWhat?\tone\ttwo\tA', "cell 1 begins with a quote that is not closed"),
        (b"2\tcaf\xe9?\tone\ttwo\tA", "'question' holds the byte 0xE9, which is not UTF-8"),
        (b"2\tWh\x00t?\tone\ttwo\tA", "'question' holds a NUL"),
        ("2\tWhat?\tone\ttwo", "has 4 cells, the header has 5"),
        ("2\tWhat?\tone\ttwo\tA\t", "has 6 cells, the header has 5"),
        ("2.5\tWhat?\tone\ttwo\tA", "'index' should be a whole number, got '2.5'"),
        ("nan\tWhat?\tone\ttwo\tA", "'index' should be a whole number, got 'nan'"),
        ("9" * 5000 + "\tWhat?\tone\ttwo\tA", "cannot be used"),
        ("1\tWhat?\tone\ttwo\tA", "repeats id 1 of"),
        ("2\t\tone\ttwo\tA", "'question' is empty"),
        ("2\tWhat?\tone\ttwo\tD", "answer 'D' is none of the options A, B"),
    ],
)
def test_one_bad_row_of_mmbench(tmp_path: Path, line: str | bytes, reason: str, end: bytes) -> None:
    records, bad = mmbench_table(tmp_path, [*GOOD[:2], line, *GOOD[3:]], end)
    assert [r.id for r in records] == ["0", "1", "3", "4", "5"]
    assert [item.where.rsplit(", ", 1)[1] for item in bad] == ["line 4"]
    assert reason in bad[0].reason and len(bad[0].reason) < 400


def test_a_quote_that_is_text_is_read_as_text(tmp_path: Path) -> None:
    line = '2\t"Nighthawks" is by whom?\t"one" of them\ttwo "b"\tA'
    records, bad = mmbench_table(tmp_path, [*GOOD[:2], line, *GOOD[3:]])
    assert bad == [] and len(records) == 6
    assert records[2].fields["question"] == '"Nighthawks" is by whom?'
    assert records[2].meta["options"] == {"A": '"one" of them', "B": 'two "b"'}


def test_a_quote_that_another_row_would_close_swallows_no_rows(tmp_path: Path) -> None:
    records, bad = mmbench_table(tmp_path, [GOOD[0], '1\t"What\tone\ttwo\tA', GOOD[2], '3\tso?"\tone\ttwo\tA', GOOD[4]])
    assert [r.id for r in records] == ["0", "2", "3", "4"]
    assert records[2].fields["question"] == 'so?"'
    assert bad[0].where.endswith("line 3")


def test_many_open_quotes_at_the_end(tmp_path: Path) -> None:
    records, bad = mmbench_table(tmp_path, [*GOOD, *(f'{n}\t"open\tone\ttwo\tA' for n in range(10, 300))])
    assert (len(records), len(bad)) == (6, 290)


def test_a_table_that_breaks_off_within_a_quoted_cell(tmp_path: Path) -> None:
    records, bad = mmbench_table(tmp_path, [*GOOD, '7\t"a\nquestion ""of"" two lines"\tone\ttwo\tB', '8\t"a\nb'])
    assert [r.id for r in records] == ["0", "1", "2", "3", "4", "5", "7"]
    assert records[-1].fields["question"] == 'a\nquestion "of" two lines'
    assert [item.where.rsplit(", ", 1)[1] for item in bad] == ["line 10", "line 11"]
    assert "cut short" in bad[0].reason


def test_a_small_letter_is_that_option_too(tmp_path: Path) -> None:
    whole, _ = mmbench_table(tmp_path, GOOD)
    records, bad = mmbench_table(tmp_path, [GOOD[0][:-1] + "a ", *GOOD[1:]])
    assert records == whole and not bad


def test_empty_rows_are_none(tmp_path: Path) -> None:
    records, bad = mmbench_table(tmp_path, ["", GOOD[0], "\t\t\t\t", " ", GOOD[1], "", "\t\t\t\t"])
    assert (len(records), bad) == (2, [])


def test_indices_that_pandas_wrote_as_floats(tmp_path: Path) -> None:
    table = "index\tquestion\tA\tB\tanswer\timage\n"
    image = "iVBOR" * 30
    table += f"241.0\tq\tone\ttwo\tA\t{image}\n1000241.0\tq\ttwo\tone\tB\t241.0\n3.00\tq\ttwo\tone\tB\t241\n"
    write(tmp_path, "MMBench/mmbench_dev_20230712.tsv", table.encode())
    records, bad = read(mmbench.MmBenchReader, tmp_path)
    assert bad == []
    assert [(r.id, r.meta["question"], r.meta["pass"]) for r in records] == [
        ("241", 241, 0),
        ("1000241", 241, 1),
        ("3", 3, 0),
    ]
    assert records[0].image == records[1].image == records[2].image
    put(tmp_path, "own.csv", b"question_id,question,answer\n7.0,a?,b\n8.0,c?,d\n7,a?,b\n")
    records, bad = load(tmp_path, file="own.csv")
    assert [r.id for r in records] == ["7", "8"] and "repeats id 7" in bad[0].reason


CELL = st.text(st.sampled_from('ab"\n\té,'), max_size=8)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=5), st.sampled_from("\t,"))
def test_quoted_cells_come_back_as_they_were(tmp_path: Path, rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([["x", "y"], *rows])
    path = write(tmp_path, "table.tsv", text.getvalue().encode())
    assume(all(any(cell.strip() for cell in row) for row in rows))
    found = [row for row in tsv.rows(path, delimiter) if isinstance(row, tsv.TsvRow)]
    assert [list(row.cells.values()) for row in found] == rows


LINE = st.text(st.sampled_from('a"\t é'), max_size=12).map(str.encode) | st.binary(max_size=6)


@settings(max_examples=examples(300))
@given(st.lists(LINE, max_size=6), st.integers(0, 6))
def test_good_rows_survive_any_lines_around_them(tmp_path: Path, lines: list[bytes], at: int) -> None:
    """Rows without quotes are found wherever the lines around them do not quote them in."""
    lines = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines]
    good = [b"1\tfirst\tx\ty\tz", b"2\tsecond\tx\ty\tz"]
    content = b"\n".join([b"a\tb\tc\td\te", *lines[:at], *good, *lines[at:]])
    found = list(tsv.rows(write(tmp_path, "t.tsv", content)))
    if not any(b'"' in line for line in lines):
        assert [row.cells["b"] for row in found if isinstance(row, tsv.TsvRow) and row.cells["e"] == "z"] == [
            "first",
            "second",
        ]
    numbers = [int((row[0] if isinstance(row, tuple) else row.where).rsplit(" ", 1)[1]) for row in found]
    assert numbers == sorted(set(numbers))


# ---- JSON


def with_raw(content: Any, raw: bytes) -> bytes:
    """JSON in which the text RAW is replaced by bytes."""
    return json.dumps(content).encode().replace(b'"RAW"', raw)


RAW_VALUES = [
    (b'"caf\xe9"', "the byte 0xE9, which is not UTF-8"),
    (b'"a\\ud83d"', "half of a character"),
    (b'"a\\u0000b"', "holds a NUL"),
    (b"NaN", "got nan"),
    (b"-Infinity", "got -inf"),
    (b"9" * 5000, "got inf"),
    (DEEP, "should be a text, got [[["),
]


@pytest.mark.parametrize(("raw", "reason"), RAW_VALUES)
def test_one_bad_value_of_gqa(tmp_path: Path, raw: bytes, reason: str) -> None:
    content = {"1": gqa_question(), "2": gqa_question(question="RAW"), "3": gqa_question()}
    write(tmp_path, "GQA/testdev_balanced_questions.json", with_raw(content, raw))
    records, bad = read(gqa.GqaReader, tmp_path)
    assert [r.id for r in records] == ["1", "3"]
    assert len(bad) == 1 and bad[0].where.endswith("question 2") and reason in bad[0].reason


@pytest.mark.parametrize("raw", [raw for raw, _ in RAW_VALUES])
def test_a_bad_value_that_nobody_needs_costs_nothing(tmp_path: Path, raw: bytes) -> None:
    content = {"1": gqa_question(), "2": {**gqa_question(), "fullAnswer": "RAW", "more": ["RAW"]}}
    write(tmp_path, "GQA/testdev_balanced_questions.json", with_raw(content, raw))
    records, bad = read(gqa.GqaReader, tmp_path)
    assert ([r.id for r in records], bad) == (["1", "2"], [])


def test_an_id_that_stands_twice_in_an_object_is_named(tmp_path: Path) -> None:
    one = json.dumps(gqa_question())
    write(tmp_path, "GQA/testdev_balanced_questions.json", f'{{"1": {one}, "2": {one}, "1": {one}}}'.encode())
    records, bad = read(gqa.GqaReader, tmp_path)
    assert [r.id for r in records] == ["1", "2"] and "repeats id 1" in bad[0].reason
    graded = json.dumps({"imagename": "a.jpg", "question": "q", "answer": "a", "capability": []})
    write(tmp_path, "mm-vet/mm-vet.json", f'{{"v1_0": {graded}, "v1_0": {graded}}}'.encode())
    records, bad = read(mmvet.MmVetReader, tmp_path)
    assert (len(records), len(bad)) == (1, 1)


def test_numbers_that_tables_made_floats(tmp_path: Path) -> None:
    write(tmp_path, "ScienceQA/problems.json", {"7": problem(answer=1.0), "8": problem(answer=0.5)})
    write(tmp_path, "ScienceQA/pid_splits.json", {"test": [7.0, 8]})
    records, bad = read(scienceqa.ScienceQaReader, tmp_path)
    assert [(r.id, r.target) for r in records] == [("7", "B")]
    assert "'answer' should be a whole number, got 0.5" in bad[0].reason
    write(tmp_path, "TextVQA/TextVQA_0.5.1_val.json", {"data": [{**text_question(), "question_id": 34602.0}]})
    (record,), _ = read(textvqa.TextVqaReader, tmp_path)
    assert record.id == "34602"


def test_a_spoilt_entry_of_the_ocr_file_costs_its_question(tmp_path: Path) -> None:
    first, second = text_question(), {**text_question(), "question_id": 2, "image_id": "b"}
    write(tmp_path, "TextVQA/TextVQA_0.5.1_val.json", {"data": [first, second]})
    prompt = {"question_id": first["image_id"], "text": f"{first['question']}\nReference OCR token: x, y\nAnswer"}
    lines = [json.dumps(prompt).encode(), b"{broken", b'{"question_id": "b", "text": "nothing"}', DEEP]
    write(tmp_path, "TextVQA/llava_textvqa_val_v051_ocr.jsonl", b"\n".join(lines))
    (record,), bad = read(textvqa.TextVqaReader, tmp_path)
    assert record.fields["ocr"] == "x, y"
    assert len(bad) == 1 and "has no image b" in bad[0].reason and "line 2: not a JSON object" in bad[0].reason


def test_one_unreadable_file_of_ai2d(tmp_path: Path) -> None:
    rest = {"answerTexts": ["a", "b"], "correctAnswer": 1, "abcLabel": False}
    for name in "123":
        content = {"imageName": f"{name}.png", "questions": {"What?": {**rest, "questionId": f"{name}-0"}}}
        write(tmp_path, f"ai2d/questions/{name}.png.json", content)
    write(tmp_path, "ai2d/questions/2.png.json", b'{"imageName": "2.p')
    write(tmp_path, "ai2d/ai2d_test_ids.csv", b"1\r\n2.0\r\n\r\ncaf\xe9\r\n3\r\n")
    records, bad = read(ai2d.Ai2dReader, tmp_path)
    assert [r.id for r in records] == ["1-0", "3-0"]
    assert "2.png.json: not valid JSON" in bad[0].reason and "there is no" in bad[1].reason


@pytest.mark.parametrize("bad_line", [b"caf\xe9", DEEP, b"NaN", b"\x00\x00", b"{", b"9" * 5000, b'{"a": 1'])
def test_one_bad_line_of_pope(tmp_path: Path, bad_line: bytes) -> None:
    lines = [
        json.dumps({"question_id": n, "image": "a.jpg", "text": "Is it?", "label": "no"}).encode() for n in range(3)
    ]
    for kind in ("random", "popular", "adversarial"):
        write(
            tmp_path,
            f"POPE/coco_pope_{kind}.json",
            b"\r\n".join([lines[0], bad_line, lines[1], b"", b"\xef\xbb\xbf" + lines[2]]),
        )
    records, bad = read(pope.PopeReader, tmp_path)
    assert (len(records), len(bad)) == (9, 3) and all(item.where.endswith("line 2") for item in bad)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b'{"1": ', "line 1, column 7.*cut short"),
        (b"", "line 1, column 1"),
    ],
)
def test_what_is_no_json_is_named_as_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, "GQA/testdev_balanced_questions.json", content)
    with pytest.raises(DataError, match=message):
        read(gqa.GqaReader, tmp_path)


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.sampled_from('a"\\[]{}é\n'), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('b"]', max_size=2), inner, max_size=3),
)


@pytest.mark.slow
@given(JSONS, JSONS)
def test_only_what_is_too_deep_is_left_out(value: Any, other: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    text = f'{{"a": {json.dumps(value)}, "deep": {DEEP.decode()}, "b": {json.dumps(other)}}}'
    found = parse_json(text)
    assert (found["a"], found["b"]) == (value, other)


# ---- parquet


def mathvista_row(pid: str, **changes: Any) -> dict[str, Any]:
    base = {"pid": pid, "question": "q", "query": "q?", "image": f"images/{pid}.jpg", "question_type": "free_form"}
    return {
        **base,
        "answer_type": "text",
        "answer": "a",
        "precision": 1.0,
        "choices": None,
        "metadata": None,
        **changes,
    }


def test_a_cell_of_parquet_that_is_no_utf8(tmp_path: Path) -> None:
    rows = [mathvista_row(str(n)) for n in range(4)]
    table = pa.Table.from_pylist(rows)
    corrupt = pa.array([b"fine", b"caf\xe9", b"fine", b"fine"], pa.binary()).view(pa.string())
    table = table.set_column(table.schema.get_field_index("question"), "question", corrupt)
    path = tmp_path / "MathVista" / mathvista.MathVistaReader().files[0]
    path.parent.mkdir()
    pq.write_table(table, path)
    records, bad = read(mathvista.MathVistaReader, tmp_path)
    assert [r.id for r in records] == ["0", "2", "3"]
    assert bad[0].where.endswith("row 1") and "'question' cannot be read" in bad[0].reason
    with pytest.raises(OSError, match="decoded_image"):
        records[0].image.read()  # type: ignore[union-attr]
    records, bad = load(tmp_path, file=f"MathVista/{path.name}", columns={"id": "pid", "image": "image"})
    assert (len(records), len(bad)) == (3, 1)


def test_a_damaged_row_group_costs_its_rows(tmp_path: Path) -> None:
    rows = [{"id": str(n), "question": f"question number {n} " * 20, "answer": "x"} for n in range(9)]
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(path.read_bytes())
    start = place.data_page_offset
    content[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    path.write_bytes(bytes(content))
    records, bad = load(tmp_path, file="q.parquet")
    assert [r.id for r in records] == ["0", "1", "2", "6", "7", "8"]
    assert [item.where.rsplit(" ", 1)[1] for item in bad] == ["3", "4", "5"]


# ---- annotations and conversations


@pytest.mark.parametrize("raw", [b"NaN", b"1e999", b"9" * 400, b"9" * 5000, b'"x"', DEEP, b"true"])
def test_numbers_of_coco_beyond_all_bounds(tmp_path: Path, raw: bytes) -> None:
    segment = {"id": 1, "category_id": 1, "area": 50, "bbox": [0, 0, 5, 5], "iscrowd": 0}
    content: dict[str, Any] = {
        "categories": [{"id": 1, "name": "dog", "isthing": 1}],
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 10, "height": 10} for n in (1, 2, 3)],
        "annotations": [
            {"image_id": 1, "segments_info": [segment]},
            {"image_id": 2, "segments_info": [{**segment, "area": "RAW"}]},
            {"image_id": 3, "segments_info": [{**segment, "bbox": [0, 0, "RAW", 5]}]},
        ],
    }
    write(tmp_path, "coco/annotations/panoptic_val2017.json", with_raw(content, raw))
    records, bad = split(coco_panoptic.CocoPanopticReader(task="box2class").read([tmp_path]))
    assert [r.id for r in records] == ["1.jpg/[0.00, 0.00, 0.50, 0.50]"]
    assert [item.where.rsplit(", ", 1)[1] for item in bad] == ["annotations 1", "annotations 2"]
    content["images"] = [*content["images"], {"id": 9, "file_name": "9.jpg", "width": "RAW", "height": 4}]
    write(tmp_path, "coco/annotations/panoptic_val2017.json", with_raw(content, raw))
    assert len(split(coco_panoptic.CocoPanopticReader(task="class2binary").read([tmp_path]))[1]) == 3


@pytest.mark.parametrize(("raw", "reason"), RAW_VALUES)
def test_one_bad_conversation(tmp_path: Path, raw: bytes, reason: str) -> None:
    turns = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "RAW"}]
    fine = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "there"}]
    content = [{"id": 1.0, "conversations": fine}, {"id": 2, "conversations": turns}, {"id": 3, "conversations": fine}]
    items = list(read_conversations(write(tmp_path, "c.json", with_raw(content, raw)), [tmp_path], check_images=True))
    assert [type(item) is BadRecord for item in items] == [False, True, False]
    bad = items[1]
    wanted = "expected an object with 'type', got list" if raw is DEEP else reason  # a list of content parts is read
    assert isinstance(bad, BadRecord) and bad.where.endswith("record 1") and wanted in bad.reason
    assert items[0].id == "1@0"  # type: ignore[union-attr]


def test_one_bad_class_or_image_of_training_annotations(tmp_path: Path) -> None:
    classes = [{"id": 1, "name": "dog", "isthing": 1}, {"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": 3}]
    names = [{"id": 1, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"}, {"id": 2}]
    segment = {"id": 1, "category_id": 1}
    annotations = [{"image_id": n, "file_name": f"{n}.png", "segments_info": [segment]} for n in (1, 2)]
    content = {"categories": classes, "images": names, "annotations": annotations}
    file = write(tmp_path, "panoptic.json", content)
    write(tmp_path, "1.jpg", b"")
    assert [(one.id, one.name) for one in read_classes(file)] == [(1, "dog")]
    for found in (
        list(read_segments(file, tmp_path, tmp_path)),
        list(read_panoptic(file, tmp_path, check_images=True)),
    ):
        assert [item.image.name for item in found if not isinstance(item, BadRecord)] == ["1.jpg"]
        places = {item.where.rsplit(", ", 1)[1] for item in found if isinstance(item, BadRecord)}
        assert places == {"categories 1", "categories 2", "images 1", "images 2", "annotations 1"}
