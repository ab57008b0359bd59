"""Disks that are full: one line that names the path, nothing half left, and what was there stays."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.evaluation.judges.base import JudgeError, Verdict
from datasets.evaluation.judges.cache import ReplyCache
from datasets.evaluation.judges.recorded import write_verdicts
from datasets.evaluation.submission import GQA, TEXTVQA, write_submission
from datasets.types import Record, Score, Scored
from datasets.writing import (
    PARTIAL,
    WriteError,
    append,
    make_folder,
    new_folder,
    partial_of,
    remove_partial,
    write_bytes,
)
from pipeline.run.journal import Journal, JournalEntry, read_folder
from pipeline.runtime.files import format_of, write_image, write_json
from pipeline.runtime.lock import sole_use
from pipeline.runtime.session import USER_ERRORS, report_failure
from tests.limits import LIMIT
from trainer.checkpoint import save
from trainer.log import TrainingLog
from trainer.loop import Update

ROOT = Path(__file__).resolve().parents[3]
ENTRY = JournalEntry(run="r", id="1", image=None, question="q", text="t" * 50)


def no_fsync(number: int) -> Callable[[int], None]:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device. Free some space there"),
        (errno.EDQUOT, "Your quota there is used up"),
        (errno.EIO, "Write to another place"),
    ],
)
def test_a_full_disk_leaves_the_file_as_it_was(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    write_json(file, {"old": 1})
    monkeypatch.setattr(os, "fsync", no_fsync(number))
    with pytest.raises(WriteError) as raised:
        write_json(file, {"new": 2})
    assert str(raised.value).startswith(f"{file}: cannot be written: ") and remedy in str(raised.value)
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert isinstance(raised.value, USER_ERRORS)
    report_failure(raised.value, tmp_path, 0)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(file) in err


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match="new: cannot be written: No space left"),
        new_folder(tmp_path / "new") as folder,
    ):
        (folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "new") as folder:
        (folder / "whole").write_text("whole")
    assert (tmp_path / "new" / "whole").read_text() == "whole"


def test_folders_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/below: cannot be written: Not a directory"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(WriteError, match="Choose a shorter name"):
        make_folder(tmp_path / ("x" * 300))
    with pytest.raises(WriteError, match="file: cannot be written"):
        make_folder(tmp_path / "file")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 250)
    write_bytes(file, b"1")
    assert file.read_bytes() == b"1"


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal" / "process-0.jsonl"
    with Journal(file) as journal:
        journal.append(ENTRY)
        before, write = file.read_bytes(), os.write

        def half(descriptor: int, data: bytes) -> int:
            if len(data) < len(before):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data[: len(data) // 2])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(WriteError, match=f"{file}: cannot be written"):
            journal.append(ENTRY)
        monkeypatch.setattr(os, "write", write)
        assert file.read_bytes() == before
        journal.append(ENTRY)
    assert len(list(read_folder(file.parent))) == 2


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    kept.write_text("{}")
    partial_of(kept).write_text("half")
    partial_of(tmp_path / "folder").mkdir()
    (partial_of(tmp_path / "folder") / "half").write_text("")
    remove_partial(tmp_path, older=1000.0)
    assert len(list(tmp_path.iterdir())) == 3
    with sole_use([tmp_path, tmp_path / "new"]):
        assert {path.name for path in tmp_path.iterdir()} == {"results.json", ".lock", "new"}
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "new"}


def test_images_are_written_by_their_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG"):
        write_image(tmp_path / name, Image.new("RGB", (3, 2), "red"))
        with Image.open(tmp_path / name) as opened:
            assert opened.size == (3, 2)
    for name in ("a", "a.txt", "a.mpeg4"):
        with pytest.raises(ValueError, match="no images of this suffix"):
            format_of(tmp_path / name)


# ---- every writer, on a disk that takes no more than a few bytes of any file


RECORD = Record(id="1", image=None, fields={"question": "q" * 9000}, target="A", meta={"options": {"A": "a"}})
SCORED = [Scored(record=RECORD, text="A" * 9000, score=Score(value=1.0, extracted="A" * 9000))]
UPDATE = Update(step=1, adapter="vl_cit", loss=1.0, norm=1.0, rate=1.0, samples=1, tokens=1, labels=1, seconds=1.0)


def checkpoint(folder: Path) -> None:
    weights = {"w": torch.zeros(5000)}
    save(folder, 1, lambda partial: None, weights, [{"cpu": torch.zeros(4)}], keep=2)


def journal(folder: Path) -> None:
    with Journal(folder / "journal.jsonl") as opened:
        for _ in range(100):
            opened.append(ENTRY)


def log(folder: Path) -> None:
    opened = TrainingLog(folder, 10, 0, 1, True, lambda figures, step: None)
    for _ in range(20):
        opened.add(UPDATE)


def image(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(folder / "show.png", Image.fromarray(noise))


WRITERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": checkpoint,
    "journal": journal,
    "log": log,
    "image": image,
    "results": lambda folder: write_json(folder / "results.json", ["x" * 9000]),
    "gqa": lambda folder: write_submission(GQA, SCORED, folder),
    "textvqa": lambda folder: write_submission(TEXTVQA, SCORED, folder),
    "verdicts": lambda folder: write_verdicts(
        folder / "verdicts.jsonl", [Verdict(record="1", part="p", value="v", reply="r" * 9000)], "judge"
    ),
    "replies": lambda folder: ReplyCache(folder).put("ab" * 32, "r" * 9000, {}),
}
SMALL = 2000
"""Bytes that a file may have: less than every writer writes."""


def in_small_files(name: str, folder: Path) -> None:
    """Run a writer where files are small; prints what it raised."""
    folder.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    try:
        WRITERS[name](folder)
    except (WriteError, JudgeError) as error:
        sys.stdout.write(f"{name}: {error}\n")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        # a file that grows by lines may be there, with whole lines
        assert path.suffix == ".jsonl" and PARTIAL not in path.name, path
        for line in path.read_bytes().splitlines(keepends=True):
            assert line.endswith(b"\n") and json.loads(line), path


def every_writer(folder: Path) -> int:
    """Run each writer in a process of its own, since a limit cannot be taken back; returns how many failed."""
    failed = 0
    for name in WRITERS:
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            try:
                in_small_files(name, folder / name)
                sys.stdout.flush()
            except BaseException:  # noqa: BLE001 - the child says why and ends
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        failed += os.waitpid(child, 0)[1] != 0
    return failed


@pytest.mark.slow
def test_every_writer_on_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    script = "import sys; from tests.unit.pipeline.test_files import *; sys.exit(every_writer(Path(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(WRITERS)
    for line in lines:
        assert f"{tmp_path}/{line.partition(':')[0]}/" in line and "cannot be written: File too large" in line, line


def test_a_checkpoint_that_does_not_fit_leaves_the_earlier_one(tmp_path: Path) -> None:
    checkpoint(tmp_path)

    def too_large(partial: Path) -> None:
        (partial / "half").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WriteError, match="step-00000002: cannot be written: No space left"):
        save(tmp_path, 2, too_large, {}, [], keep=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_appending_is_all_or_nothing(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    append(descriptor, tmp_path / "a", b"one\n")
    os.close(descriptor)
    with pytest.raises(WriteError, match="a: cannot be written: Bad file descriptor"):
        append(descriptor, tmp_path / "a", b"two\n")
    assert (tmp_path / "a").read_bytes() == b"one\n"
    assert PARTIAL not in "".join(path.name for path in tmp_path.iterdir())
