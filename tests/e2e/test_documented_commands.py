"""The commands of the documentation that say ``<!-- test: run -->``, on the tiny model and the tiny world.

They run in one folder, where they find what they name relatively. Placeholders are replaced: the model by the shipped
tiny one, whose configuration is added where a full-size one is given, the datasets' folder by a world of few scenes,
and a whole evaluation by one of few records.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests import documents
from tests.fixtures import ROOT
from tests.warm import run_warm

TINY, SHIPPED = "configs/collavo_tiny.yaml", ROOT / "assets" / "tiny"
PLACES = {"/path/to/CoLLaVO": str(SHIPPED / "collavo"), "/path/to/X-Decoder": str(SHIPPED / "segmenter")}
FULL = "configs/collavo_step2.yaml"
OWN = {"zoo": ("day.jsonl", "night.jsonl"), "safari": ("questions.jsonl",)}
"""Benchmarks of the pages, and the files of records that their text describes."""
OPPOSITE = {"yes": "no", "no": "yes"}
FEW = "4"
SCENES = "12"
"""As many as the world of the page on training, which finds it made."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder: a world, photographs, benchmarks of one's own, and finished runs under the names that pages use."""
    folder = tmp_path_factory.mktemp("documented")
    documents.make_workspace(folder, documents.PAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATASET", str(folder / "outputs/tiny/data"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        make_runs(folder)
        yield folder


def make_runs(folder: Path) -> None:
    """Make what the commands name."""
    Image.new("RGB", (90, 60), "white").save(folder / "dog.jpg")
    run(folder, ["python", "-m", "assets.tiny.world", "outputs/tiny/data", "--seed", "1", "--scenes", SCENES])
    for name, files in OWN.items():
        images = folder / "outputs/tiny/data" / name / "images"
        images.mkdir(parents=True)
        Image.new("RGB", (60, 40), "green").save(images / "1.jpg")
        for file in files:
            record = {"nr": 1, "ask": "Is there a lion?", "photo": "1.jpg", "truth": "yes"}
            if name == "safari":
                record = {"id": 1, "question": "Is there a lion?", "image": "1.jpg", "answer": "yes"}
            (images.parent / file).write_text(json.dumps(record) + "\n", encoding="utf-8")
    questions = folder / "outputs/tiny/data/POPE/coco_pope_random.json"
    turned = re.sub('"label": "(yes|no)"', lambda label: f'"label": "{OPPOSITE[label[1]]}"', questions.read_text())
    questions.write_text(turned)  # so that some answers are wrong, which pages show
    evaluation = next(c for c in documents.commands("docs/evaluate.md", "run") if "eval" in c.words)
    run(folder, evaluation.words)
    for name in ("before", "after"):
        shutil.copytree(folder / "outputs/collavo_step2", folder / "outputs" / name)
    lines = (folder / "outputs/collavo_step2/pope_test/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    replies = [{"id": one["id"], "text": one["text"]} for one in map(json.loads, lines)]
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in replies), encoding="utf-8")


def on_the_tiny_model(words: Sequence[str], data: Path) -> list[str]:
    """Arguments of ``lbk_entry.py``, with the tiny model and few records."""
    given = [PLACES.get(word, str(data) if word == "/path/to/dataset" else word) for word in words]
    command, more = given[0], []
    if FULL in given:
        given.insert(given.index(FULL) + 1, TINY)
        more = ["SAVE_DIR", "outputs/collavo_step2"] if "SAVE_DIR" not in given else []
    elif command == "ask" and "RESUME_FROM" in given:
        given += ["--conf_files", TINY]
    if command == "eval" and "--print-config" not in given and not {"--help", "EVAL.LIMIT"} & set(given):
        more += ["EVAL.LIMIT", FEW]
    return [*given, "--overrides", *more] if more else given


def run(folder: Path, words: Sequence[str]) -> str:
    """Run a command of a page; returns what it printed."""
    data = folder / "outputs/tiny/data"
    if words[0] == "export" or words[1] == "install":
        return ""  # variables are set above; what runs this was installed
    own = words[1] == "-m"
    arguments = list(words[1:]) if own else ["lbk_entry.py", *on_the_tiny_model(words[2:], data)]
    done = run_warm(arguments, cwd=folder)
    assert done.returncode == 0, (words, arguments, done.stdout[-2000:], done.stderr[-3000:])
    return done.stdout


@pytest.mark.parametrize("page", [page for page in documents.PAGES if documents.commands(page, "run")])
def test_the_commands_of_a_page_run(page: str, workspace: Path) -> None:
    for command in documents.commands(page, "run"):
        run(workspace, command.words)
    if page == "README.md":
        assert (workspace / "outputs/collavo_step2/report/index.html").is_file()
        assert (workspace / "outputs/safari/safari/predictions.jsonl").is_file()
