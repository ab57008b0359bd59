"""What results say of versions: those that were tried are in the constraint files, and a difference is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.runtime import provenance as about
from tests.fixtures import ROOT

REQUIREMENTS = ROOT / "assets" / "requirements"
LOCKS = ["locked-cpu.txt", "locked-cuda.txt"]


def required(file: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (REQUIREMENTS / file).read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(one.name): one for one in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_required_is_pinned_within_its_range(lock: str) -> None:
    pins = required(lock)
    for file in ("base.txt", "test.txt", "deepspeed.txt"):
        for name, wanted in required(file).items():
            (pin,) = pins[name].specifier
            assert pin.operator == "==", name
            assert wanted.specifier.contains(pin.version.removesuffix(".*") + ".0" * pin.version.endswith(".*")), name


@pytest.mark.parametrize("lock", LOCKS)
def test_the_packages_that_move_scores_have_a_tried_version(lock: str) -> None:
    tried = about.tried_versions(REQUIREMENTS / lock)
    assert set(tried) == set(about.PACKAGES)
    assert all(re.fullmatch(r"[\d.]+(\.\*)?", version) for version in tried.values())


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert about.tried_versions(tmp_path / "locked-cpu.txt") == {}


@pytest.mark.parametrize(
    ("found", "tried", "differs"),
    [
        ("2.13.0+cpu", "2.13.0", False),
        ("2.13.0", "2.13.0", False),
        ("2.13.1", "2.13.0", True),
        ("2.11.0+cu130", "2.11.*", False),
        ("2.11.4", "2.11.*", False),
        ("2.110.0", "2.11.*", True),
        ("2.12.0", "2.11.*", True),
    ],
)
def test_versions_differ_by_number_and_not_by_build(found: str, tried: str, differs: bool) -> None:
    assert about.untried_versions({"torch": found}, {"torch": tried, "peft": "1.0"}) == (
        {"torch": tried} if differs else {}
    )


def test_the_difference_is_one_short_line() -> None:
    found = {"python": "3.11.7", "torch": "2.14.0", "numpy": "2.4.6", "pillow": "12.0.0"}
    tried = about.untried_versions(found, {"torch": "2.13.0", "numpy": "2.4.6", "pillow": "13.0.0"})
    assert about.difference_in_words({"versions": found, "tried_versions": tried}) == (
        "versions other than those tried: torch 2.14.0 (tried: 2.13.0), pillow 12.0.0 (tried: 13.0.0)"
    )
    assert about.difference_in_words({"versions": found, "tried_versions": {}}) == ""
    assert about.difference_in_words({}) == ""


@pytest.mark.parametrize(("cuda", "lock"), [("'13.0'", "locked-cuda.txt"), ("None", "locked-cpu.txt")])
def test_the_build_of_torch_decides_which_versions_count(
    cuda: str, lock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(f"debug = False\ncuda: Optional[str] = {cuda}\nhip = '1'\n")

    class Torch:
        locate_file = staticmethod(tmp_path.joinpath)

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Torch)
    assert about.tried_versions() == about.tried_versions(REQUIREMENTS / lock)
