"""The comparison of what step 2 forgets: what each row trains on and with, what is not repeated, and its tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from assets.tiny.train.forgetting import plan
from assets.tiny.train.forgetting.__main__ import arguments, main
from assets.tiny.train.forgetting.figures import (
    ForgettingFigures,
    ForgettingRun,
    difference,
    read_figures,
    scores,
    tables,
    write_figures,
)
from assets.tiny.train.forgetting.plan import BENCHMARK, ForgettingSettings
from assets.tiny.train.forgetting.rows import (
    BEFORE,
    DIFFERENCES,
    DUAL,
    IMAGE,
    KINDS,
    LEFT_OUT,
    REHEARSED,
    ROWS,
    SHARED,
    VISUAL,
    ForgettingRow,
    listed,
)
from assets.tiny.train.scenes import COLOUR_NAMES
from assets.tiny.world import write_lessons
from assets.tiny.world.glyphs import WORDS
from collavo.instructions import CRAYON_KINDS, OBJECT_KINDS, QUESTIONS
from configs.load import REPOSITORY
from datasets.instruct.order import adapter_of
from trainer.config import ADAPTER_NAMES, TrainConfig, read_training

TINY = REPOSITORY / "assets" / "tiny"
SHIPPED = TINY / "forgetting.json"
TRAINED = [row for row in ROWS if row.adapters]
FEW = ForgettingSettings(rank=4, step1=1, visual=3, batch=2, questions=2, lessons=24, scenes=24, most=2)


@cache
def configuration(row: ForgettingRow) -> TrainConfig:
    """Of a row's step 2."""
    words = [str(word) for pair in row.settings(8).items() for word in pair]
    return read_training(["configs/collavo_tiny_step2.yaml"], words)[0]


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_the_configuration_gives_every_row_the_same_rank_and_scale(row: ForgettingRow) -> None:
    config = configuration(row)
    adapters = ADAPTER_NAMES[config.TRAIN.ADAPTERS]
    assert len(adapters) == (2 if row is DUAL else 1)
    assert sum(config.LORA.RANKS.get(name, config.LORA.R) for name in adapters) == 8
    assert config.LORA.ALPHA == config.LORA.R  # a scale of 1, as in the paper
    assert config.DATA.KINDS == ["names", "names_boxes", "class_boxes"]


@pytest.mark.parametrize("seed", range(4))
def test_rows_with_visual_instructions_make_equally_many_updates_on_them(seed: int) -> None:
    updates = {row.name: row.updates(20, seed) for row in ROWS}
    assert updates["before"] == {"image_cit": 0, "vl_cit": 0}
    assert updates["dual"] == updates["shared"]
    for row in TRAINED:
        train = configuration(row).TRAIN
        share = 0.0 if train.ADAPTERS == "vl_only" else train.IMAGE_SHARE
        assert share is not None
        made = Counter(adapter_of(seed, step, share) for step in range(sum(updates[row.name].values())))
        assert {name: made[name] for name in ("image_cit", "vl_cit")} == updates[row.name]
    assert {updates[row.name]["vl_cit"] for row in (VISUAL, SHARED, DUAL)} == {20}
    assert {updates[row.name]["image_cit"] for row in (IMAGE, SHARED, DUAL)} == {updates["image"]["image_cit"]}
    assert updates["image"]["vl_cit"] == updates["visual"]["image_cit"] == 0 < updates["image"]["image_cit"]


@pytest.mark.slow
def test_no_training_data_rehearses_what_is_left_out(tmp_path: Path) -> None:
    def said(folder: str, without: Sequence[str]) -> str:
        write_lessons(tmp_path / folder, seed=0, scenes=24, size=64, without=without)
        entries = json.loads((tmp_path / folder / "LLaVA" / "lessons.json").read_text())
        assert len(entries) == 24 * 16  # other kinds take the place of what is left out
        return "\n".join(turn["value"] for entry in entries for turn in entry["conversations"])

    # a sign's words are in capitals; "stop sign" is the name of the thing
    telling = re.compile(rf"\b({'|'.join((*COLOUR_NAMES, *WORDS, 'colou?r', 'text', 'poster', 'this sentence'))})\b")
    telling_sign = re.compile(r"\b(the|a) sign\b")
    everything, left = said("all", ()), said("left", LEFT_OUT)
    known = set(telling.findall(everything))
    assert set(COLOUR_NAMES) <= known and len(known & set(WORDS)) > 3 and telling_sign.search(everything)
    assert not telling.findall(left) and not telling_sign.search(left)
    for kind in (*CRAYON_KINDS, *OBJECT_KINDS):  # object-level instructions, which also name classes and boxes
        assert not telling.search(" ".join(QUESTIONS[kind]))


class Commands:
    """Stands for training and evaluation: notes what they are asked for, and answers every other question right."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[tuple[str, int]] = []
        self.answered: list[str] = []
        monkeypatch.setattr(plan, "train_step", self.train_step)
        monkeypatch.setattr(plan, "answer", self.answer)
        monkeypatch.setattr(plan, "lora_parameters", lambda checkpoint, names: 100 * len(names))
        monkeypatch.setattr(plan, "draw_world", self.draw_world)

    def train_step(self, number: int, folder: Path, below: Path, steps: int, lessons: Path, settings: object) -> Path:
        self.trained.append((folder.name, steps))
        return folder

    def answer(
        self, checkpoint: Path, world: Path, maps: str, folder: Path, datasets: list[str], files: Sequence[object]
    ) -> None:
        self.answered.append(folder.name)
        asked = (folder.parent / "asked.jsonl").read_text().splitlines()
        lines = [json.dumps({"id": str(json.loads(one)["id"]), "score": float(n % 2)}) for n, one in enumerate(asked)]
        (folder / BENCHMARK).mkdir(parents=True, exist_ok=True)
        (folder / BENCHMARK / "predictions.jsonl").write_text("\n".join(reversed(lines)))  # found by id, not by place

    def draw_world(self, directory: Path, *words: object) -> None:
        if "--lessons" in words:
            assert words[-len(LEFT_OUT) :] == LEFT_OUT
        else:
            (directory / "TinyWorld").mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps({"id": n, "image": f"tiny_{n % 5 + 1:06d}.png", "kind": kind})
                for n, kind in enumerate([*KINDS, "sum", *KINDS, *KINDS])
            ]
            (directory / "TinyWorld" / "questions.jsonl").write_text("\n".join(lines))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> int:
    few = [word for name, value in asdict(FEW).items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["forgetting", str(folder), *few, "--seeds", "0", "1", "--at-once", "1", *more])
    return main()


def test_a_finished_run_is_skipped_and_a_half_one_made_again(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(monkeypatch, tmp_path) == 0
    first = capsys.readouterr().out
    assert "Scores, 2 seeds\n" in first and "Dual QLoRA less one adapter" in first
    assert len(commands.answered) == len(ROWS) * 2
    steps = dict(commands.trained)
    assert steps["visual-0"] == 3 and steps["shared-0"] == steps["dual-0"] == 3 + steps["image-0"]
    files = sorted(tmp_path.glob("runs/*.json"))
    assert len(files) == len(ROWS) * 2
    run = json.loads((tmp_path / "runs" / "dual-1.json").read_text())
    assert (run["row"], run["seed"], run["ranks"]) == ("dual", 1, {"image_cit": 2, "vl_cit": 2})
    assert run["right"]["text"] == "01" and set(run["right"]) == set(KINDS)  # the third question is one too many

    half = tmp_path / "runs" / "dual-1.json"
    half.write_text(half.read_text()[:50])
    (tmp_path / "runs" / "before-0.json").unlink()
    commands.answered.clear()
    commands.trained.clear()
    assert train(monkeypatch, tmp_path) == 0
    assert sorted(commands.answered) == ["before-0-eval", "dual-1-eval"]
    assert {name for name, _ in commands.trained} == {"step1-0", "step1-1", "dual-1"}
    assert capsys.readouterr().out == first

    commands.answered.clear()
    commands.trained.clear()
    assert train(monkeypatch, tmp_path) == 0
    assert not commands.answered and not commands.trained

    (tmp_path / "runs" / "dual-1.json").unlink()
    assert train(monkeypatch, tmp_path, "--rank", "8") == 1
    assert "have other settings" in capsys.readouterr().err
    assert not commands.trained  # figures of two settings never stand in one table
    (tmp_path / "settings.json").write_text("{")
    assert train(monkeypatch, tmp_path) == 1
    assert "settings.json: " in capsys.readouterr().err and not commands.trained


def test_a_question_without_an_answer_ends_the_run(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "answer", lambda *words: write_predictions(words[3] / BENCHMARK / "predictions.jsonl"))
    assert train(monkeypatch, tmp_path) == 1
    assert not list(tmp_path.glob("runs/*.json"))


def write_predictions(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"id": "0", "score": 1.0}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a directory to train in, or --figures"),
        (["out", "--figures", "f.json"], "give a directory to train in, or --figures"),
        (["out", "--rank", "3"], "two adapters share it equally; give an even number"),
        (["out", "--visual", "0"], "--visual counts from 1"),
        (["out", "--at-once", "-1"], "--at-once counts from 1"),
        (["out", "--seeds", "1", "1"], "--seeds takes different numbers from 0"),
        (["out", "--seeds", "-1"], "--seeds takes different numbers from 0"),
    ],
)
def test_a_wrong_command_line_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["forgetting", *words])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err


def figures_of(right: dict[tuple[str, int], str]) -> ForgettingFigures:
    """Figures whose every kind has the same right answers, one question a scene."""
    some = ForgettingRun(row="", seed=0, settings={}, updates={}, ranks={}, lora_parameters=0, right={})
    runs = [replace(some, row=row, seed=seed, right=dict.fromkeys(KINDS, text)) for (row, seed), text in right.items()]
    num = len(next(iter(right.values())))
    return ForgettingFigures(scenes={kind: list(range(num)) for kind in KINDS}, runs=runs)


def test_scores_and_paired_differences_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    right = {(row.name, seed): "1111100000" for row in ROWS for seed in range(3)}
    right |= {("dual", 0): "1111110000", ("dual", 1): "1111111000", ("dual", 2): "1111111100"}
    figures = figures_of(right)
    write_figures(figures, tmp_path / "figures.json")
    assert read_figures(tmp_path / "figures.json") == figures
    cells = {row[0]: row[1] for row in scores(figures)}
    assert cells["Dual QLoRA"] == "70.0 (10.0)" and cells["one adapter"] == "50.0 (0.0)"
    found = difference(figures, DUAL, SHARED, "text")
    assert found.mean == pytest.approx(20.0)
    # Student's 97.5 % quantile with two degrees of freedom is 4.3027; the standard error is 10 / sqrt(3)
    assert found.over_seeds == pytest.approx((20 - 4.3027 * 10 / 3**0.5, 20 + 4.3027 * 10 / 3**0.5), abs=0.01)
    assert found.over_scenes[0] < 20 < found.over_scenes[1]
    assert difference(figures, SHARED, BEFORE, REHEARSED).mean == 0
    assert difference(figures, SHARED, DUAL, "text").mean == pytest.approx(-20.0)


def test_the_interval_over_scenes_is_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(0)
    digits = {(row.name, 0): "".join(map(str, rng.integers(0, 2, 200))) for row in ROWS}
    figures = figures_of(digits)
    figures = replace(figures, scenes={kind: [n // 2 for n in range(200)] for kind in KINDS})
    found = difference(figures, DUAL, SHARED, "text")
    assert found.over_seeds is None
    each = np.array([int(a) - int(b) for a, b in zip(digits["dual", 0], digits["shared", 0], strict=True)])
    by_scene = 100 * each.reshape(100, 2).mean(1)
    drawn = by_scene[rng.integers(0, 100, (4000, 100))].mean(1)
    assert found.mean == pytest.approx(by_scene.mean())
    assert found.over_scenes == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=2.5)


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"scenes": {}, "runs": []}', '{"scenes": {}, "runs": [{"row": "dual"}]}']
)
def test_a_file_that_holds_no_figures_is_refused(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RuntimeError, match="holds no figures of all rows"):
        read_figures(file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"row": "dual", "seed": 1', '"row": "dual", "seed": 0', "or one twice"),
        ('"row": "dual", "seed": 1', '"row": "dual", "seed": 2', "lacks the runs before 2, image 2, .*dual 1"),
        ('"text": "0110"', '"text": "011"', "run dual 1: a 0 or 1 for each of 4 questions on text"),
        ('"text": "0110"', '"text": "0112"', "run dual 1: a 0 or 1 for each of 4 questions on text"),
    ],
)
def test_figures_that_do_not_fit_together_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    right = {(row.name, seed): "0100" for row in ROWS for seed in (0, 1)} | {("dual", 1): "0110"}
    file = tmp_path / "figures.json"
    write_figures(figures_of(right), file)
    content = file.read_text()
    assert content.count(old) == 1
    file.write_text(content.replace(old, new))
    with pytest.raises(RuntimeError, match=message):
        read_figures(file)


def test_the_command_has_the_settings_of_the_shipped_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["forgetting", "out"])
    args = vars(arguments())
    assert args["seeds"] == read_figures(SHIPPED).seeds
    for run in read_figures(SHIPPED).runs:
        assert run.settings == {name: args[name] for name in run.settings}


def test_the_shipped_figures_are_of_equal_adapters_and_updates() -> None:
    figures = read_figures(SHIPPED)
    assert figures.seeds == [0, 1, 2] and len(figures.runs) == len(ROWS) * 3
    assert len({json.dumps(dict(run.settings), sort_keys=True) for run in figures.runs}) == 1
    for run in figures.runs:
        row, settings = next(row for row in ROWS if row.name == run.row), ForgettingSettings(**run.settings)
        assert run.updates == row.updates(settings.visual, run.seed)
        assert run.ranks == row.ranks(settings.rank)
        assert {kind: len(digits) for kind, digits in run.right.items()} == {
            k: len(s) for k, s in figures.scenes.items()
        }
    assert len({run.lora_parameters for run in figures.runs if run.row != "before"}) == 1
    assert all(run.lora_parameters == 0 for run in figures.runs if run.row == "before")


def test_the_readme_has_the_tables_of_the_shipped_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (TINY / "README.md").read_text(encoding="utf-8")
    made = [line for line in tables(read_figures(SHIPPED), markdown=True).splitlines() if line.startswith("|")]
    assert len(made) == 2 + len(ROWS) + 2 + len(DIFFERENCES)
    assert not [line for line in made if line not in readme.splitlines()]
    monkeypatch.setattr("sys.argv", ["forgetting", "--figures", str(SHIPPED)])
    assert main() == 0
    assert "Differences, 3 seeds" in capsys.readouterr().out


def test_lists_are_words_of_a_command_line() -> None:
    assert listed(CRAYON_KINDS) == "[names, names_boxes, class_boxes]"
