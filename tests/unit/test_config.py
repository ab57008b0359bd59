"""Configuration: types, messages, precedence, inheritance; every key is read by code."""

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter

from configs.load import REPOSITORY, ConfigError, read_yaml
from datasets.declaration import Expected
from pipeline.catalog import load_catalog, split_files
from pipeline.config import EvalConfig, EvalSchema, load_config
from pipeline.declaration_file import parse_declaration
from trainer.config import TrainSchema

SECTIONS = ("POPE", "MME")


def load(*overrides: str, files: tuple[Path, ...] = ()) -> EvalConfig:
    return load_config(files, overrides, SECTIONS)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("WANDB", "True", True),
        ("WANDB", "0", False),
        ("WEIGHT", "false", False),
        ("EVAL.TIMEOUT_HOURS", "1e-1", 0.1),
        ("EVAL.LIMIT", "7", 7),
        ("EVAL.LIMIT", "None", None),
        ("DATASETS.ROOT", "/some/where", "/some/where"),
        ("NAME", "1e5", "1e5"),
    ],
)
def test_overrides_take_the_type_of_their_key(key: str, text: str, value: object) -> None:
    node: Any = load(key, text)
    for part in key.split("."):
        node = getattr(node, part)
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("LLM.BITS", "abc"), "LLM.BITS: expected a whole number, got 'abc'"),
        (("EVAL.LIMIT", "1.5"), "EVAL.LIMIT: expected a whole number or None, got '1.5'"),
        (("WANDB", "maybe"), "WANDB: expected True or False, got 'maybe'"),
        (("WEIGHT", "None"), "WEIGHT: expected True or False, got 'None'"),
        (("POPE.TEST.BATCH_SIZE", "3"), "unknown key POPE.TEST.BATCH_SIZE; did you mean POPE.TEST.BATCH_SIZE_TOTAL"),
        (("pope.test.num_beams", "3"), "did you mean POPE.TEST.NUM_BEAMS?"),
        (("POPE", "3"), "POPE is a section; set one of its keys: TEST"),
        (("LLM.BITS.X", "3"), "unknown key LLM.BITS.X"),
        (("TRAIN.LR", "3"), "unknown key TRAIN.LR; TRAIN is for the command train"),
        (("BENCHMARKS", "3"), "unknown key BENCHMARKS; BENCHMARKS is for configuration files"),
        (("WANDB",), "'WANDB' has no value"),
        (("LLM.BITS", "5"), "LLM.BITS: 5 is not one of 4, 8, 16, 32"),
        (
            ("LLM.BITS", "16", "LLM.DTYPE", "fp32"),
            "LLM.BITS 16 means no quantisation and does not go with LLM.DTYPE fp32",
        ),
        (("POPE.TEST.BATCH_SIZE_TOTAL", "0"), "POPE.TEST.BATCH_SIZE_TOTAL: must be at least 1, got 0"),
        (("SEGMENTER.THRESHOLD", "1.5"), "SEGMENTER.THRESHOLD: must be between 0 and 1"),
        (("EVAL.ON_CHANGE", "never"), "EVAL.ON_CHANGE: 'never' is not one of refuse, restart, continue"),
    ],
)
def test_mistakes_are_explained(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(*overrides)


def test_later_files_win_and_overrides_win_over_all(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("NAME: base\nSAVE_DIR: base\nEVAL: {LIMIT: 1, TIMEOUT_HOURS: 1e-1}\n")
    (tmp_path / "a.yaml").write_text("_BASE_: base.yaml\nNAME: a\nEVAL: {LIMIT: 2}\n")
    (tmp_path / "b.yaml").write_text("NAME: b\n")
    config = load("EVAL.LIMIT", "3", files=(tmp_path / "a.yaml", tmp_path / "b.yaml"))
    assert (config.NAME, config.SAVE_DIR, config.EVAL.LIMIT, config.EVAL.TIMEOUT_HOURS) == ("b", "base", 3, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NAME: [", r"bad\.yaml:\d+: not valid YAML"),
        ("- 1\n", r"bad\.yaml: expected a mapping of keys, found list"),
        ("NAMME: x\n", r"bad\.yaml:1: unknown key NAMME; did you mean NAME"),
        ("LLM: {BITS: many}\n", r"bad\.yaml:1: LLM\.BITS: expected a whole number, got 'many'"),
        ("LLM: {BITS: true}\n", r"bad\.yaml:1: LLM\.BITS: expected a whole number, got 'true'"),
        ("NAME: a\nNAME: b\n", r"bad\.yaml:2: not valid YAML \(the key 'NAME' stands twice\)"),
        ("_BASE_: bad.yaml\n", r"bad\.yaml: _BASE_ leads back to itself"),
        ("_BASE_: nowhere.yaml\n", r"_BASE_ names .*nowhere\.yaml, which does not exist"),
        ("x: !!python/object/apply:os.getcwd []\n", r"bad\.yaml:1: not valid YAML"),
    ],
)
def test_files_are_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(files=(tmp_path / "bad.yaml",))


def test_a_missing_file_names_both_places() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml not found \(looked in"):
        load(files=(Path("nowhere.yaml"),))


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_files_load_against_the_declared_sections(file: Path) -> None:
    config = load_config([file], [], load_catalog(added=split_files([file])[0]).sections, EvalConfig)
    assert read_yaml(file).get("NAME", "collavo") == config.NAME


def keys(cls: type, prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, hint in get_type_hints(cls).items():
        found += (
            keys(hint, f"{prefix}{name}.") if isinstance(hint, type) and is_dataclass(hint) else [f"{prefix}{name}"]
        )
    return found


@pytest.mark.parametrize(
    "key", [*keys(EvalSchema), "TEST.BATCH_SIZE_TOTAL", "TEST.NUM_BEAMS", "TEST.MAX_NEW_TOKENS", "TEST.PROMPT"]
)
def test_every_key_is_read_by_code_other_than_its_checks(key: str) -> None:
    """Each last word is read as an attribute somewhere outside the schema and its checks."""
    code = ""
    for package in ("pipeline", "collavo", "modeling", "datasets"):
        for file in (REPOSITORY / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            code += text.split("def _check(")[0] if file.name == "config.py" else text
    assert re.search(rf"\.{key.split('.')[-1]}\b(?!\s*:)", code), key


def test_overrides_change_the_declaration() -> None:
    pope = load_catalog().select("pope_test")[0]
    changed = load("POPE.TEST.NUM_BEAMS", "1", "POPE.TEST.PROMPT", "{question}!").declared(pope)
    assert (changed.num_beams, changed.prompt, changed.max_new_tokens) == (1, "{question}!", pope.max_new_tokens)
    assert load().declared(pope) == replace(pope, num_beams=3), "CoLLaVO's beams, which its profile has"


GOOD: dict[str, Any] = {
    "name": "x",
    "version": 1,
    "source": "s",
    "data": {"reader": "pope"},
    "prompt": "{question}",
    "generate": {"num_beams": 1, "max_new_tokens": 2},
    "scorer": {"kind": "yes_no"},
}


FIGURE = {"metric": "accuracy", "value": 87, "tolerance": "3e-1", "from": 2023}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promt": "x"}, "unknown key 'promt'; did you mean prompt?"),
        ({"version": "1"}, "x.yaml: version: expected int, got '1'"),
        ({"prompt": "{question!r}"}, "only plain {field} placeholders"),
        ({"prompt": "{a.b}"}, "only plain {field} placeholders"),
        ({"generate": {"num_beams": 0}}, "generate.num_beams: must be greater than or equal to 1, got 0"),
        (
            {"generate": {"num_beam": 1}},
            "generate: unknown key 'num_beam'; did you mean num_beams? Known keys",
        ),
        ({"data": {"reader": 1}}, "x.yaml: data.reader: expected str, got 1"),
        ({"scorer": {}}, "scorer.kind is missing"),
        ({"prompt": "{question"}, "the prompt is no template"),
        ({"name": "../x"}, "x.yaml: name: '../x' cannot be used"),
        ({"dataset": "all"}, "x.yaml: dataset: 'all' cannot be used"),
        ({"released": {"generate": {}}}, "x.yaml: released: unknown key 'generate'. Known keys: data, scorer, prompt"),
        ({"scorer": 3}, "x.yaml: scorer: expected a mapping, got 3"),
        ({"download": ["a", 1]}, "x.yaml: download[1]: expected str, got 1"),
        ({"released": {"prompt": "{"}}, "x.yaml: released.prompt: the prompt is no template"),
        ({"expected": [FIGURE, FIGURE | {"value": "much"}]}, "x.yaml: expected[1].value: "),
        ({"expected": FIGURE | {"form": "x"}}, "x.yaml: expected[0]: unknown key 'form'; did you mean from?"),
        ({"expected": {"metric": "a"}}, "x.yaml: expected[0]: missing keys value, tolerance, from"),
    ],
)
def test_declarations_are_strict(change: dict[str, Any], message: str) -> None:
    assert parse_declaration(GOOD, "x.yaml").name == "x"
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_declaration(GOOD | change, "x.yaml")


def test_short_forms_of_declarations_mean_the_long_ones() -> None:
    short = GOOD | {"scorer": "yes_no", "download": "images: x", "expected": FIGURE}
    full = GOOD | {"scorer": {"kind": "yes_no"}, "download": ["images: x"], "expected": [FIGURE]}
    assert parse_declaration(short, "x.yaml") == parse_declaration(full, "x.yaml")
    (figure,) = parse_declaration(full, "x.yaml").expected
    assert figure == Expected(metric="accuracy", value=87.0, tolerance=0.3, source="2023")
    bare = parse_declaration({"name": "a-b", "data": {}, "prompt": "q", "scorer": "yes_no"}, "x.yaml")
    assert (bare.dataset, bare.section, bare.title) == ("a-b", "A_B", "a-b")
    assert (bare.source, bare.reader) == ("x.yaml", "tables")
    assert (bare.version, bare.num_beams, bare.max_new_tokens, bare.as_released()) == (1, 1, 128, bare)


def test_unknown_datasets_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean pope_test"):
        load_catalog().select("pope")
    with pytest.raises(ConfigError, match="names no dataset"):
        load_catalog().select(" , ")


def test_every_field_of_the_schema_is_documented() -> None:
    for cls in (EvalSchema, *(f.default_factory for f in fields(EvalSchema) if callable(f.default_factory))):
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        assert all(f"{name}:" in (cls.__doc__ or "") for name in names), cls


def defaults(cls: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of every key."""
    hints, made = get_type_hints(cls, include_extras=True), cls()
    found: list[tuple[str, Any, Any]] = []
    for item in fields(cls):
        hint = hints[item.name]
        below = defaults(hint, f"{prefix}{item.name}.") if is_dataclass(hint) else None
        found += [(prefix + item.name, hint, getattr(made, item.name))] if below is None else below
    return found


@pytest.mark.parametrize(
    ("key", "hint", "value"), defaults(TrainSchema), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_default_is_one_that_its_key_would_take(key: str, hint: Any, value: Any) -> None:
    assert TypeAdapter(hint).validate_python(value, strict=True) == value, key
