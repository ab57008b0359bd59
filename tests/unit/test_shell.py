"""The shell front: help that is true, arguments passed through, an installation that is done once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.limits import LIMIT

SCRIPTS = ("run", "install", "tests/run", ".ci/run", "assets/environment.sh", "docs/slurm.sh")


def bash(*words: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("GPU_DEVICE", "NUM_PROCESSES", "ACCEL_CONFIG", "MAIN_PORT")}
    env |= {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables
    if path is not None:
        env["PATH"] = f"{path}:{env['PATH']}"
    return subprocess.run(["bash", *words], env=env, capture_output=True, text=True, check=False, timeout=LIMIT)


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax_and_strict_mode(script: str) -> None:
    assert bash("-n", str(ROOT / script)).returncode == 0
    if not script.endswith(".sh"):
        assert "set -euo pipefail" in (ROOT / script).read_text()


@pytest.mark.parametrize("script", ["run", "install"])
def test_help_names_every_variable_and_option_that_is_read(script: str) -> None:
    shown = bash(str(ROOT / script), "--help").stdout
    text = (ROOT / script).read_text()
    for word in (
        "GPU_DEVICE",
        "NUM_PROCESSES",
        "MAIN_PORT",
        "ACCEL_CONFIG",
        "TORCH_SPEC",
        "--extras",
        "--test",
        "--cpu",
        "--locked",
    ):
        assert (word in shown) == (word in text.partition("EOT\n}")[2]) or script == "run" and word.startswith("--")


def test_unknown_options_and_extras_are_refused() -> None:
    done = bash(str(ROOT / "install"), "--gpu")
    assert (done.returncode, "unknown option '--gpu'" in done.stderr) == (2, True)
    done = bash(str(ROOT / "install"), "--extras", "flashattn")
    assert (done.returncode, "no extra 'flashattn'" in done.stderr) == (2, True)
    done = bash(str(ROOT / "install"), "--extras", "detectron2")
    assert (done.returncode, "on no package index" in done.stderr) == (2, True)
    assert "setuptools below 80" in done.stderr and "torchvision that belongs to the installed torch" in done.stderr


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder with a `python` that only writes down how it was called."""
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    wanted = ["torch==2.13.0", *(ROOT / "assets" / "requirements" / "base.txt").read_text().splitlines()]
    (prefix / "collavo_installed.txt").write_text("\n".join(wanted) + "\n")
    launched = 'echo "python $* CUDA=${CUDA_VISIBLE_DEVICES:-}"'
    other = f'*sys.prefix*) echo {prefix};; *version_info*) ;; *) echo "python $*";;'
    body = f'case "$*" in *assets/launch.py*) {launched};; {other} esac'
    (tmp_path / "python").write_text(f"#!/usr/bin/env bash\n{body}\n")
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def test_arguments_pass_through_and_variables_choose(stand_ins: Path) -> None:
    done = bash(
        str(ROOT / "run"), "eval", "--overrides", "A B", "1e-5", path=stand_ins, NUM_PROCESSES="3", MAIN_PORT="77"
    )
    assert done.returncode == 0, done.stderr
    checked, launched = done.stdout.splitlines()[-2:]
    assert checked == f"python {ROOT}/lbk_entry.py eval --overrides A B 1e-5 --check"
    assert launched.startswith(f"python {ROOT}/assets/launch.py --config_file")
    assert f"--num_processes 3 --main_process_port 77 {ROOT}/lbk_entry.py eval --overrides A B 1e-5" in launched


def test_gpu_device_sets_devices_and_processes(stand_ins: Path) -> None:
    (stand_ins / "nvidia-smi").write_text("#!/usr/bin/env bash\necho 'GPU 0: stand-in'\n")
    (stand_ins / "nvidia-smi").chmod(0o755)
    wanted = ["torch", *(ROOT / "assets" / "requirements" / "base.txt").read_text().splitlines()]
    (stand_ins / "prefix" / "collavo_installed.txt").write_text("\n".join(wanted) + "\n")
    done = bash(str(ROOT / "run"), "eval", path=stand_ins, GPU_DEVICE="2,5,7")
    assert "ddp_accel.yaml --num_processes 3" in done.stdout
    assert "CUDA=2,5,7" in done.stdout


def test_under_slurm_each_machine_has_a_launcher_with_its_rank(tmp_path: Path) -> None:
    bodies = {
        "scontrol": 'test "$*" = "show hostnames node[1-2]"; echo node1; echo node2',
        "srun": f'shift; export PATH="{tmp_path}:$PATH"; for n in 0 1; do SLURM_NODEID=$n "$@"; done',
        "accelerate": 'printf "%s\\n" "$*"',
    }
    for name, body in bodies.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\nset -eu\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "41234", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    words = ("eval", "--overrides", "NAME", "a b")
    done = bash(str(ROOT / "docs/slurm.sh"), *words, path=tmp_path, SLURM_GPUS_ON_NODE="4", **job)
    assert done.returncode == 0, done.stderr
    for rank, line in enumerate(done.stdout.splitlines()):
        launcher, _, entry = line.partition(" lbk_entry.py ")
        assert launcher == (
            f"launch --config_file configs/accel/multi_node_accel.yaml --machine_rank {rank} --num_machines 2"
            " --num_processes 8 --main_process_ip node1 --main_process_port 21234"
        )
        assert entry == "eval --overrides NAME a b"
    assert len(done.stdout.splitlines()) == 2


def test_commands_without_a_model_need_no_launcher(stand_ins: Path) -> None:
    for words in (["list"], ["validate", "pope_test"], ["eval", "--print-config"]):
        done = bash(str(ROOT / "run"), *words, path=stand_ins)
        assert done.stdout.splitlines()[-1] == f"python {ROOT}/lbk_entry.py {' '.join(words)}"


def stamp_of(stand_ins: Path) -> Path:
    return stand_ins / "prefix" / "collavo_installed.txt"


def installed(stand_ins: Path, *options: str) -> list[str]:
    """What an installation asks of pip."""
    done = bash(str(ROOT / "install"), *options, path=stand_ins)
    assert done.returncode == 0, done.stderr
    asked = [line.split(" install ", 1)[1] for line in done.stdout.splitlines() if " -m pip install " in line]
    return [line.replace("--quiet --disable-pip-version-check ", "") for line in asked]


@pytest.mark.parametrize(("options", "kind", "torch"), [(["--cpu"], "cpu", "torch==2.13.0"), ([], "cuda", "torch")])
def test_a_locked_installation_is_constrained_and_another_one(
    options: list[str], kind: str, torch: str, stand_ins: Path
) -> None:
    stamp_of(stand_ins).unlink()
    files = ROOT / "assets" / "requirements"
    lock = f"-c {files}/locked-{kind}.txt"
    assert installed(stand_ins, *options) == [torch, f"-r {files}/base.txt"]
    constrained = [f"{lock} {torch}", f"{lock} -r {files}/base.txt", f"{lock} -r {files}/test.txt"]
    assert installed(stand_ins, *options, "--locked", "--test") == constrained
    for covered in (["--locked"], ["--locked", "--test"], [], ["--test"]):
        assert installed(stand_ins, *options, *covered) == []
    # what came without the lock may have moved what was locked
    assert installed(stand_ins, *options, "--extras", "flash-attn")
    assert installed(stand_ins, *options, "--locked", "--test") == constrained


def test_a_lock_that_changed_or_of_another_build_is_another_one(stand_ins: Path) -> None:
    assert installed(stand_ins, "--cpu", "--locked") and not installed(stand_ins, "--cpu", "--locked")
    stamp = stamp_of(stand_ins)
    stamp.write_text(re.sub(r"^locked \d+", "locked 1", stamp.read_text(), flags=re.MULTILINE))
    assert installed(stand_ins, "--cpu", "--locked")
    assert "locked 1:" not in stamp.read_text()
    assert installed(stand_ins, "--locked") and installed(stand_ins, "--cpu", "--locked")


def test_locked_files_are_no_extras(stand_ins: Path) -> None:
    for name in ("locked-cpu", "base", "test"):
        done = bash(str(ROOT / "install"), "--extras", name, path=stand_ins)
        assert (done.returncode, f"no extra '{name}'" in done.stderr) == (2, True)


def test_a_second_installation_does_nothing(stand_ins: Path) -> None:
    done = bash(str(ROOT / "install"), "--cpu", path=stand_ins)
    assert (done.returncode, done.stdout) == (0, "")
    (stand_ins / "prefix" / "collavo_installed.txt").write_text("torch==2.13.0\n")
    assert "installing CoLLaVO's requirements" in bash(str(ROOT / "install"), "--cpu", path=stand_ins).stdout
