"""``validate train``: what would be skipped and why, and a sample with its labels marked, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.load import REPOSITORY
from pipeline.commands.cli import main
from tests.limits import LIMIT
from tests.tiny_training import settings
from trainer.cli import COMMANDS

GIVEN = ["validate", "train", "--conf_files", str(REPOSITORY / "configs" / "collavo_tiny_train.yaml"), "--overrides"]


def validate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main([*GIVEN, *words], COMMANDS)
    return code, capsys.readouterr().out


def test_sound_data_pass_and_one_sample_is_shown(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = validate(capsys, *settings(tiny, tmp_path, "TRAIN.STAGE", "cit", "DATA.VALIDATION", "0.1"))
    assert code == 0, out
    assert "12 annotated images, 12 can be used" in out and "nothing would be skipped" in out
    entry = json.loads((tiny / "data" / "LLaVA" / "tiny_instruct.json").read_text())[0]
    answer = entry["conversations"][1]["value"]
    assert f">>>{answer}[UNUSED_TOKEN_145]<<<" in out
    assert out.count(">>>") == out.count("<<<") == len(entry["conversations"]) // 2 + 1


def test_all_that_would_be_skipped_is_counted_with_its_reason(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny / "data", data)
    images = sorted((data / "coco" / "val2017").glob("*.jpg"))
    images[0].write_bytes(b"no image")
    images[1].write_bytes(images[1].read_bytes()[:-300])  # its header is whole
    shutil.copy(images[2], data / "coco" / "val2017" / "unknown.jpg")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    names = [*(f"coco/val2017/{image.name}" for image in images[:3]), "coco/val2017/unknown.jpg", "gone.jpg"]
    records = [{"image": name, "conversations": turns} for name in names]
    records += [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "[UNUSED_TOKEN_145]"}]}]
    records += [{"conversations": turns}]
    file = data / "own.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    words = settings(tiny, tmp_path, "TRAIN.STAGE", "cit", "DATASETS.ROOT", data)
    code, out = validate(capsys, *words, "DATA.CONVERSATIONS", f"[{{FILE: {file}}}]")
    assert code == 1
    assert "12 annotated images, 10 can be used" in out
    assert f"own ({file}): 7 records, 1 can be used" in out
    for line in (
        "UNREADABLE images: 2",
        "images without a MAP: 1",
        "MISSING images: 1",
        "MALFORMED records: 1",
        "conversations that CANNOT BE ENCODED: 1",
        "own.jsonl, line 7: message 0: <image> may stand once",
    ):
        assert line in out, out


@pytest.mark.slow
def test_it_needs_no_torch(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.commands.cli import main; from trainer.cli import COMMANDS\n"
        "code = main(sys.argv[1:], COMMANDS); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    words = [sys.executable, "-c", code, *GIVEN, *settings(tiny, tmp_path, "TRAIN.STAGE", "cit")]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
