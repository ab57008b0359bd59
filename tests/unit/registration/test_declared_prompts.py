"""The declarations of six benchmarks, run on small release files: what the model is asked, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.catalog import load_catalog
from pipeline.config import EvalConfig, read_configuration
from tests.reading import load_records

from .test_mme_files import release
from .test_questions_in_json import ROSETTA, gqa_question, problem, seed_file, seed_question, text_question, write
from .test_tables_with_images import row, table

LETTER = "Answer with the option's letter from the given choices directly."
WORD = "Answer the question using a single word or phrase."
PROMPTS = {
    "gqa_testdev_balanced": f"What color is the tall cup?\n{WORD}",
    "scienceqa_test": f"\nContext: Look.\nWhich one?\nA. this\nB. that\n{LETTER}",
    "textvqa_val": f"What is NASA?\nReference OCR token: NASA, 1,5\n{WORD}\n{WORD}",
    "mme": f"Is it a  cat?\n{WORD}",
    "mmbench": f"Hint here.\nWhat?\nA. one\nB. two\n{LETTER}",
    "mmbench_cn": "What?\nA. one\nB. two\n请直接回答选项字母。",
    "seed": f"How many?\nA. aa B. bb C. cc D. dd\n{LETTER}",
}
BEAMS_AND_TOKENS = {name: (3, 5 if name == "mme" else 128) for name in PROMPTS}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("data")
    write(root, "GQA/testdev_balanced_questions.json", {"1": gqa_question()})
    write(root, "ScienceQA/problems.json", {"1": problem()})
    write(root, "ScienceQA/pid_splits.json", {"test": ["1"]})
    write(root, "TextVQA/TextVQA_0.5.1_val.json", {"data": [text_question()]})
    write(root, "TextVQA/TextVQA_Rosetta_OCR_v0.2_val.json", ROSETTA)
    release(root)
    chinese = table(root, row(1))
    chinese.rename(chinese.with_name("mmbench_dev_cn_20231003.tsv"))
    table(root, row(1, hint="Hint here."))
    seed_file(root, seed_question("1"))
    return [root]


@pytest.mark.parametrize("dataset", PROMPTS)
def test_prompt_and_generation(dataset: str, roots: list[Path]) -> None:
    benchmark = load_catalog().benchmarks[dataset]
    records, bad = load_records(benchmark, roots)
    assert bad == []
    assert benchmark.render(records[0].fields) == PROMPTS[dataset]
    declared = read_configuration([], [], EvalConfig)[0].declared(benchmark)
    assert (declared.num_beams, declared.max_new_tokens) == BEAMS_AND_TOKENS[dataset]
