"""The check on a GPU, tried on the CPU: its cheap stages, and that a stage which fails or hangs costs itself alone."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu import main as script
from tests.gpu import stages
from tests.gpu.stages import STAGES, Found

CPU = torch.device("cpu")
WRITE = "import json,sys;json.dump({'ok': %s, 'skipped': %s, 'figures': {'a': 1}, 'reason': %r},open(sys.argv[1],'w'))"


@pytest.mark.parametrize("name", ["plora", "nf4", "attention"])
def test_cheap_stages_pass_on_the_cpu(name: str) -> None:
    found = STAGES[name](CPU, True)
    if found.skipped:
        pytest.skip(found.reason)
    assert found.ok, found.reason
    assert any(isinstance(figure, dict) and "allowed" in figure for figure in found.figures.values())


def test_a_wrong_number_fails_its_stage() -> None:
    found = Found()
    found.compare("same", torch.ones(3), torch.ones(3), 1e-6)
    assert found.ok
    found.compare("other", torch.ones(3), torch.tensor([1.0, 1.0, 1.1]), 1e-2)
    found.compare("nan", torch.full((3,), float("nan")), torch.ones(3), 1e-2)
    found.compare("shape", torch.ones(2), torch.ones(3), 1e-2)
    assert not found.ok
    assert found.reason.startswith("other differs by 0.09")
    assert [found.figures[name]["difference"] <= 1e-2 for name in ("nan", "shape")] == [False, False]


def test_stages_without_golden_data_skip_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stages, "fixtures_root", lambda: tmp_path)
    for name in ("plora", "collavo", "xdecoder"):
        found = STAGES[name](CPU, True)
        assert found.skipped
        assert str(tmp_path / name.replace("plora", "collavo")) in found.reason


@pytest.mark.slow
def test_a_stage_that_fails_or_hangs_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "good": WRITE % (True, False, ""),
        "wrong": WRITE % (False, False, "x differs"),
        "skipped": WRITE % (True, True, "no data"),
        "raises": "raise SystemExit('went down')",
        "silent": "pass",
        "hangs": "import time; print('begun', flush=True); time.sleep(600)",
        "last": WRITE % (True, False, ""),
    }
    monkeypatch.setattr(script, "LIMITS", {"hangs": 3} | {name: 120 for name in programs if name != "hangs"})
    outcomes = script.run_all(list(programs), lambda name, file: [sys.executable, "-c", programs[name], str(file)])
    assert {outcome.name: outcome.status for outcome in outcomes} == {
        "good": "passed",
        "wrong": "failed",
        "skipped": "skipped",
        "raises": "failed",
        "silent": "failed",
        "hangs": "timeout",
        "last": "passed",
    }
    reasons = {outcome.name: outcome.reason for outcome in outcomes}
    assert reasons["raises"] == "went down"
    assert reasons["wrong"] == "x differs"
    assert reasons["hangs"].startswith("over 3 s")


def test_nothing_begins_after_the_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "TOTAL", 0)
    (outcome,) = script.run_all(["plora"], lambda name, file: [sys.executable, "-c", "raise SystemExit(1)"])
    assert outcome.status == "not begun"


def test_the_script_writes_one_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = script.Outcome(name="plora", status="passed", seconds=1.0, figures={"a": 1})
    monkeypatch.setattr(script, "run_all", lambda *_: [told])
    assert script.main(["--device", "cpu", "--small", "--out", str(tmp_path / "gpu.json"), "--stages", "plora"]) == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["device"] == "cpu"
    assert written["stages"]["plora"]["figures"] == {"a": 1}
    assert set(script.LIMITS) == set(STAGES)
