"""Readers of MM-Vet, Q-Bench, MathVista, AI2D and HallusionBench, on small files in the release's form."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.registration import ai2d, hallusionbench, mathvista, mmvet, qbench
from datasets.registration.base import Reader
from datasets.types import BadRecord, DataError, ImageFile, Record
from pipeline.catalog import load_catalog
from pipeline.config import EvalConfig, read_configuration
from tests.limits import examples
from tests.reading import load_records

LETTER = "Answer with the option's letter from the given choices directly."


def write(root: Path, name: str, content: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def split(items: Any) -> tuple[list[Record], list[BadRecord]]:
    read = list(items)
    return [i for i in read if isinstance(i, Record)], [i for i in read if isinstance(i, BadRecord)]


def vet(**changes: Any) -> dict[str, Any]:
    image = {"imagename": "v1_0.png", "imagesource": "web"}
    return {**image, "question": "What is x?", "answer": "1<AND>2", "capability": ["ocr", "math"], **changes}


def candidate(**changes: Any) -> dict[str, Any]:
    question = {"img_path": "a/1.jpg", "question": "How is the light?", "candidates": ["Good", "Bad", "Medium"]}
    return {**question, "correct_ans": "Bad", "type": 2, "concern": 1, **changes}


def problem(**changes: Any) -> dict[str, Any]:
    metadata = {"language": "english", "source": "IQTest", "category": "c", "task": "t", "context": "x", "grade": "g"}
    return {
        "pid": "7",
        "question": "Which one?",
        "image": "images/7.jpg",
        "choices": ["3/11", "8/11"],
        "unit": None,
        "precision": None,
        "answer": "8/11",
        "question_type": "multi_choice",
        "answer_type": "text",
        "metadata": {**metadata, "split": "testmini", "skills": ["arithmetic", "logic"]},
        **changes,
    }


def diagram(**changes: Any) -> dict[str, Any]:
    return {"abcLabel": True, "answerTexts": ["ear", "eye", "nose", "fin"], "correctAnswer": 2, **changes}


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "category": "VD",
        "subcategory": "video",
        "visual_input": "2",
        "set_id": "19",
        "figure_id": "2",
        "sample_note": "",
        "question_id": "0",
        "question": "Is it?",
        "gt_answer_details": "It is.",
        "gt_answer": "1",
        "filename": "./VD/video/19_2.png",
        **changes,
    }


def test_mmvet(tmp_path: Path) -> None:
    write(tmp_path, "mm-vet/mm-vet.json", {"v1_0": vet(), "v1_1": vet(answer="")})
    (first, second), bad = split(mmvet.MmVetReader().read([tmp_path]))
    assert bad == []
    assert (first.id, first.target, second.target) == ("v1_0", "1<AND>2", None)
    assert first.image == ImageFile(tmp_path / "mm-vet/images/v1_0.png", "v1_0.png")
    assert first.meta == {"capability": ["ocr", "math"]}


def test_mmvet_from_the_list_of_questions_has_no_answers(tmp_path: Path) -> None:
    item = {"image": "v1_5.png", "text": "What is y?", "category": "conv", "question_id": 6}
    write(tmp_path, "mm-vet/llava-mm-vet.json", [item, {"image": "v1_5.png"}])
    (record,), (bad,) = split(mmvet.MmVetReader().read([tmp_path]))
    assert (record.id, record.target, record.fields["question"]) == ("v1_6", None, "What is y?")
    assert "lacks 'question_id'" in bad.reason


def test_qbench(tmp_path: Path) -> None:
    twice = candidate(candidates=["Yes", "No", "Yes"], correct_ans="Yes")
    hidden = {key: value for key, value in candidate().items() if key != "correct_ans"}
    wrong = [candidate(correct_ans="Awful"), candidate(candidates=["Good"]), candidate(type=3), candidate(concern="x")]
    write(tmp_path, "LLVisionQA-QBench/llvisionqa_dev.json", [candidate(), twice, hidden, *wrong])
    records, bad = split(qbench.QBenchReader().read([tmp_path]))
    assert [(r.id, r.target) for r in records] == [("0", "B"), ("1", "A"), ("2", None)]
    assert records[0].fields["options"] == "A. Good\nB. Bad\nC. Medium\n"
    assert records[0].meta["type"] == "how"
    assert records[0].meta["concern"] == "other"
    assert records[0].image == ImageFile(tmp_path / "LLVisionQA-QBench/images/a/1.jpg", "a/1.jpg")
    reasons = [item.reason for item in bad]
    for reason, words in zip(
        reasons,
        ["is none of the candidates", "two or more candidates", "should be 0 to 2", "a whole number"],
        strict=True,
    ):
        assert words in reason


def test_mathvista_from_files(tmp_path: Path) -> None:
    free = problem(question_type="free_form", answer_type="float", choices=None, precision=1, answer="1.2", pid="8")
    write(tmp_path, "MathVista/data/testmini.json", {"7": problem(), "8": free, "9": problem()})
    write(tmp_path, "MathVista/data/query.json", {"7": "Hint: ...", "8": "Hint: a number"})
    (first, second), (bad,) = split(mathvista.MathVistaReader().read([tmp_path]))
    assert (first.id, first.target, first.fields["query"]) == ("7", "8/11", "Hint: ...")
    assert first.meta["choices"] == ["3/11", "8/11"]
    assert first.meta["skills"] == ["arithmetic", "logic"]
    assert (second.meta["precision"], second.meta["choices"], second.group) == (1, [], "free_form")
    assert first.image == ImageFile(tmp_path / "MathVista/images/7.jpg", "images/7.jpg")
    assert "'pid' is '7', but the problem stands under '9'" in bad.reason


def test_mathvista_without_prompts_can_be_scored_but_not_asked(tmp_path: Path) -> None:
    write(tmp_path, "MathVista/testmini.json", {"7": problem()})
    benchmark = load_catalog().benchmarks["mathvista_testmini"]
    (record,), _ = load_records(benchmark, [tmp_path])
    with pytest.raises(DataError, match="the prompt names {query}, a record has only: question"):
        benchmark.render(record.fields)


def parquet(root: Path) -> Path:
    rows = [
        {**problem(pid=str(n), precision=1.0 if n else None, image=f"images/{n}.jpg"), "query": f"Hint {n}"}
        | {"decoded_image": {"bytes": b"image %d" % n, "path": None}}
        for n in range(5)
    ]
    path = root / "MathVista/testmini-00000-of-00001-725687bf7a18d64b.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_mathvista_from_the_hub(tmp_path: Path) -> None:
    parquet(tmp_path)
    write(tmp_path, "MathVista/images/3.jpg", "a file")
    records, bad = split(mathvista.MathVistaReader().read([tmp_path]))
    assert bad == []
    assert [(r.id, r.fields["query"]) for r in records] == [(str(n), f"Hint {n}") for n in range(5)]
    assert [r.meta["precision"] for r in records] == [None, 1, 1, 1, 1]
    images = [r.image.read() for r in records if r.image]
    assert images == [b"image 0", b"image 1", b"image 2", b"a file", b"image 4"]
    assert [r.image.name for r in records if r.image] == [f"images/{n}.jpg" for n in range(5)]


def test_a_cut_off_table_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="not a readable parquet table.*cut short"):
        list(mathvista.MathVistaReader().read([tmp_path]))


def test_a_table_that_is_lost_between_reading_and_asking(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    (first, *_), _ = split(mathvista.MathVistaReader().read([tmp_path]))
    path.write_bytes(b"gone")
    assert first.image is not None
    with pytest.raises(OSError, match="images/0.jpg cannot be read"):
        first.image.read()


def ai2d_files(root: Path) -> None:
    questions = {"What is A?": diagram(questionId="5.png-0"), "Which?": diagram(questionId="5.png-1", abcLabel=False)}
    write(root, "ai2d/questions/5.png.json", {"imageName": "5.png", "questions": questions})
    write(root, "ai2d/questions/6.png.json", {"imageName": "6.png", "questions": {}})
    write(root, "ai2d/ai2d_test_ids.csv", "5\n7\n")


def test_ai2d_from_the_release(tmp_path: Path) -> None:
    ai2d_files(tmp_path)
    (first, second), (bad,) = split(ai2d.Ai2dReader().read([tmp_path]))
    assert (first.id, first.target, first.fields["options"]) == ("5.png-0", "C", "A. ear\nB. eye\nC. nose\nD. fin\n")
    assert [r.image.name for r in (first, second) if r.image] == ["abc_images/5.png", "images/5.png"]
    assert "there is no" in bad.reason
    assert "7.png.json" in bad.reason


@pytest.mark.parametrize("folder", ["ai2d/ai2d_images", "ai2d"])
def test_ai2d_from_the_list_and_where_its_images_lie(tmp_path: Path, folder: str) -> None:
    item = {"imageName": "5.png", "question": "What is A?", "metadata": diagram(questionId="5.png-0")}
    write(tmp_path, "ai2d/ai2d_test.json", [item, {**item, "imageName": 5}, {**item, "metadata": None}, "?"])
    for name in ("images", "abc_images"):
        write(tmp_path, f"{folder}/{name}/5.png", name)
    (record,), bad = split(ai2d.Ai2dReader().read([tmp_path]))
    assert record.image is not None
    assert record.image.read() == b"abc_images"
    assert len(bad) == 3


def test_ai2d_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)ai2d/questions.*ai2d/ai2d_test\.json"):
        list(ai2d.Ai2dReader().read([tmp_path]))


def test_hallusionbench(tmp_path: Path) -> None:
    blind = entry(category="VS", visual_input="0", figure_id="0", filename=None, gt_answer="0")
    write(tmp_path, "HallusionBench/HallusionBench.json", [entry(), blind, entry(), entry(gt_answer="2")])
    write(tmp_path, "HallusionBench/hallusion_bench/VD/video/19_2.PNG", "image")
    (first, second), bad = split(hallusionbench.HallusionBenchReader().read([tmp_path]))
    assert (first.id, first.target, first.group) == ("VD_video_19_2_0", "yes", "VD")
    assert (second.id, second.target, second.image) == ("VS_video_19_0_0", "no", None)
    assert first.image is not None
    assert (first.image.name, first.image.read()) == ("VD/video/19_2.png", b"image")
    assert first.meta["reference"] == "It is."
    assert "repeats id VD_video_19_2_0" in bad[0].reason
    assert "'gt_answer' should be 0 or 1, got '2'" in bad[1].reason
    records, _ = split(hallusionbench.HallusionBenchReader(text_only=False).read([tmp_path]))
    assert [r.id for r in records] == ["VD_video_19_2_0"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", ""])
def test_images_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path, "HallusionBench/HallusionBench.json", [entry(filename=name)])
    write(tmp_path, "mm-vet/mm-vet.json", {"v1_0": vet(imagename=name)})
    for reader in (hallusionbench.HallusionBenchReader, mmvet.MmVetReader):
        _, (bad,) = split(reader().read([tmp_path]))
        assert "expected the name of an image below" in bad.reason


PROMPTS = {
    "mm-vet": "What is x?",
    "qbench_dev": f"How is the light?\nA. Good\nB. Bad\nC. Medium\n\n{LETTER}",
    "mathvista_testmini": "Hint 0",
    "ai2d": f"What is A?\nA. ear\nB. eye\nC. nose\nD. fin\n\n{LETTER}",
    "hallusionbench": "Is it?",
}


@pytest.mark.parametrize("dataset", PROMPTS)
def test_declared_prompts(dataset: str, tmp_path: Path) -> None:
    write(tmp_path, "mm-vet/mm-vet.json", {"v1_0": vet()})
    write(tmp_path, "LLVisionQA-QBench/llvisionqa_dev.json", [candidate()])
    parquet(tmp_path)
    ai2d_files(tmp_path)
    write(tmp_path, "HallusionBench/HallusionBench.json", [entry()])
    benchmark = load_catalog().benchmarks[dataset]
    records, _ = load_records(benchmark, [tmp_path])
    assert benchmark.render(records[0].fields) == PROMPTS[dataset]
    declared = read_configuration([], [], EvalConfig)[0].declared(benchmark)
    assert (declared.num_beams, declared.max_new_tokens) == (3, 128)


FILES: dict[type[Reader], dict[str, Any]] = {
    mmvet.MmVetReader: {"mm-vet/mm-vet.json": {"v1_0": vet()}},
    qbench.QBenchReader: {"LLVisionQA-QBench/llvisionqa_dev.json": [candidate()]},
    mathvista.MathVistaReader: {"MathVista/testmini.json": {"7": problem()}, "MathVista/query.json": {"7": "Hint"}},
    ai2d.Ai2dReader: {
        "ai2d/questions/5.png.json": {"imageName": "5.png", "questions": {"What?": diagram(questionId="5.png-0")}},
        "ai2d/ai2d_test_ids.csv": "5\n",
    },
    hallusionbench.HallusionBenchReader: {"HallusionBench/HallusionBench.json": [entry()]},
}
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([]), st.just({}), st.just([[1]])
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    result = copy.copy(value)
    result[path[0]] = replaced(value[path[0]], path[1:], new)
    return result


@pytest.mark.parametrize("reader", FILES, ids=lambda r: r.__name__)
@settings(max_examples=examples(150))
@given(data=st.data())
def test_one_replaced_value(reader: type[Reader], data: st.DataObject, tmp_path: Path) -> None:
    """Records and named faults, or one message, whatever stands in a file."""
    damaged = data.draw(st.sampled_from(sorted(FILES[reader])))
    content = FILES[reader][damaged]
    content = replaced(content, data.draw(st.sampled_from(list(places(content)))), data.draw(VALUES))
    for name, original in FILES[reader].items():
        write(tmp_path, name, content if name == damaged else original)
    try:
        items = list(reader().read([tmp_path]))
    except DataError as error:
        assert str(tmp_path) in str(error)
        return
    assert all(isinstance(item, (Record, BadRecord)) for item in items)
