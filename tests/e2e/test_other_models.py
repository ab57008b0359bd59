"""Other models than CoLLaVO through the command line: a checkpoint on disk, one with code of its own, and a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from configs.load import REPOSITORY
from pipeline.commands.cli import main
from tests.limits import LIMIT, wait_for
from tests.robustness.judge_server import Server, serving
from tests.robustness.model_server import answers_by_digest, digest, error, message, replies, text_and_images
from tests.tiny_models import tiny

ZOO = """\
name: zoo
data: {file: zoo.jsonl, columns: {question: ask}, answer: yes_no}
prompt: "{question}"
generate: {num_beams: 2, max_new_tokens: 4}
scorer: yes_no
"""
IMAGES, EACH = 4, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with yes/no questions, the last of them about two images at once."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for number in range(IMAGES):
        pixels = rng.integers(0, 255, (20 + 10 * number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        lines += [
            {"id": f"{number}-{i}", "image": f"{number}.png", "ask": f"Is it {i}?", "answer": ("yes", "no")[i % 2]}
            for i in range(EACH)
        ]
    lines.append({"id": "both", "image": ["0.png", "1.png"], "ask": "Are they alike?", "answer": "no"})
    (root / "zoo.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "zoo.yaml").write_text(ZOO)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    model, processor = tiny("llava-1.5")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def run(data: Path, save: Path, *overrides: object, conf: str = "configs/vl_test.yaml") -> int:
    settings = ["DATASETS.TEST", "zoo", "DATASETS.ROOT", data, "SAVE_DIR", save, "LLM.BITS", 32, "LLM.DTYPE", "fp32"]
    return main(
        ["eval", "--conf_files", conf, str(data / "zoo.yaml"), "--overrides", *map(str, [*settings, *overrides])]
    )


def results_of(save: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((save / "zoo" / "results.json").read_text())
    return found


def test_a_checkpoint_of_the_library(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(data, tmp_path, "MODEL.PATH", checkpoint) == 0
    said = capsys.readouterr().err
    assert "profile:      llava-1.5 (LLaVA-1.5)" in said and "pad_to_square: true" in said
    assert "an image's prefix is reused over its questions, if" in said
    assert "replies of questions that share an image's prefix equal those without its reuse" in said
    results = results_of(tmp_path)
    assert results["model"] == {"kind": "hf", "name": str(checkpoint), "profile": "llava-1.5"}
    assert results["asked"]["num_beams"] == 1, "the profile wins over the declaration"
    assert (results["counts"]["answered"], results["counts"]["errors"]) == (IMAGES * EACH, 1)
    assert results["errors"] == [
        {"id": "both", "reason": "image 0.png + 1.png: the record has 2 images, and LLaVA-1.5 takes one"}
    ]
    parts = json.loads((tmp_path / "zoo" / "run.json").read_text())["parts"]
    assert parts["engine"]["profile"]["name"] == "llava-1.5" and parts["engine"]["profile"]["pad_to_square"] is True
    assert parts["engine"]["transformers"] and parts["engine"]["image_processor"].startswith("CLIPImageProcessor")
    line = json.loads((tmp_path / "zoo" / "predictions.jsonl").read_text().splitlines()[0])
    assert (
        line["prompt"].startswith("A chat between a curious user") and "USER: <image>\nIs it 0? ASSIS" in line["prompt"]
    )
    # again: nothing is asked; with another setting: refused by name
    assert run(data, tmp_path, "RESUME_FROM", checkpoint) == 0
    assert results_of(tmp_path)["answered_this_session"] in (0, 1), "only what failed is asked again"
    assert run(data, tmp_path, "MODEL.PATH", checkpoint, "MODEL.SETTINGS", "{pad_to_square: false}") != 0
    assert "engine.profile.pad_to_square" in capsys.readouterr().err
    assert run(data, tmp_path / "b", "MODEL.PATH", checkpoint, "ZOO.TEST.NUM_BEAMS", 3) == 0
    assert results_of(tmp_path / "b")["asked"]["num_beams"] == 3, "an override wins over the profile"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.PATH", "nowhere/at-all"), "Nothing is fetched in a run"),
        (("MODEL.PATH", "{folder}", "RESUME_FROM", "elsewhere"), "two names for one setting"),
        (("MODEL.PATH", "{folder}", "MODEL.PROFILE", "lava"), "did you mean llava"),
        (("MODEL.PATH", "{folder}", "MODEL.PROFILE", "collavo"), "is of a model of the kind collavo"),
        (
            ("MODEL.PATH", "{folder}", "MODEL.NAME", "collavo"),
            "a checkpoint of LLaVA-1.5, and MODEL.NAME is col",
        ),
        (("MODEL.PATH", "{folder}", "MODEL.SETTINGS", "{generation: {beams: 1}}"), "unknown key generation.beams"),
        (
            ("MODEL.PATH", "{folder}", "MODEL.SETTINGS", "{generation: {num_beams: x}}"),
            "num_beams: expected",
        ),
        (("MODEL.NAME", "llava"), "is not one of collavo, hf, endpoint"),
        (("MODEL.PATH", "assets/tiny/collavo"), "checkpoint of CoLLaVO: set MODEL.NAME collavo"),
    ],
)
def test_mistakes_are_named(
    overrides: tuple[str, ...], message: str, data: Path, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(
        data, tmp_path, *(word.format(folder=checkpoint) if word[1:7] == "folder" else word for word in overrides)
    )
    assert message in capsys.readouterr().err


CODE = """\
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration
class OddConfig(LlavaConfig):
    model_type = "odd"
class OddModel(LlavaForConditionalGeneration):
    config_class = OddConfig
"""


def test_code_of_a_checkpoint_runs_only_where_it_is_allowed(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "odd"
    shutil.copytree(checkpoint, folder)
    (folder / "modeling_odd.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "modeling_odd.OddConfig", "AutoModelForImageTextToText": "modeling_odd.OddModel"}
    config |= {"model_type": "odd", "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config))
    asked = ("MODEL.PATH", folder, "MODEL.PROFILE", "llava-1.5")
    assert run(data, tmp_path / "refused", *asked) != 0
    assert "MODEL.REMOTE_CODE True" in capsys.readouterr().err
    allowed = (*asked, "MODEL.REMOTE_CODE", "True")
    assert run(data, tmp_path / "other", *allowed) != 0
    assert "lacks weights of its model" in capsys.readouterr().err, "LLaVA's files have names of LLaVA's type"
    own = {name: value.contiguous().clone() for name, value in tiny("llava-1.5")[0].state_dict().items()}
    save_file(own, folder / "model.safetensors", {"format": "pt"})
    assert run(data, tmp_path / "save", *allowed) == 0
    native = tmp_path / "native"
    assert run(data, native, "MODEL.PATH", checkpoint) == 0
    same = [
        [json.loads(line)["text"] for line in (save / "zoo" / "predictions.jsonl").read_text().splitlines()]
        for save in (tmp_path / "save", native)
    ]
    assert same[0] == same[1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-abcdefghijklmnop0123")
    with serving() as running:
        running.reactions = [answers_by_digest]
        yield running


def endpoint(server: Server) -> tuple[object, ...]:
    return ("MODEL.NAME", "endpoint", "MODEL.PATH", "m", "MODEL.BASE_URL", server.url, "MODEL.BACKOFF", 0)


def test_a_server_answers_a_benchmark(data: Path, server: Server, tmp_path: Path) -> None:
    assert run(data, tmp_path, *endpoint(server)) == 0
    results = results_of(tmp_path)
    assert results["counts"]["answered"] == IMAGES * EACH + 1
    lines = [json.loads(line) for line in (tmp_path / "zoo" / "predictions.jsonl").read_text().splitlines()]
    for line in lines[:-1]:
        number, i = line["id"].split("-")
        assert line["text"] == digest(f"Is it {i}?", [(data / f"{number}.png").read_bytes()])
    both = [(data / f"{number}.png").read_bytes() for number in (0, 1)]
    assert lines[-1]["text"] == digest("Are they alike?", both)
    engine = json.loads((tmp_path / "zoo" / "run.json").read_text())["parts"]["engine"]
    assert (engine["served"], engine["address"]) == ("served-2026", server.url)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"sk-proj-abc" not in file.read_bytes()


def test_what_is_no_reply_is_counted_apart_and_both_figures_are_given(
    data: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 13: two refused, one cut off, one empty, one failed; of the 8 others 4 are right."""

    def react(handler: Any, body: Any) -> None:
        text, images = text_and_images(body)
        name = next((n for n in range(IMAGES) if images == [(data / f"{n}.png").read_bytes()]), None)
        odd: dict[tuple[int | None, str], Any] = {
            (0, "Is it 0?"): replies(None, refusal="I cannot"),
            (0, "Is it 1?"): replies("", "content_filter"),
            (1, "Is it 0?"): replies("Yes, it", "length"),
            (1, "Is it 1?"): replies(""),
            (2, "Is it 0?"): error(400),
        }
        odd.get((name, text), lambda h, b: h.send(200, message("yes")))(handler, body)

    server.reactions = [react]
    assert run(data, tmp_path, *endpoint(server)) == 0
    results = results_of(tmp_path)
    found = results["outcomes"]
    assert {k: found[k] for k in ("answered", "refused", "truncated", "empty", "failed")} == {
        "answered": 8, "refused": 2, "truncated": 1, "empty": 1, "failed": 1,
    }  # fmt: skip
    right = sum(json.loads(x)["score"] or 0 for x in (tmp_path / "zoo" / "predictions.jsonl").read_text().splitlines())
    (group,) = [name for name in results["scores"] if "accuracy" in results["scores"][name] and name != "mean"]
    assert results["scores"][group]["accuracy"] == pytest.approx(right / 8)
    assert found["scores_if_wrong"][group]["accuracy"] == pytest.approx(right / 12)
    assert "2 refused, 1 truncated, 1 empty instead of a reply" in (tmp_path / "zoo" / "results.md").read_text()
    asked = len(server.seen)
    server.reactions = [lambda h, b: h.send(200, message("yes"))]
    assert run(data, tmp_path, *endpoint(server)) == 0
    assert len(server.seen) == asked + 2, "a probe, and what failed; refusals are settled"
    assert results_of(tmp_path)["outcomes"]["failed"] == 0


def test_a_killed_run_goes_on(data: Path, server: Server, tmp_path: Path) -> None:
    """What was answered before the kill is not asked again."""
    answered: list[str] = []

    def react(handler: Any, body: Any) -> None:
        if len(answered) > 6:
            handler.server.closing.wait(LIMIT)
        answered.append("")
        answers_by_digest(handler, body)

    server.reactions = [react]
    words = [
        "DATASETS.TEST",
        "zoo",
        "DATASETS.ROOT",
        data,
        "SAVE_DIR",
        tmp_path,
        "MODEL.CONCURRENCY",
        2,
        *endpoint(server),
    ]
    files = ["--conf_files", "configs/vl_test.yaml", str(data / "zoo.yaml")]
    process = subprocess.Popen(
        [sys.executable, "lbk_entry.py", "eval", *files, "--overrides", *map(str, words)],
        cwd=REPOSITORY, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    folder = tmp_path / "zoo" / "journal"

    def lines() -> int:
        return sum(file.read_bytes().count(b"\n") for file in folder.glob("process-*.jsonl"))

    wait_for(lambda: lines() >= 4)
    process.kill()
    process.wait()
    kept = lines()
    server.reactions, server.seen = [answers_by_digest], []
    assert run(data, tmp_path, *endpoint(server)) == 0
    assert len(server.seen) == 1 + IMAGES * EACH + 1 - kept, "a probe, and what was not answered"
    assert results_of(tmp_path)["counts"]["answered"] == IMAGES * EACH + 1
    spent = [json.loads(line) for file in (tmp_path / "spending").iterdir() for line in file.read_text().splitlines()]
    assert sum(line["tokens_in"] for line in spent) >= 100 * (IMAGES * EACH + 1), "what both sessions spent"
    assert len({*(tmp_path / "spending").iterdir()}) == 2
