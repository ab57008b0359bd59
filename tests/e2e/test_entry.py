"""The entry's quick commands: true, quick, without torch, without tracebacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets.tiny.random_checkpoint import make_tiny
from assets.tiny.world import write_world
from tests.e2e.test_pope_processes import ROOT
from tests.limits import LIMIT, free_port
from tests.warm import WarmProcess, start_warm

GUARD = """
import sys, runpy
sys.argv[0] = "lbk_entry.py"
code = 0
try:
    runpy.run_path("lbk_entry.py", run_name="__main__")
except SystemExit as end:
    code = end.code
assert "torch" not in sys.modules, "torch was loaded"
sys.exit(code)
"""


def entry(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", GUARD, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=LIMIT)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world") / "data"
    write_world(directory, seed=3, scenes=4, size=56)
    return directory


def test_help_lists_what_works() -> None:
    done = entry("--help")
    assert done.returncode == 0
    assert (
        "{eval,show,segment,maps,score,list,validate,ask,demo,report,compare,train,merge,describe,keys}" in done.stdout
    )


def test_list_names_datasets_classes_and_segmenters() -> None:
    done = entry("list")
    assert done.returncode == 0, done.stderr
    for name in ("pope_test", "CoLLaVOPOPEPipeline", "HALLUSIONBENCH", "mask2former", "precomputed"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evla"], "there is no command 'evla'; did you mean eval?"),
        (["train"], "RESUME_FROM: set it"),
        (["train", "--overrides", "TRAIN.STAGE", "sft"], "TRAIN.STAGE: 'sft' is not one of cpt, cit"),
        (["train", "--overrides", "TRAIN.LR", "fast"], "TRAIN.LR: expected a number, got 'fast'"),
        (["train", "--overrides", "TRAIN.WARMUP", "2"], "TRAIN.WARMUP: must be from 0 to below 1"),
        (["eval", "--overrides", "WANDB"], "'WANDB' has no value"),
        (["eval", "--overrides", "LLM.BITZ", "4"], "did you mean LLM.BITS"),
        (["eval", "--overrides", "RESUME_FROM", "x"], "DATASETS.TEST names no dataset"),
        (["eval", "--overrides", "DATASETS.TEST", "pope_test"], "RESUME_FROM: set it"),
        (["eval", "--overrides", "DATASETS.TEST", "pope_tets", "RESUME_FROM", "x"], "did you mean pope_test"),
        (["eval", "--conf_files", "nowhere.yaml"], "nowhere.yaml not found"),
        (["eval", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["validate", "mne"], "did you mean mme"),
    ],
)
def test_mistakes_give_one_message_and_exit_2(words: list[str], message: str) -> None:
    done = entry(*words)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_is_checked_without_torch(world: Path, tmp_path: Path) -> None:
    """What its headers and its settings show is said before any process starts."""
    make_tiny(tmp_path / "tiny", seed=0)
    asked = ("DATASETS.TEST", "pope_test", "DATASETS.ROOT", world, "RESUME_FROM")
    shipped = ROOT / "assets" / "tiny" / "collavo"
    assert entry("eval", "--check", "--overrides", *asked, shipped).returncode == 0
    for words, message in (
        (
            (shipped, "CRAYON.OBJECT_LIST", "True"),
            "CRAYON.OBJECT_LIST: True is asked for, False is what it was trained",
        ),
        ((tmp_path / "gone",), "gone does not exist"),
        (("BK-Lee/CoLLaVO",), "looks like a name on the Hugging Face hub"),
        ((tmp_path,), "is no checkpoint: it has neither config.json nor state.json"),
    ):
        done = entry("eval", "--check", "--overrides", *asked, *words)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr and "Traceback" not in done.stderr
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = entry("eval", "--check", "--overrides", *asked, tmp_path / "tiny")
    assert done.returncode == 2
    assert "model.safetensors: not a readable weight file" in done.stderr


def test_existing_scripts_pass_every_section_and_both_class_names(world: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    make_tiny(checkpoint, seed=0)
    names = [
        *("GQA", "SCIENCEQA", "TEXTVQA", "POPE", "MME", "MMBENCH", "MMVET"),
        *("QBENCH", "MATHVISTA", "AI2D", "SEED"),
    ]
    names.append("HALLUSIONBENCH")
    sizes = [word for name in names for word in (f"{name}.TEST.BATCH_SIZE_TOTAL", "6")]
    for pipeline in ("POPEPipeline", "CoLLaVOPOPEPipeline"):
        done = entry(
            *("eval", "--check", "--conf_files", "configs/collavo_step2.yaml", "--overrides", "WANDB", "False"),
            *("DATASETS.TEST", "pope_test", "PIPELINE", pipeline, *sizes, "SAVE_DIR", tmp_path / "out"),
            *("WEIGHT", "True", "RESUME_FROM", checkpoint, "DATASETS.ROOT", world, "SEGMENTER.NAME", "none"),
        )
        assert done.returncode == 0, done.stderr
    wrong = ["DATASETS.TEST", "pope_test", "PIPELINE", "MMEPipeline", "RESUME_FROM", checkpoint, "DATASETS.ROOT", world]
    done = entry("eval", "--check", "--overrides", *wrong)
    assert done.returncode == 2
    assert "runs the benchmark mme" in done.stderr


def test_a_segmenter_that_is_not_here_is_said_at_once(
    world: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    given = ("DATASETS.TEST", "pope_test", "RESUME_FROM", tiny, "DATASETS.ROOT", world)
    for command in ("eval", "show"):
        done = entry(command, *(["--check"] if command == "eval" else []), "--overrides", *given)
        assert done.returncode == 2
        assert "SEGMENTER.PATH: Mask2Former 'facebook/" in done.stderr and len(done.stderr.splitlines()) == 1


def test_print_config_is_complete_yaml() -> None:
    done = entry("eval", "--print-config", "--overrides", "POPE.TEST.NUM_BEAMS", "2")
    assert done.returncode == 0
    assert "NUM_BEAMS: 2" in done.stdout


def test_validate_checks_a_folder_from_any_working_directory(world: Path) -> None:
    done = entry("validate", "pope_test", "--overrides", "DATASETS.ROOT", world)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images: 4, questions without one: 0" in done.stdout
    assert "| Answer the question using a single word or phrase." in done.stdout


def test_validate_names_what_is_missing(world: Path, tmp_path: Path) -> None:
    done = entry("validate", "pope_test", "--overrides", "DATASETS.ROOT", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "POPE" / "coco_pope_random.json") in done.stdout
    (tmp_path / "POPE").symlink_to(world / "POPE")
    done = entry("validate", "pope_test", "--overrides", "DATASETS.ROOT", tmp_path)
    assert done.returncode == 1
    assert "MISSING images: 4" in done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny") / "checkpoint"
    make_tiny(directory, seed=0)
    return directory


@pytest.mark.parametrize(
    ("file", "processes"),
    [("cpu_accel.yaml", 1), ("cpu_accel.yaml", 2), ("ddp_accel.yaml", 2), ("multi_node_accel.yaml", 2)],
)
def test_launch_files_start_the_processes_they_name(
    file: str, processes: int, world: Path, tiny: Path, tmp_path: Path
) -> None:
    """Without any variable set: Accelerate alone would start two processes that do not know of each other.

    The one of the CPU in interpreters of their own, as users start them; the others in forked processes.
    """
    port = str(free_port())
    nodes = 2 if file.startswith("multi") else 1
    panoptic = world / "coco_panoptic"
    running: list[subprocess.Popen[str] | WarmProcess] = []
    for rank in range(nodes):
        where = ["--machine_rank", str(rank), "--main_process_ip", "127.0.0.1"] if nodes > 1 else []
        command = ["-m", "accelerate.commands.launch", "--config_file", f"configs/accel/{file}"]
        command += ["--num_processes", str(processes), "--main_process_port", port, *where, "lbk_entry.py", "eval"]
        command += ["--conf_files", "configs/collavo_tiny.yaml", "--overrides", "RESUME_FROM", str(tiny)]
        command += ["DATASETS.TEST", "pope_test"]
        command += ["DATASETS.ROOT", str(world), "SAVE_DIR", str(tmp_path), "SEGMENTER.NAME", "precomputed"]
        command += ["SEGMENTER.IMAGES", str(panoptic / "panoptic_val")]
        command += ["SEGMENTER.PATH", str(panoptic / "panoptic_val.json")]
        env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")} | {"CUDA_VISIBLE_DEVICES": ""}
        if file == "cpu_accel.yaml":
            words = [sys.executable, *command]
            running.append(subprocess.Popen(words, cwd=ROOT, env=env, text=True, stdout=-1, stderr=-1))
        else:
            running.append(start_warm(command, env))
    outputs = [process.communicate(timeout=LIMIT) for process in running]
    assert [process.returncode for process in running] == [0] * nodes, outputs
    results = json.loads((tmp_path / "pope_test" / "results.json").read_text())
    assert f"{processes} process{'es' if processes > 1 else ''}:\n" in "".join(out + err for out, err in outputs)
    assert len((tmp_path / "pope_test" / "predictions.jsonl").read_text().splitlines()) == results["counts"]["answered"]
