"""Benchmarks that a user's files declare: found, checked, configurable, and kept with the run's configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configs.load import ConfigError
from pipeline.catalog import load_catalog
from pipeline.config import EvalConfig, read_configuration

DECLARATION = """\
data: {reader: seed, root: Mine}
prompt: "{question}"
scorer: {kind: choice, rule: lenient}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_declaration_among_the_configuration_files(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.yaml", DECLARATION)
    config, catalog = read_configuration([file, "configs/vl_test.yaml"], ["MINE.TEST.NUM_BEAMS", "1"], EvalConfig)
    mine = catalog.select("mine")[0]
    assert (mine.name, mine.section, mine.scorer, mine.source) == ("mine", "MINE", "choice", str(file))
    assert (mine.num_beams, mine.max_new_tokens) == (1, 128)
    assert config.declared(mine).num_beams == 1
    assert read_configuration([file], [], EvalConfig)[0].declared(mine).num_beams == 3, "CoLLaVO's"
    assert config.sections["POPE"].TEST.BATCH_SIZE_TOTAL == 24


def test_declarations_inside_a_configuration_and_below_its_base(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", yaml.safe_dump({"BENCHMARKS": {"one": yaml.safe_load(DECLARATION)}, "NAME": "base"}))
    more = {"_BASE_": "base.yaml", "BENCHMARKS": {"my-two": yaml.safe_load(DECLARATION)}, "NAME": "above"}
    file = write(tmp_path, "more.yaml", yaml.safe_dump(more))
    config, catalog = read_configuration([file], [], EvalConfig)
    assert config.NAME == "above"
    assert catalog.select("one,my-two")[1].section == "MY_TWO"
    saved = write(tmp_path, "saved.yaml", config.resolved_yaml)
    again, same = read_configuration([saved], [], EvalConfig)
    assert same.benchmarks["my-two"].data == catalog.benchmarks["my-two"].data
    assert again.resolved_yaml == config.resolved_yaml


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("pope_test.yaml", DECLARATION, "the dataset 'pope_test' is declared twice"),
        ("x.yaml", DECLARATION + "promt: x\n", "x.yaml: unknown key 'promt'; did you mean prompt?"),
        ("x.yaml", DECLARATION.replace("prompt", "promt"), "lacks `prompt` ('promt' may be meant as prompt). A bench"),
        ("x.yaml", DECLARATION.replace("data:", "Data:"), "lacks `data` ('Data' may be meant as data). A benchmark"),
        ("x.yaml", "name: x\ndata: {file: a.tsv}\nscorer: choice\n", "looks like a benchmark but lacks `prompt`. A"),
        ("x.yaml", "name: x\nprompt: q\nscorer: choice\n", "x.yaml: looks like a benchmark but lacks `data`."),
        ("x.yaml", "data: {file: a.tsv}\nprompt: q\n", "x.yaml: looks like a benchmark but lacks `scorer`."),
        ("x.yaml", "name: x\ntitle: X\n", "looks like a benchmark but lacks `data`, `prompt`, `scorer`."),
        ("x.yaml", "BENCHMARKS: [1]\n", "BENCHMARKS takes declarations by name"),
        ("x.yaml", "BENCHMARKS: {y: {data: {}, prompt: q}}\n", "x.yaml, BENCHMARKS.y: missing key scorer"),
        ("llm.yaml", DECLARATION, "a benchmark's section cannot be called LLM"),
    ],
)
def test_mistakes_in_declarations_name_their_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_configuration([write(tmp_path, name, text)], [])


def test_all_names_every_benchmark_of_the_model_once() -> None:
    catalog = load_catalog()
    assert [b.dataset for b in catalog.select("mme, all,pope_test")][0] == "mme"
    assert sorted(b.dataset for b in catalog.select("all")) == sorted({*catalog.benchmarks} - {"coco_panoptic_val"})
    assert len(catalog.select("all,all")) == len(catalog.benchmarks) - 1
    assert len(catalog.select("all,coco_panoptic_val")) == len(catalog.benchmarks)


def test_released_scoring_changes_only_what_the_release_did_otherwise() -> None:
    config, catalog = read_configuration([], ["SCORING", "released"], EvalConfig)
    official, _ = read_configuration([], [], EvalConfig)
    changed = {
        name: config.declared(benchmark).scoring["rule"]
        for name, benchmark in catalog.benchmarks.items()
        if config.declared(benchmark) != official.declared(benchmark)
    }
    assert changed == {
        "ai2d": "ai2d_released",
        "hallusionbench": "hallusion_released",
        "pope_test": "pope_released",
        "qbench_dev": "qbench_released",
        "scienceqa_test": "scienceqa_released",
        "seed": "seed_released",
    }
    assert {config.declared(catalog.benchmarks[name]).rules for name in changed} == {"released"}
