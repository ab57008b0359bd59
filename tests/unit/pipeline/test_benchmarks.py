"""The pipeline's name follows from the dataset, is known with and without its prefix, and must fit the dataset."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.base import BenchmarkPipeline
from pipeline.benchmarks import CoLLaVOPOPEPipeline, pipeline_classes, select_pipeline
from pipeline.catalog import load_catalog
from pipeline.runtime.errors import RunError
from tests.robustness.toy import DECLARATION

ROOT = Path(__file__).resolve().parents[3]
POPE = replace(DECLARATION, name="pope", dataset="pope_test", pipeline="CoLLaVOPOPEPipeline")


@pytest.mark.parametrize("name", [None, "", "CoLLaVOPOPEPipeline", "POPEPipeline"])
def test_pope_is_found_by_all_its_names(name: str | None) -> None:
    assert type(select_pipeline(name, POPE)) is CoLLaVOPOPEPipeline


def test_a_benchmark_without_a_class_runs_with_the_common_one() -> None:
    assert type(select_pipeline("", DECLARATION)) is BenchmarkPipeline
    assert type(select_pipeline("BenchmarkPipeline", POPE)) is BenchmarkPipeline


def test_an_unknown_name_shows_the_nearest() -> None:
    with pytest.raises(RunError, match="no 'CoLLaVOPOPPipeline'; did you mean CoLLaVOPOPEPipeline"):
        select_pipeline("CoLLaVOPOPPipeline", POPE)


def test_a_class_of_another_benchmark_is_an_error() -> None:
    with pytest.raises(RunError, match="runs the benchmark pope, but DATASETS.TEST is toy_test"):
        select_pipeline("POPEPipeline", DECLARATION)
    with pytest.raises(RunError, match="set it to CoLLaVOPOPEPipeline"):
        select_pipeline("MMEPipeline", POPE)


def test_every_declaration_names_a_class_that_is_there_and_fits() -> None:
    for declaration in load_catalog().benchmarks.values():
        assert type(select_pipeline("", declaration)).__name__ == (declaration.pipeline or "BenchmarkPipeline")
    names = {declaration.name for declaration in load_catalog().benchmarks.values()}
    assert {kind.benchmark for kind in pipeline_classes().values()} <= names


def test_planning_a_run_loads_no_torch() -> None:
    code = "import sys, pipeline.run.plan; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
