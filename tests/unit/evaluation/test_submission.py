"""Files for the evaluation servers, read back with another reader."""

from __future__ import annotations

import json
from pathlib import Path

import openpyxl

from datasets.evaluation import circular, gqa, vqa_accuracy
from datasets.evaluation.registry import SCORERS
from datasets.evaluation.submission import GQA, MMBENCH, TEXTVQA, write_submission
from datasets.types import Record, Scored


def test_gqa_submission_is_converted(tmp_path: Path) -> None:
    record = Record(id="201307251", image=None, fields={}, target=None)
    scored = Scored(record=record, text="Yes.", score=gqa.GqaScorer().score(record, "Yes."))
    path = write_submission(GQA, [scored], tmp_path / "new")
    assert json.loads(path.read_text(encoding="utf-8")) == [{"questionId": "201307251", "prediction": "yes"}]


def test_textvqa_submission_has_numbers_as_ids_and_raw_answers(tmp_path: Path) -> None:
    record = Record(id="34602", image=None, fields={}, target=None)
    score = vqa_accuracy.VqaAccuracyScorer().score(record, "The Café")
    path = write_submission(TEXTVQA, [Scored(record=record, text="The Café", score=score)], tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == [{"question_id": 34602, "answer": "The Café"}]


def test_mmbench_submission_is_a_spreadsheet_of_all_passes(tmp_path: Path) -> None:
    texts = {"7": "B", "1000007": "=1+1", "2000007": "a\x07 \ntwo"}
    scored = []
    for key, text in texts.items():
        meta = {"options": {"A": "None", "B": "二"}, "question": 7, "pass": 0, "split": "test"}
        record = Record(id=key, image=None, fields={"question": "What?"}, target=None, meta=meta)
        scored.append(Scored(record=record, text=text, score=circular.CircularScorer().score(record, text)))
    path = write_submission(MMBENCH, scored, tmp_path)
    rows = list(openpyxl.load_workbook(path).worksheets[0].iter_rows(values_only=True))
    assert rows == [
        ("index", "question", "A", "B", "C", "D", "prediction", "split"),
        (7, "What?", "None", "二", None, None, "B", "test"),
        (1000007, "What?", "None", "二", None, None, "=1+1", "test"),
        (2000007, "What?", "None", "二", None, None, "a \ntwo", "test"),
    ]
    assert openpyxl.load_workbook(path).worksheets[0]["G3"].data_type == "s"


def test_four_scorers_have_a_server() -> None:
    files = {name: scorer.submission.file for name, scorer in SCORERS.items() if scorer.submission is not None}
    assert files == {
        "circular": "mmbench_submission.xlsx",
        "gqa": "gqa_predictions.json",
        "panoptic_quality": "panoptic.json",
        "vqa_accuracy": "textvqa_submission.json",
    }
