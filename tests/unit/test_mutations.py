"""The list of mutations agrees with the code, and a mutation that no test notices is reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.limits import LIMIT
from tests.mutants import chosen, mutated
from tests.mutations import MUTATIONS, Mutation

LEAST = 60


def test_every_text_stands_in_its_file_once_and_its_tests_exist() -> None:
    assert len(MUTATIONS) >= LEAST
    for mutation in MUTATIONS:
        assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1, mutation
        assert mutation.new != mutation.old
        assert all((ROOT / name.partition("::")[0]).exists() for name in mutation.tests.split()), mutation
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS)


def test_a_mutation_is_made_and_taken_back(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\n")
    change = Mutation(file="code.py", old="1", new="2", tests="test_code.py")
    with mutated(tmp_path, change):
        assert (tmp_path / "code.py").read_text() == "a = 2\n"
    assert (tmp_path / "code.py").read_text() == "a = 1\n"
    for text in ("b = 2\n", "a = 11\n"):
        (tmp_path / "code.py").write_text(text)
        with pytest.raises(LookupError, match="code.py: stands there [02] times"), mutated(tmp_path, change):
            pass


def test_slices_are_all_mutations_once() -> None:
    parts = [chosen(MUTATIONS, "", f"{number}/3") for number in (1, 2, 3)]
    assert sorted(map(repr, MUTATIONS)) == sorted(repr(m) for part in parts for m in part)
    assert {m.file for m in chosen(MUTATIONS, "collavo/engine.py", "1/1")} == {"collavo/engine.py"}


TRIED = """
import sys
from pathlib import Path
from tests import mutants
from tests.mutations import Mutation

mutants.LIBRARIES = ()
code = "import code_under_test"
changes = [
    Mutation(file="code_under_test.py", old="x > 0", new=new, tests="test_it.py") for new in ("x < 0", "x >= 0", "x >")
]
gone = Mutation(file="code_under_test.py", old="y > 0", new="y", tests="test_it.py")
sys.exit(mutants.main(sys.argv[2:], [*changes, gone], Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_survivors_and_texts_that_are_gone_are_reported(tmp_path: Path) -> None:
    (tmp_path / "code_under_test.py").write_text("def positive(x):\n    return x > 0\n")
    (tmp_path / "test_it.py").write_text(
        "from code_under_test import positive\n\ndef test_it():\n    assert positive(1)\n    assert not positive(-1)\n"
    )
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def tried(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", TRIED, str(tmp_path), *words]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)

    done = tried()
    said = [line.split(":")[0] for line in done.stdout.splitlines() if line[:1].isdigit() and "/4 " in line]
    assert said == ["1/4 killed", "2/4 survived", "3/4 no verdict", "4/4 gone"], done.stdout + done.stderr
    assert done.returncode == 1 and "1 of 4 mutations are killed" in done.stdout
    assert (tmp_path / "code_under_test.py").read_text().endswith("return x > 0\n")
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert False\n")
    done = tried()
    assert done.returncode == 1 and "the tests fail without any mutation" in done.stdout
