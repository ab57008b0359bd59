"""Profiles of models: what a file may say, what wins over what, and what a run says and keeps of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from configs.load import ConfigError
from datasets.types import DataError, ImageFile, ImageGroup, Record
from pipeline.base import BenchmarkPipeline
from pipeline.catalog import load_catalog
from pipeline.config import EvalConfig, read_configuration
from pipeline.images import decode_image
from pipeline.models import profile as profiles
from pipeline.models.profile import load_profile, profile_names, profile_of_config, published_rows
from pipeline.models.resolve import locate_checkpoint


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_are_sound(name: str) -> None:
    resolved = load_profile(name)
    assert resolved.profile.title
    text = (profiles.FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# "), "a file says what it is at its top"
    assert json.loads(json.dumps(resolved.parts()))["name"] == name
    assert "published" not in resolved.parts() and "source" not in resolved.parts()
    assert resolved.described().startswith(f"profile:      {name}")
    if resolved.profile.kind == "hf":
        assert resolved.profile.generation.num_beams, "a benchmark's beams are those of no other model"
    catalog = {benchmark.name: benchmark for benchmark in load_catalog().benchmarks.values()}
    known = {b.name: {e.metric for e in b.expected} | {"mean/f1"} for b in catalog.values()}
    for figure in resolved.profile.published:
        assert figure.metric in known[figure.benchmark], figure
        assert figure.source


def test_published_rows_are_those_of_their_sources() -> None:
    """Of LLaVA's model zoo and the tables of arXiv 2310.03744, not the shifted row of CoLLaVO's README."""
    rows = published_rows()
    llava = {figure.benchmark: figure.value for figure in rows["LLaVA-1.5 7B"]}
    assert (llava["gqa"], llava["scienceqa"], llava["textvqa"], llava["pope"]) == (62.0, 66.8, 58.2, 85.9)
    shifted = {figure.benchmark: figure.value for figure in rows["InstructBLIP 7B"]}
    assert (shifted["gqa"], shifted["scienceqa"], shifted["textvqa"], shifted["mmvet"]) == (49.2, 60.5, 50.1, 26.2)
    assert "pope" not in shifted


def test_override_then_profile_then_declaration() -> None:
    pope = load_catalog().benchmarks["pope_test"]

    def beams(*words: str) -> tuple[int, int]:
        config, _ = read_configuration([], list(words), EvalConfig)
        declared = config.declared(pope)
        return declared.num_beams, declared.max_new_tokens

    hf = ("MODEL.NAME", "hf", "MODEL.PATH", "x", "MODEL.PROFILE")
    assert beams() == (3, 5), "CoLLaVO's beams, the declaration's length"
    assert beams("MODEL.NAME", "collavo_model") == (3, 5)
    assert beams(*hf, "llava-1.5") == (1, 5)
    assert beams(*hf, "instructblip") == (5, 10)
    assert beams(*hf, "instructblip", "MODEL.SETTINGS", "{generation: {num_beams: 2, max_new_tokens: 7}}") == (2, 7)
    assert beams(*hf, "instructblip", "POPE.TEST.NUM_BEAMS", "4", "POPE.TEST.MAX_NEW_TOKENS", "6") == (4, 6)
    assert beams("MODEL.NAME", "endpoint") == (1, 1024)
    assert beams("MODEL.NAME", "endpoint", "MODEL.PROFILE", "qwen2.5-vl") == (1, 1024)


def test_boxes_and_prompts_are_the_models() -> None:
    refcoco = load_catalog().benchmarks["refcoco"]

    def declared(*words: str) -> tuple[dict[str, object], str]:
        found = read_configuration([], ["MODEL.NAME", "hf", "MODEL.PROFILE", *words], EvalConfig)[0].declared(refcoco)
        return dict(found.scoring), found.prompt

    assert declared("qwen2-vl") == ({"scale": 1000.0}, refcoco.prompt)
    assert declared("paligemma") == ({"scale": 1024.0, "order": "yxyx", "tags": True}, "detect {question}")
    assert declared("llava-1.5")[0] == {"scale": 1.0, "frame": "padded"}
    assert declared("qwen2.5-vl")[0]["frame"] == "resized"
    assert declared("qwen-vl-chat", "REFCOCO.TEST.PROMPT", "Where is {question}?")[1] == "Where is {question}?"
    assert read_configuration([], [])[0].declared(refcoco).scoring == refcoco.scoring


WORD = "Answer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("name", "dataset", "prompt"),
    [
        ("blip-2", "gqa_testdev_balanced", "{question}"),
        ("instructblip", "pope_test", "{question}"),
        ("instructblip", "mme", "{question}"),
        ("qwen-vl-chat", "textvqa_val", "{question}"),
        ("paligemma", "chartqa_test", "{question}"),
        ("llava-1.5", "textvqa_val", f"{{question}}\nReference OCR token: {{ocr}}\n{WORD}"),
        ("llava-1.5", "gqa_testdev_balanced", f"{{question}}\n{WORD}"),
    ],
)
def test_a_template_that_asks_for_a_short_answer_has_the_question_alone(name: str, dataset: str, prompt: str) -> None:
    config, catalog = read_configuration([], ["MODEL.NAME", "hf", "MODEL.PROFILE", name], EvalConfig)
    assert config.declared(catalog.benchmarks[dataset]).prompt == prompt


def test_questions_of_profiles_are_of_benchmarks_that_exist() -> None:
    known = {benchmark.name for benchmark in load_catalog().benchmarks.values()}
    for name in profile_names():
        assert set(load_profile(name).profile.prompt.questions) <= known, name


def test_a_note_gives_settings_that_can_be_set() -> None:
    for name in ("blip-2", "instructblip"):
        _, _, words = load_profile(name).profile.note.partition("MODEL.SETTINGS ")
        given = ["MODEL.NAME", "hf", "MODEL.PROFILE", name, "MODEL.SETTINGS", words]
        profile = read_configuration([], given, EvalConfig)[0].profile.profile
        assert (profile.generation.max_new_tokens, profile.generation.length_penalty) == (256, 1.0)
        assert profile.prompt.template == "{question}"


def test_a_download_is_of_its_own_family_and_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile of the first session is that of the others; what an interruption left out is fetched."""
    fetched: list[str] = []

    def fetch(name: str) -> str:
        fetched.append(name)
        (tmp_path / "model.safetensors").write_bytes(b"")
        (tmp_path / "config.json").write_text('{"model_type": "instructblip"}')
        return str(tmp_path)

    def cached(name: str, file: str) -> str | None:
        return str(tmp_path / file) if (tmp_path / file).is_file() else None

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)

    def model(download: bool) -> EvalConfig:
        words = ["MODEL.NAME", "hf", "MODEL.PATH", "some/checkpoint", "MODEL.DOWNLOAD", str(download)]
        return read_configuration([], words, EvalConfig)[0]

    assert model(download=False).profile.guessed and not fetched, "nothing is fetched that was not asked for"
    for _ in range(2):
        assert model(download=True).profile.name == "instructblip"
        assert locate_checkpoint(model(download=True).MODEL) == tmp_path
        assert fetched == ["some/checkpoint"]
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors"}}')
    assert locate_checkpoint(model(download=False).MODEL) == tmp_path and len(fetched) == 1
    assert locate_checkpoint(model(download=True).MODEL) == tmp_path and len(fetched) == 2


def test_resume_from_is_another_name() -> None:
    for key in ("MODEL.PATH", "RESUME_FROM"):
        config, _ = read_configuration([], [key, "somewhere"], EvalConfig)
        assert config.MODEL.PATH == config.RESUME_FROM == "somewhere"
    assert read_configuration([], ["MODEL.PATH", "a/b", "RESUME_FROM", "a//b/"])[0].MODEL.PATH == "a/b"
    with pytest.raises(ConfigError, match="two names for one setting"):
        read_configuration([], ["MODEL.PATH", "a", "RESUME_FROM", "b"])


def test_a_new_family_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in profiles.FOLDER.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "novel.yaml").write_text("title: Novel\nmatch: [{model_type: novel}]\nboxes: {scale: 100}\n")
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    assert profile_of_config({"model_type": "novel"}) == "novel"
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "novel"}')
    config, _ = read_configuration([], ["MODEL.NAME", "hf", "MODEL.PATH", str(checkpoint)], EvalConfig)
    assert (config.profile.name, config.profile.guessed) == ("novel", False)
    (checkpoint / "config.json").write_text('{"model_type": "unheard_of"}')
    config, _ = read_configuration([], ["MODEL.NAME", "hf", "MODEL.PATH", str(checkpoint)], EvalConfig)
    assert (config.profile.name, config.profile.guessed) == ("default", True)
    assert "a default, since nothing says which model this is" in config.profile.described()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("titel: X\n", "own.yaml:1: unknown key titel; did you mean title?"),
        ("boxes: {scale: -1}\n", "boxes.scale: must be at least 0"),
        ("prompt: {template: '{question} {quest}'}\n", "knows {image}, {question} and {system}"),
        ("prompt: {template: 'Q'}\n", "names {question} once"),
        ("prompt: {options: '{letter}'}\n", "names {letter} and {text}"),
        ("loader: magic\n", "loader: 'magic' is not one of image_text_to_text"),
        ("published: [{benchmark: pope}]\n", "published: entry 1: lacks metric, value, source"),
    ],
)
def test_mistakes_in_a_profile_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_profile(str(file))


def test_options_in_the_models_own_wording() -> None:
    seed = load_catalog().benchmarks["seed"]
    fields = {"question": "What?", "options": "A. x\nB. y"}
    record = Record(id="1", image=None, fields=fields, target="A", meta={"options": {"A": "x", "B": "y"}})
    config, _ = read_configuration([], ["MODEL.SETTINGS", "{prompt: {options: '({letter}) {text}'}}"], EvalConfig)
    plain, worded = (BenchmarkPipeline(one).prompt(record) for one in (seed, config.declared(seed)))
    assert "A. x\nB. y" in plain
    assert worded == plain.replace("A. x\nB. y", "(A) x\n(B) y")


def test_a_group_of_images_is_refused_by_what_takes_one(tmp_path: Path) -> None:
    group = ImageGroup((ImageFile(tmp_path / "a", "a"), ImageFile(tmp_path / "b", "b")))
    with pytest.raises(DataError, match=re.escape("image a + b: the record has 2 images, and this model takes one")):
        decode_image(group, 28)
