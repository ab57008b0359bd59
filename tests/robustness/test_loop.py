"""Several processes under a real launcher: one result for any number of them, kills at random moments, failures."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.limits import LIMIT, free_port, kill, wait_for
from tests.predicted import predicted
from tests.robustness.toy import ToyEngine, ToySource, make_data, make_plan
from tests.warm import WarmProcess, start_warm

ROOT = Path(__file__).resolve().parents[2]


def launch(num: int, data: Path, save: Path, *arguments: str) -> WarmProcess:
    """Start the toy under torchrun."""
    return start_warm(command(num, data, save, *arguments))


def launch_anew(num: int, data: Path, save: Path, *arguments: str) -> subprocess.Popen[str]:
    """As `launch`, in interpreters of their own, for what happens when a launcher dies."""
    environ = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, *command(num, data, save, *arguments)]
    return subprocess.Popen(words, cwd=ROOT, env=environ, text=True, stdout=-1, stderr=-1, start_new_session=True)


def command(num: int, data: Path, save: Path, *arguments: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={num}", "--master_addr=127.0.0.1"]
    toy = ["-m", "tests.robustness.toy", str(data), str(save)]
    return [*launcher, f"--master_port={free_port()}", *toy, *arguments]


def finish(process: WarmProcess | subprocess.Popen[str], timeout: float = LIMIT) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        pytest.fail(f"still running after {timeout} s:\n{err[-3000:]}")
    assert process.returncode is not None
    return process.returncode, out, err


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def journal_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted((folder / "journal").glob("*.jsonl")) for row in lines(file)]


def journal_lines(save: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in save.glob("**/journal/*.jsonl"))


def each_has_more(save: Path, before: dict[str, int]) -> bool:
    return all(journal_lines(save / rank) > number for rank, number in before.items())


def enough(save: Path, number: int) -> bool:
    return journal_lines(save) >= number


def ended(process: WarmProcess | subprocess.Popen[str]) -> bool:
    return process.poll() is not None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "data"
    make_data(folder, num_images=9, num_records=75, seed=3)
    (folder / "8.png").write_bytes(b"\x89PNG broken")
    return folder


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of one process."""
    from pipeline.run.plan import run_plan

    save = tmp_path_factory.mktemp("alone")
    assert run_plan(make_plan(data, save, batch_size_total=1), lambda _: ToySource(ToyEngine())) == 0
    return save / "toy_test"


@pytest.mark.parametrize(("num", "size"), [(2, 5), (3, 4)])
def test_several_processes_write_the_same_file(num: int, size: int, data: Path, alone: Path, tmp_path: Path) -> None:
    start = launch_anew if num == 2 else launch
    code, out, err = finish(start(num, data, tmp_path, f"--batch-size-total={size}"))
    assert code == 0, err[-3000:]
    folder = tmp_path / "toy_test"
    assert predicted(folder / "predictions.jsonl") == predicted(alone / "predictions.jsonl")
    found = json.loads((folder / "results.json").read_text())
    assert found["metrics"] == json.loads((alone / "results.json").read_text())["metrics"]
    assert found["processes"] == num and found["devices"] == ["cpu"] * num
    written = [row["id"] for file in (folder / "journal").glob("*.jsonl") for row in lines(file)]
    assert sorted(written) == sorted(row["id"] for row in lines(data / "toy.jsonl"))
    assert f"{num} processes" in err and err.count("75 records, ") == 1 and out.count("predictions:") == 1


def test_annotations_that_take_long_are_read_once_on_a_machine(data: Path, alone: Path, tmp_path: Path) -> None:
    for name, seconds, readers in (("long", 0, ["0"]), ("short", 3600, ["0", "1", "2"])):
        (tmp_path / name / "reads").mkdir(parents=True)
        reads = f"--reads={tmp_path / name / 'reads'}"
        code, _, err = finish(launch(3, data, tmp_path / name, f"--spool-seconds={seconds}", reads))
        assert code == 0, err[-3000:]
        assert sorted(file.name for file in (tmp_path / name / "reads").iterdir()) == readers
        folder = tmp_path / name / "toy_test"
        assert predicted(folder / "predictions.jsonl") == predicted(alone / "predictions.jsonl")


def test_the_tracker_runs_on_the_main_process_only(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, err = finish(launch(2, data, tmp_path, "--wandb"))
    assert code == 0, err[-3000:]
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


def test_node_local_folders_are_put_together(data: Path, alone: Path, tmp_path: Path) -> None:
    code, _, err = finish(launch(2, data, tmp_path, "--own-folder"))
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "0/toy_test/predictions.jsonl") == predicted(alone / "predictions.jsonl")
    assert not (tmp_path / "1/toy_test/predictions.jsonl").exists()
    assert "the processes share no folder" in err and "(process 1): " in err
    everything = [row["id"] for row in lines(data / "toy.jsonl")]
    broken = {row["id"] for row in lines(data / "toy.jsonl") if row["image"] == "8.png"}
    for folder in (tmp_path / "0/toy_test", tmp_path / "1/toy_test"):
        missing = (folder / "missing_ids.txt").read_text().splitlines()
        held = {row["id"] for row in journal_rows(folder) if row["error"] is None}
        assert missing and held and sorted({*missing, *held}) == sorted(everything) and not held & {*missing}
        assert broken <= {*missing} and f"{len(missing)} records: {missing[0]}, " in err
        assert not list((folder / "journal").glob("claims-*"))


def test_journals_of_several_machines_are_brought_together_by_copying(data: Path, alone: Path, tmp_path: Path) -> None:
    for _ in range(2):  # two sessions whose processes have the same numbers
        before = {rank: journal_lines(tmp_path / rank) for rank in "01"}
        process = launch(2, data, tmp_path, "--own-folder", "--stall-after=3", "--batch-size-total=2")
        wait_for(partial(each_has_more, tmp_path, before), unless=partial(ended, process))
        kill(process)
        process.communicate()
        assert not list(tmp_path.glob("*/toy_test/predictions.jsonl"))
    here, there = (tmp_path / rank / "toy_test" / "journal" for rank in "01")
    subprocess.run(["cp", *map(str, there.glob("*.jsonl")), str(here)], check=True)
    held = [(row["image"], row["question"]) for row in journal_rows(here.parent) if row["error"] is None]
    code, _, err = finish(launch(1, data, tmp_path / "0"))
    assert code == 0, err[-3000:]
    assert f" {len({*held})} answered before" in err
    assert predicted(tmp_path / "0/toy_test/predictions.jsonl") == predicted(alone / "predictions.jsonl")


def test_a_process_that_has_finished_takes_over_from_one_that_has_not(data: Path, alone: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    stalling = ("--stall-rank=1", "--stall-after=0", f"--stall-until={gate}", "--batch-size-total=2")
    process = launch(2, data, tmp_path, *stalling)
    journal = tmp_path / "toy_test" / "journal"

    def answered(rank: int) -> set[str]:
        return {row["id"] for file in journal.glob(f"process-{rank}-*.jsonl") for row in lines(file)}

    # the other one has claimed the few questions that it is asked next, if it has come so far; all else is done while
    # it stands still, far more than this one's share
    wait_for(lambda: len(answered(0)) >= 60, unless=partial(ended, process))
    assert not answered(1)
    gate.touch()
    code, _, err = finish(process)
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "toy_test" / "predictions.jsonl") == predicted(alone / "predictions.jsonl")
    assert sorted(row["id"] for row in journal_rows(journal.parent)) == sorted(
        row["id"] for row in lines(data / "toy.jsonl")
    )
    assert not list(journal.glob("claims-*"))


@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_moments_lose_and_repeat_nothing(seed: int, data: Path, alone: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    distinct = {(row["image"], row["question"]) for row in lines(data / "toy.jsonl")}
    for num in rng.sample([1, 2, 3], 2):
        batches, size, before = rng.randint(1, 5), rng.randint(1, 4), journal_lines(tmp_path)
        some = before + rng.randint(1, batches)
        # each process stops answering after some batches, so that none is done however late the kill comes
        stalling = ("--delay=0.1", f"--stall-after={batches}", f"--batch-size-total={size}")
        process = launch(num, data, tmp_path, *stalling)
        wait_for(partial(enough, tmp_path, some), unless=partial(ended, process))
        time.sleep(rng.random() * 0.3)
        kill(process)
        process.communicate()
        assert not (tmp_path / "toy_test" / "predictions.jsonl").exists()
    file = rng.choice(sorted((tmp_path / "toy_test" / "journal").glob("*.jsonl")))
    with file.open("ab") as stream:
        stream.write(b'{"id": "r1", "prompt": "torn')
    code, _, err = finish(launch(2, data, tmp_path))
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "toy_test" / "predictions.jsonl") == predicted(alone / "predictions.jsonl")
    entries = []
    for file in (tmp_path / "toy_test" / "journal").glob("*.jsonl"):
        for line in file.read_bytes().splitlines():
            if not line.endswith(b"torn"):
                entries.append(json.loads(line))
    good = [(row["image"], row["question"], row["id"]) for row in entries if row["error"] is None]
    assert len(set(good)) == len(good)
    assert {key[0] for key in good} | {"8.png"} == {key[0] for key in distinct}


def test_a_failing_process_ends_all_soon_and_says_why(data: Path, alone: Path, tmp_path: Path) -> None:
    code, _, err = finish(launch(2, data, tmp_path, "--poison=kind 4", "--delay=0.05", "--batch-size-total=2"))
    assert code != 0  # before the limit, and so without waiting for the other process until that gives up
    assert "ValueError while answering r" in err and "told to fail" in err
    logs = list((tmp_path / "toy_test" / "errors").glob("process-*.log"))
    assert logs and "Traceback" in logs[0].read_text()
    assert not (tmp_path / "toy_test" / "predictions.jsonl").exists()
    code, _, err = finish(launch(2, data, tmp_path))
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "toy_test" / "predictions.jsonl") == predicted(alone / "predictions.jsonl")


def test_a_mistake_of_all_processes_is_said_once(tmp_path: Path) -> None:
    code, _, err = finish(launch_anew(2, tmp_path / "nowhere", tmp_path / "save"))
    assert code != 0
    assert err.count("error: ") == 1 and "nowhere" in err


def test_processes_whose_launcher_was_killed_end_too(data: Path, tmp_path: Path) -> None:
    process = launch_anew(2, data, tmp_path, "--stall-after=2", "--batch-size-total=2")
    wait_for(partial(enough, tmp_path, 2), unless=partial(ended, process))
    os.kill(process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)  # returns only when the last process has closed its end of the pipe
    assert "the launcher is gone" in err
    assert not (tmp_path / "toy_test" / "predictions.jsonl").exists()


def test_a_second_run_in_the_folder_of_the_first_says_so_and_ends(data: Path, alone: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"  # the first one is there until it opens, however slow the second one starts
    first = launch(2, data, tmp_path, "--stall-after=2", f"--stall-until={gate}", "--batch-size-total=2")
    wait_for(partial(enough, tmp_path, 2), unless=partial(ended, first))
    (tmp_path / "toy_test" / ".results.json.partial").write_text("{")  # as if left by a kill
    try:
        code, _, err = finish(launch(2, data, tmp_path, "--patience=0.5"))
    finally:
        gate.touch()
    assert code != 0 and err.count("error: ") == 1 and f"{tmp_path} is in use by another run (process " in err
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT) not in err
    code, _, err = finish(first)
    assert code == 0, err[-3000:]
    assert predicted(tmp_path / "toy_test" / "predictions.jsonl") == predicted(alone / "predictions.jsonl")
    assert not (tmp_path / ".lock").exists() and not (tmp_path / "toy_test" / ".lock").exists()
    code, _, err = finish(launch(1, data, tmp_path))
    assert code == 0 and not (tmp_path / "toy_test" / ".results.json.partial").exists()


def test_a_run_whose_launcher_was_killed_goes_on_at_once(data: Path, alone: Path, tmp_path: Path) -> None:
    process = launch_anew(2, data, tmp_path, "--stall-after=2", "--batch-size-total=2")
    wait_for(partial(enough, tmp_path, 2), unless=partial(ended, process))
    os.kill(process.pid, signal.SIGKILL)
    code, _, err = finish(launch(2, data, tmp_path, f"--patience={LIMIT}"))
    assert code == 0, err[-3000:]
    process.communicate(timeout=LIMIT)
    assert predicted(tmp_path / "toy_test" / "predictions.jsonl") == predicted(alone / "predictions.jsonl")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cpu", "--num_processes=2"], "names several processes, but Accelerate started one"),
        (["--use_fsdp", "--num_processes=1"], "asks for FSDP, but this machine has no accelerator"),
    ],
)
def test_launches_that_would_silently_be_something_else(
    flags: list[str], message: str, data: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *flags, "--mixed_precision=no"]
    words += ["--dynamo_backend=no", "--num_machines=1", "-m", "tests.robustness.toy", str(data), str(tmp_path)]
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode != 0 and message in done.stderr and done.stderr.count("error: ") == 1
    assert not list(tmp_path.iterdir())
