"""Result files of other tools: joined to the benchmark's records without doubt, or refused with the reason."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.types import DataError, ImageFile, Record
from pipeline.benchmarks import select_pipeline
from pipeline.catalog import load_catalog
from pipeline.results.replies import read_answers
from pipeline.results.result_files import read_result_file
from pipeline.results.result_files.join import join
from pipeline.results.result_files.row import ResultFile, ResultRow
from tests.fixtures import fixture_dir

SHORT = "\nAnswer the question using a single word or phrase."
Made = Callable[[Path, Sequence[Record], Mapping[str, str]], Path]


def records_of(dataset: str, folder: Path, **data: Any) -> list[Record]:
    benchmark = load_catalog().benchmarks[dataset]
    records, bad = select_pipeline(None, replace(benchmark, data={**benchmark.data, **data})).load([folder])
    assert not bad
    return records


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """As VLMEvalKit writes it, by the path's suffix."""
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        sheet = book.create_sheet(index=0)
        for number, cells in enumerate(([*rows[0]], *([*row.values()] for row in rows)), start=1):
            for column, value in enumerate(cells, start=1):
                cell = sheet.cell(number, column, value)
                cell.data_type = "s" if isinstance(value, str) else cell.data_type  # "=B+1" is no formula
        book.save(path)
        return path
    with path.open("w", newline="") as file:
        dialect = {"delimiter": "\t" if path.suffix == ".tsv" else ",", "quoting": csv.QUOTE_ALL}
        writer = csv.DictWriter(file, list(rows[0]), **dialect)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return path


def replies(path: Path, records: Sequence[Record]) -> dict[str, str | None]:
    entries, _ = read_answers(records, path)
    return {name: entry.text if entry.error is None else None for name, entry in entries.items()}


# Real records.


def llava_pope(path: Path, records: Sequence[Record], said: Mapping[str, str]) -> Path:
    first = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
    return lines(
        path / "answers.jsonl",
        [
            {
                "question_id": first[r.group] + int(r.id.split("/")[1]),
                "prompt": r.fields["question"] + SHORT,
                "text": said[r.id],
                "answer_id": "3wn9",
                "model_id": "llava-v1.5-13b",
                "metadata": {},
            }
            for r in records
        ],
    )


def lmms_pope(path: Path, records: Sequence[Record], said: Mapping[str, str]) -> Path:
    rows = []
    for number, r in enumerate(records):
        doc = {"question_id": r.id.split("/")[1], "question": r.fields["question"], "category": r.group}
        doc |= {"id": str(number), "answer": r.target, "image_source": r.image.name.removesuffix(".jpg")}  # type: ignore[union-attr]
        rows.append({"doc_id": number, "doc": doc, "target": r.target, "resps": [[said[r.id]]]})
        rows[-1] |= {"filtered_resps": [said[r.id].strip()]}
    return lines(path / "20250101_samples_pope.jsonl", rows)


def vlmevalkit_pope(path: Path, records: Sequence[Record], said: Mapping[str, str]) -> Path:
    """One row for each question about an image, with the lists that it is in; here with the image's name."""
    once: dict[tuple[str, str], list[Record]] = {}
    for r in records:
        once.setdefault((r.image.name, r.fields["question"]), []).append(r)  # type: ignore[union-attr]
    rows = [
        {
            "index": number,
            "question": question,
            "answer": rs[0].target.capitalize(),
            "category": ",".join(r.group for r in rs),
            "image_path": image,
            "prediction": said[rs[0].id],
        }
        for number, ((image, question), rs) in enumerate(once.items())
    ]
    return table(path / "model_POPE.tsv", rows)


def pope(version: str) -> tuple[list[Record], dict[str, str]]:
    folder = fixture_dir(f"benchmarks/pope/{version}")
    said: dict[str, str] = json.loads((folder / "predictions.json").read_text())
    return records_of("pope_test", folder, folders=["annotations"]), said


@pytest.mark.slow
def test_llavas_answers_to_pope(tmp_path: Path) -> None:
    """The published answers, 8,910 of them, in the older lists that they are to; and not in the newer ones."""
    records, said = pope("published_llava_v1.5_13b")
    path = llava_pope(tmp_path, records, said)
    assert replies(path, records) == said
    newer, _ = pope(".")
    with pytest.raises(DataError, match=r"has the id of random/11, but another question(.|\n)*of the same release"):
        read_answers(newer, path)


@pytest.mark.slow
@pytest.mark.parametrize("made", [lmms_pope, vlmevalkit_pope])
def test_pope_of_other_tools(tmp_path: Path, made: Made) -> None:
    records, _ = pope(".")
    said = {r.id: f"{'No' if len(r.fields['question']) % 2 else 'Yes'}, {r.image.name}" for r in records}  # type: ignore[union-attr]
    assert replies(made(tmp_path, records, said), records) == said


def mme_folder(path: Path, records: Sequence[Record], said: Mapping[str, str]) -> Path:
    folder = path / "Your_Results"
    folder.mkdir()
    for r in records:
        cells = [r.meta["pair"].split("/")[1], r.fields["release_question"], r.target.capitalize(), said[r.id]]
        with (folder / f"{r.group}.txt").open("a", encoding="utf-8") as file:
            file.write("\t".join(cells) + "\n")
    return folder


def llava_mme(path: Path, records: Sequence[Record], said: Mapping[str, str]) -> Path:
    apart = ("artwork", "celebrity", "landmark", "posters", "scene")
    rows = []
    for r in records:
        folder, image = r.meta["pair"].split("/")
        key = f"{folder}/images/{image}" if folder in apart else f"{folder}/{image}"
        rows.append({"question_id": key, "prompt": r.fields["question"] + SHORT, "text": said[r.id], "answer_id": "x"})
    random.Random(0).shuffle(rows)
    return lines(path / "mme.jsonl", rows)


def vlmevalkit_mme(path: Path, records: Sequence[Record], said: Mapping[str, str]) -> Path:
    rows = [
        {"index": n, "question": r.fields["release_question"], "answer": r.target.capitalize(), "category": r.group}
        | {"image_path": r.meta["pair"], "prediction": said[r.id]}
        for n, r in enumerate(records)
    ]
    return table(path / "model_MME.xlsx", rows)


@pytest.mark.parametrize("made", [mme_folder, llava_mme, vlmevalkit_mme])
def test_mme(tmp_path: Path, made: Made) -> None:
    records = records_of("mme", fixture_dir("benchmarks/mme"), root="annotations")
    said = json.loads((fixture_dir("benchmarks/mme/published_llava_v1.5_13b") / "predictions.json").read_text())
    assert replies(made(tmp_path, records, said), records) == said


def test_hallusionbench_of_vlmevalkit(tmp_path: Path) -> None:
    records = records_of("hallusionbench", fixture_dir("benchmarks/hallusionbench"), root=".")
    said = {r.id: f"says {r.id}" for r in records if r.image is not None}
    rows = [
        {"index": f"hallusion_{r.id}", "question": r.fields["question"], "answer": r.target.capitalize()}
        | {"l2-category": f"{r.group}_{r.meta['subcategory']}", "category": r.group, "prediction": said[r.id]}
        for r in records
        if r.image is not None
    ]
    got = replies(table(tmp_path / "m_HallusionBench.csv", rows), records)
    assert got == {**dict.fromkeys((r.id for r in records), None), **said}
    assert len(said) == 951


@pytest.mark.parametrize("suffix", [".xlsx", ".tsv", ".csv"])
def test_mmbench_of_vlmevalkit(tmp_path: Path, suffix: str) -> None:
    records = records_of("mmbench", fixture_dir("benchmarks/mmbench"), root=".")
    said = {r.id: text for r, text in zip(records, ["=B+1", "", "None", "007"] * len(records), strict=False)}
    rows: list[dict[str, Any]] = [
        {"index": int(r.id), "question": r.fields["question"], **{c: r.meta["options"].get(c, "") for c in "ABCD"}}
        | {"prediction": said[r.id]}
        for r in records
    ]
    path = tmp_path / f"model_MMBench{suffix}"
    assert replies(table(path, rows), records) == said
    rows[7]["A"], rows[7]["B"] = rows[7]["B"], rows[7]["A"]
    with pytest.raises(DataError, match=f"has the id of {records[7].id}, but other options"):
        read_answers(records, table(path, rows))


def test_textvqas_image_ids_and_mmvets_numbers_of_llava(tmp_path: Path) -> None:
    records = records_of("textvqa_val", fixture_dir("benchmarks/textvqa_val"), root=".")
    said = {r.id: f"says {r.id}" for r in records}
    rows = [
        {"question_id": Path(r.image.name).stem, "prompt": f"{r.fields['question'].capitalize()}\nReference: a{SHORT}"}  # type: ignore[union-attr]
        | {"text": said[r.id], "answer_id": "x"}
        for r in records
    ]
    assert replies(lines(tmp_path / "textvqa.jsonl", rows), records) == said
    records = records_of("mm-vet", fixture_dir("benchmarks/mm-vet"), root=".")
    numbered = [
        {"question_id": int(r.id[3:]), "prompt": r.fields["question"], "text": f"says {r.id}", "answer_id": "x"}
        for r in records
    ]
    assert replies(lines(tmp_path / "mmvet.jsonl", numbered), records) == {r.id: f"says {r.id}" for r in records}


# Invented records.


def record(name: str, question: str, image: str = "", group: str = "", target: Any = None, **options: str) -> Record:
    source = ImageFile(Path(image), image) if image else None
    meta = {"options": options} if options else {}
    return Record(id=name, image=source, fields={"question": question}, target=target, group=group, meta=meta)


TWO = [record("1", "Is it red?", "1.jpg", target="yes"), record("2", "Is it red?", "2.jpg", target="no")]


def row(reply: str = "Yes", **said: Any) -> ResultRow:
    return ResultRow(where="here", reply=reply, **said)


def joined(records: Sequence[Record], *rows: ResultRow) -> dict[str, str | None]:
    found = join(records, ResultFile(tool="a tool", rows=rows), Path("file"))
    return {name: row.reply for name, row in found.rows.items()}


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"question": "Is it red?", "image": "x/2.png"}, "2"),
        ({"prompt": "<image>\nIs it red?\nPlease answer yes or no.", "image": "1.jpg"}, "1"),
        ({"question": "is it  red?", "target": "No."}, "2"),
        ({"ids": ("1",)}, "1"),
        ({"ids": ("tool_2",), "question": "Is it red?"}, "2"),
        ({"ids": ("1",), "question": "Is it red?", "image": "0007.jpg"}, "1"),  # no name of the benchmark's
    ],
)
def test_what_tells_a_record(said: dict[str, Any], name: str) -> None:
    assert joined(TWO, row(**said)) == {name: "Yes"}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"question": "Is it red?"}, "has the question's text alone"),
        ({"ids": ("1",), "question": "Is it blue?"}, "has the id of 1, but another question"),
        ({"ids": ("1",), "question": "Is it red?", "image": "2.jpg"}, "has the id of 1, but another image"),
        (
            {"ids": ("1",), "question": "Is it red?", "target": "No"},
            r"has the id of 1, but another ground truth \(No\)",
        ),
        ({"ids": ("9",), "question": "Is it blue?"}, "none of its 1 rows"),
    ],
)
def test_what_leaves_doubt_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        joined([*TWO, record("3", "Other?")], *[row(ids=("3",))] * ("none" not in message), row(**said))


def test_numbers_of_a_tools_own_say_nothing() -> None:
    records = [record(str(n), "Is it red?", f"{n}.jpg", target="yes") for n in range(5)]
    rows = [{"ids": (str(n + 1),), "question": "Is it red?"} for n in range(5)]
    images = [row(f"says {n}", **said, image=f"{n}.jpg") for n, said in enumerate(rows)]
    assert joined(records, *images) == {str(n): f"says {n}" for n in range(5)}
    alone = [replace(records[0], target="yes"), record("1", "Is it blue?", "1.jpg", target="no")]
    with pytest.raises(DataError, match="has the id of 1, but another"):
        joined(alone, row(ids=("1",), question="Is it red?", target="yes"))  # yes or no is no evidence against an id


def test_a_row_is_no_row_of_a_list_that_it_does_not_name() -> None:
    lists = [record(f"{group}/1", "Is it red?", "1.jpg", group=group, target="yes") for group in ("a", "b", "c")]
    about = {"question": "Is it red?", "image": "1.jpg"}
    assert joined(lists, row(**about, groups=("a", "c"))) == {"a/1": "Yes", "c/1": "Yes"}
    assert joined(lists, *[row(**about)] * 3) == {"a/1": "Yes", "b/1": "Yes", "c/1": "Yes"}
    for rows in ([row(**about)], [row(**about), row(**about), row("No", **about)]):
        with pytest.raises(DataError, match="asks what a/1, b/1, c/1 ask, and does not say which it is"):
            joined(lists, *rows)


def test_numbers_count_where_all_of_a_long_file_agree() -> None:
    records = [record(f"v1_{n}", f"Question {n % 7}?", f"{n}.jpg") for n in range(40)]
    rows = [row(f"says {n}", ids=(str(n),), question=f"Question {n % 7}?") for n in range(40)]
    assert joined(records, *rows) == {f"v1_{n}": f"says {n}" for n in range(40)}
    for others in (rows[:10], [*rows[:-1], row(ids=("38",), question="Question 4?")]):
        with pytest.raises(DataError, match="has the question's text alone"):
            joined(records, *others)


def test_a_question_within_another_is_not_the_other() -> None:
    records = [record("a", "Is it red?", "1.jpg"), record("b", "Is it red? Is it round?", "1.jpg")]
    assert joined(records, row(prompt="Is it red? Is it round?\nShort.", image="1.jpg")) == {"b": "Yes"}
    assert joined(records, row(prompt="Is it red?\nShort.", image="1.jpg")) == {"a": "Yes"}


def test_two_replies_to_one_record_are_refused() -> None:
    with pytest.raises(DataError, match="a second answer to 1"):
        joined(TWO, row(ids=("1",)), row(ids=("1",)))


def test_rows_of_other_questions_are_strays() -> None:
    file = ResultFile(tool="a tool", rows=[row(ids=("1",)), row(ids=("7",), question="Other?")])
    assert join(TWO, file, Path("file")).stray == ["here"]


@given(
    st.lists(
        st.builds(
            ResultRow,
            where=st.just("here"),
            reply=st.sampled_from(["Yes", "No"]),
            ids=st.lists(st.sampled_from(["1", "2", "x_1", ""]), max_size=2).map(tuple),
            question=st.sampled_from(["", "Is it red?", "Is it blue?"]),
            prompt=st.sampled_from(["", "Is it red?\nShort."]),
            image=st.sampled_from(["", "1.jpg", "2.jpg", "3.jpg"]),
            target=st.sampled_from(["", "yes", "no", "7"]),
        ),
        max_size=4,
    )
)
def test_no_row_goes_to_a_record_that_it_contradicts(rows: list[ResultRow]) -> None:
    try:
        found = join(TWO, ResultFile(tool="a tool", rows=rows), Path("file")).rows
    except DataError:
        return
    for name, got in found.items():
        own = TWO[int(name) - 1]
        assert got.question in ("", "Is it red?")
        assert got.image not in {"1.jpg", "2.jpg"} - {f"{name}.jpg"}
        assert got.target not in {"yes", "no"} - {own.target}
        assert got.ids or got.image or got.target  # something next to the question


SAMPLE = {"doc_id": 0, "target": "yes", "filtered_resps": ["Yes"], "input": f"Is it red?{SHORT}"}


@pytest.mark.parametrize(
    ("changes", "reply"),
    [
        ({"m": {"question_id": "1"}}, "Yes"),
        ({"m": {"question_id": "1"}, "filtered_resps": "Yes"}, "Yes"),
        ({"doc": {"question_id": 1}, "filtered_resps": ["A"], "resps": [["It is (A)."]]}, "It is (A)."),
        ({"doc": {"question_id": 1}, "resps": [["<think>no</think> Yes"]]}, "Yes"),
        ({"doc": {"question_id": 1}, "filtered_resps": []}, None),
    ],
)
def test_replies_of_lmms_eval(tmp_path: Path, changes: dict[str, Any], reply: str | None) -> None:
    path = lines(tmp_path / "samples.jsonl", [{**SAMPLE, **changes}])
    assert replies(path, TWO)["1"] == reply


OTHERS: dict[str, tuple[str, str, str]] = {
    "several replies": (
        "s.jsonl",
        json.dumps({**SAMPLE, "filtered_resps": ["Yes", "No"]}),
        "line 1: 2 different replies to one question",
    ),
    "only the position": ("s.jsonl", json.dumps({**SAMPLE, "target": "red"}), "has the question's text alone"),
    "a broken line": ("s.jsonl", json.dumps(SAMPLE) + "\n{", "line 2: not a JSON object"),
    "a list": ("s.jsonl", json.dumps(SAMPLE) + "\n[]", "line 2: expected an object, got list"),
    "rotated by LLaVA": (
        "a.jsonl",
        json.dumps({"question_id": 1, "round_id": 1, "prompt": "Is it red?", "text": "A", "answer_id": "x"}),
        "round_id 1: with --all-rounds",
    ),
    "LLaVA without a reply": (
        "a.jsonl",
        json.dumps({"question_id": 1, "prompt": "Is it red?", "text": None, "answer_id": "x"}),
        "line 1: expected 'question_id', and texts under 'prompt' and 'text'",
    ),
    "another table": (
        "t.tsv",
        "question\tanswer\nIs it red?\tyes\n",
        "no column index and prediction; (.|\n)*It has: quest",
    ),
    "a short row": ("t.csv", "index,prediction\n1\n", "line 2: has 1 cells"),
    "no workbook": ("t.xlsx", "index\tprediction\n", "not a readable .xlsx workbook"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_cannot_be_used_are_explained(tmp_path: Path, name: str) -> None:
    file, content, message = OTHERS[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_answers(TWO, tmp_path / file)


def test_a_list_of_mmes_tool_without_replies_is_explained(tmp_path: Path) -> None:
    (tmp_path / "color.txt").write_text("1.png\tIs it red? Please answer yes or no.\tYes\n")
    with pytest.raises(DataError, match=r"color.txt, line 1: expected image(.|\n)*got 3 of these four"):
        read_result_file(tmp_path)
    (tmp_path / "color.txt").write_text("1.png\tIs it red?\tYes\tYes,\tit is\n")
    found = read_result_file(tmp_path)
    assert found is not None and found.rows[0].reply == "Yes,\tit is"


def test_a_reply_that_a_tool_did_not_get_is_an_error(tmp_path: Path) -> None:
    rows = [{"index": 1, "question": "Is it red?", "prediction": "Failed to obtain answer via API."}]
    entries, _ = read_answers(TWO, table(tmp_path / "t.tsv", rows))
    assert entries["1"].error == "Failed to obtain answer via API."


@pytest.mark.parametrize("content", ['{"1": "Yes", "2": "No"}', '{"question_id": 1, "text": "Yes"}\n'])
def test_files_of_no_tool_are_read_by_our_ids(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert read_result_file(tmp_path / "a.jsonl") is None
    assert replies(tmp_path / "a.jsonl", TWO)["1"] == "Yes"
