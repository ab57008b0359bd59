"""Our `datasets` hides the Hugging Face library of that name; other libraries must still work, in two processes too."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.test_pope_processes import ROOT
from tests.limits import LIMIT, free_port

PREPARE = """
import os
import sys
sys.path.append(sys.argv.pop())
from importlib.util import find_spec
import torch
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
loader = accelerator.prepare(torch.utils.data.DataLoader(list(range(8)), batch_size=2))
seen = accelerator.gather(torch.cat(list(loader)))
assert accelerator.num_processes == 2
assert sorted(seen.tolist()) == list(range(8)), seen
import datasets
assert datasets.__file__.startswith(sys.argv[1]), datasets.__file__
accelerator.wait_for_everyone()
sys.stdout.flush()
os._exit(0)  # tearing the process group down can abort a process that has done its work
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT
    )


def test_accelerate_prepares_a_loader_for_two_processes_with_the_library_installed(tmp_path: Path) -> None:
    stand_in = tmp_path / "site"
    (stand_in / "datasets").mkdir(parents=True)
    (stand_in / "datasets" / "__init__.py").write_text("class Dataset: ...\nclass IterableDataset: ...\n")
    (stand_in / "datasets-9.9.dist-info").mkdir()
    (stand_in / "datasets-9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: datasets\nVersion: 9.9\n"
    )
    script = ROOT / "outputs" / f"shadow_{tmp_path.name}.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n" + PREPARE)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]
    launcher += [f"--master_port={free_port()}"]
    try:
        done = run(*launcher, str(script), str(ROOT), str(stand_in))
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr[-3000:]


def test_members_of_the_hidden_library_are_explained() -> None:
    done = run("-c", "from datasets import load_dataset")
    assert done.returncode == 1
    assert "'datasets.load_dataset' does not exist: in this process 'datasets' is CoLLaVO's own package" in done.stderr
