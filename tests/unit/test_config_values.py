"""How values are read: by the type of their key, from files and overrides alike; and what is printed is read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import ConfigError, read_yaml
from pipeline.config import EvalConfig, read_configuration
from tests.limits import examples
from trainer.config import read_training

TEXTS = [
    "{question}",
    "[",
    "[a",
    "${nope}",
    "${oc.env:HOME}",
    "???",
    "null",
    "~",
    "None",
    "1e5",
    "007",
    "yes",
    "a: b",
    "# x",
    "",
]


def value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.sections[part] if part == "POPE" else getattr(config, part)
    return config


@pytest.mark.parametrize("text", [t for t in TEXTS if t])
def test_a_text_is_taken_as_it_stands(text: str, tmp_path: Path) -> None:
    assert text == read_configuration([], ["NAME", text])[0].NAME
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"NAME": text}))
    assert text == read_configuration([tmp_path / "x.yaml"], [])[0].NAME


@pytest.mark.parametrize("text", ["1e5", "007", "yes", "2024-01-01", "1_000", "1:30", "0x1F", ".inf", "None"])
def test_plain_words_of_a_file_are_texts_where_a_text_is_wanted(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"NAME: {text}\n")
    assert text == read_configuration([tmp_path / "x.yaml"], [])[0].NAME


@pytest.mark.parametrize("text", ["null", "None", "~"])
def test_none_is_for_keys_that_may_have_none(text: str) -> None:
    config = read_configuration([], ["DATASETS.ROOT", text, "POPE.TEST.PROMPT", text, "EVAL.LIMIT", text], EvalConfig)[
        0
    ]
    assert [config.DATASETS.ROOT, config.sections["POPE"].TEST.PROMPT, config.EVAL.LIMIT] == [None, None, None]
    with pytest.raises(ConfigError, match="LLM.BITS: expected a whole number, got"):
        read_configuration([], ["LLM.BITS", text])


FLOATS = [
    "EVAL.TIMEOUT_HOURS",
    "JUDGE.TIMEOUT",
    "JUDGE.TEMPERATURE",
    "JUDGE.BACKOFF",
    "JUDGE.PRICE_INPUT",
    "SEGMENTER.THRESHOLD",
]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "NaN", "1e999"])
@pytest.mark.parametrize(
    "key", [*FLOATS, "TRAIN.LR", "TRAIN.WARMUP", "XDECODER.DICE_WEIGHT", "LORA.DROPOUT", "DATA.SPOIL"]
)
def test_no_number_is_infinite_or_none(key: str, number: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(key)}: "):
        read_training([], [key, number])
    section, _, name = key.rpartition(".")
    (tmp_path / "x.yaml").write_text(f"{section}: {{{name}: {number if number[0] in '1N' else '.' + number}}}\n")
    with pytest.raises(ConfigError, match=f"x.yaml:1: {re.escape(key)}: "):
        read_training([tmp_path / "x.yaml"], [])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["JUDGE.BASE_URL", "http://[::1"], "JUDGE.BASE_URL: is no address of a server"),
        (["JUDGE.BASE_URL", "http://x:99999999/v1"], "JUDGE.BASE_URL: is no address of a server"),
        (["POPE.TEST.PROMPT", "{"], "POPE.TEST.PROMPT: the prompt is no template"),
        (
            ["POPE.TEST.PROMPT", "{question.__class__}"],
            "POPE.TEST.PROMPT: the prompt holds {question.__class__}; only plain",
        ),
        (["SAVE_DIR", "~nosuchuser/x"], "SAVE_DIR: there is no user 'nosuchuser'"),
        (["RESUME_FROM", "a" * 300], "RESUME_FROM: too long for a path"),
        (["DATASETS.ROOT", "a\0b"], "DATASETS.ROOT: a path cannot hold a NUL character"),
        (["NAME", "\udcff"], "NAME: '\\udcff' holds bytes that are no UTF-8 text"),
        (["EVAL.LIMIT", "9" * 30], "EVAL.LIMIT: 999999999999999999999999999999 is too large"),
        (["EVAL.LIMIT", "9" * 9000], "EVAL.LIMIT: expected a whole number or None"),
        (["EVAL.WORKERS", "100000"], "EVAL.WORKERS: must be between 1 and 1024"),
        (["LLM.BITS", "32", "LLM.DTYPE", "bf16"], "use LLM.BITS 16, or LLM.DTYPE fp32"),
        (["LLM.BITS", "16", "LLM.DTYPE", "fp32"], "use LLM.BITS 32, or LLM.DTYPE bf16 or fp16"),
        (["SEGMENTER.CLASSES", "dog"], "SEGMENTER.CLASSES: expected a list, like [a, b], got 'dog'"),
        (["SEGMENTER.CLASSES", "[[a]]"], "SEGMENTER.CLASSES: entry 1: expected text, got ['a']"),
        (["SEGMENTER.CLASSES", "[" * 5000], "SEGMENTER.CLASSES: not valid YAML (nested more than 50 levels deep)"),
        (["TRAIN.LR_END", "1"], "TRAIN.LR_END 1 is above TRAIN.LR 0.0001"),
        (["TRAIN.IMAGE_SHARE", "1.5"], "TRAIN.IMAGE_SHARE: must be between 0 and 1, got 1.5"),
        (["DATA.SPOIL", "1"], "DATA.SPOIL: must be from 0 to below 1, got 1"),
        (["XDECODER.SIDE", "100"], "XDECODER.SIDE: must be a multiple of 32, got 100"),
        (
            ["DATA.CONVERSATIONS", "[{FILE: a, NOPE: b}]"],
            "DATA.CONVERSATIONS: entry 1: unknown key NOPE. There are: FILE, IMAGES",
        ),
        (["DATA.KINDS", "[nope]"], "DATA.KINDS: 'nope' is not one of names"),
        (["TRAIN.CRAYON", "none"], "TRAIN.CRAYON none leaves nothing to train"),
        (["NAM" + "E" * 5000, "x"], "unknown key NAMEEEE"),
    ],
)
def test_mistakes_are_said_at_once_and_short(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_training([], overrides)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? {a: b}\n: c\n", "x.yaml:1: not valid YAML (a key must be a text, not a list or mapping)"),
        ("? [a]\n: b\n", "x.yaml:1: not valid YAML (a key must be a text"),
        ("NAME: !x y\n", "x.yaml:1: not valid YAML (the tag !x is not taken)"),
        ("A: &a [*a]\n", "x.yaml:1: not valid YAML (nested more than 50 levels deep)"),
        ("\tNAME: x\n", "x.yaml:1: not valid YAML"),
        ("EVAL:\n  LIMIT: 1:30\n", "x.yaml:2: EVAL.LIMIT: expected a whole number or None, got '1:30'"),
        ("EVAL:\n  LIMIT: 0x1F\n", "x.yaml:2: EVAL.LIMIT: expected a whole number or None, got '0x1F'"),
        ("NAME:\n", "x.yaml:1: NAME: expected text, got nothing"),
        ("LLM: 4\n", "x.yaml:1: LLM is a section; set one of its keys: BITS"),
        ('NAME: "\\ud800"\n', "x.yaml:1: NAME: '\\ud800' holds bytes that are no UTF-8 text"),
        ("_BASE_: [a]\n", "x.yaml:1: _BASE_ takes the path of one file"),
        ("_BASE_: ~nosuchuser/y.yaml\n", "x.yaml:1: _BASE_: there is no user 'nosuchuser'"),
    ],
)
def test_mistakes_of_files_name_their_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_configuration([tmp_path / "x.yaml"], [])
    assert message in str(caught.value)


def test_a_file_that_grows_without_end_by_its_aliases_is_refused(tmp_path: Path) -> None:
    lines = [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    (tmp_path / "x.yaml").write_text("\n".join(["a0: &a0 [x]", *lines]))
    with pytest.raises(ConfigError, match="more than 100000 values"):
        read_yaml(tmp_path / "x.yaml")


def test_merge_keys_and_aliases_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "POPE: &p {TEST: &t {BATCH_SIZE_TOTAL: 3}}\nMME: {<<: *p}\nGQA: {TEST: {<<: *t, NUM_BEAMS: 2}}\n"
    )
    sections = read_configuration([tmp_path / "x.yaml"], [], EvalConfig)[0].sections
    tests = [sections[name].TEST for name in ("POPE", "MME", "GQA")]
    assert [(test.BATCH_SIZE_TOTAL, test.NUM_BEAMS) for test in tests] == [(3, None), (3, None), (3, 2)]


def test_configuration_files_of_nearly_that_name_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    for wrong, right in (("configs/colavo_step2.yaml", "configs/collavo_step2.yaml"), ("mien.yaml", "mine.yaml")):
        with pytest.raises(ConfigError, match=f"{wrong} not found .* did you mean {right}"):
            read_configuration([wrong], [])


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PATHS = ANY_TEXT.filter(lambda text: "\0" not in text and not text.startswith("~"))
DRAWN: dict[str, st.SearchStrategy[str]] = {
    "NAME": ANY_TEXT,
    "DATASETS.TEST": ANY_TEXT,
    "SAVE_DIR": PATHS.filter(bool),
    "RESUME_FROM": PATHS,
    "DATASETS.ROOT": PATHS,
    "JUDGE.MODEL": ANY_TEXT,
    "WEIGHT": st.sampled_from(["True", "false", "0", "yes"]),
    "LLM.BITS": st.sampled_from(["4", "8"]),
    "EVAL.LIMIT": st.one_of(st.just("None"), st.integers(1, 10**15).map(str)),
    "EVAL.TIMEOUT_HOURS": st.floats(0.01, 8000).map(repr),
    "SEGMENTER.CLASSES": st.lists(ANY_TEXT, max_size=3).map(
        lambda names: yaml.safe_dump(names, default_flow_style=True)
    ),
    "POPE.TEST.PROMPT": ANY_TEXT.map(lambda text: text.replace("{", "{{").replace("}", "}}") + "{question}"),
    "TRAIN.LR": st.floats(1e-5, 1e10).map(repr),
    "TRAIN.STEPS": st.one_of(st.just("None"), st.integers(1, 10**9).map(str)),
    "DATA.SPOIL": st.floats(0, 1, exclude_max=True).map(repr),
    "XDECODER.SCALE": st.sampled_from(["[]", "[0.5, 1]", "[1e-3, 1e3]"]),
    "XDECODER.SIZES": st.dictionaries(
        ANY_TEXT, st.one_of(ANY_TEXT, st.integers(), st.lists(st.floats(allow_nan=False)))
    ).map(lambda sizes: yaml.safe_dump(sizes, default_flow_style=True)),
    "DATA.CONVERSATIONS": st.lists(PATHS).map(
        lambda files: yaml.safe_dump([{"FILE": file, "IMAGES": file} for file in files], default_flow_style=True)
    ),
}


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(st.fixed_dictionaries({}, optional=DRAWN))
def test_what_is_printed_is_read_back(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, str]) -> None:
    config, _ = read_training([], [word for pair in drawn.items() for word in pair])
    file = tmp_path_factory.mktemp("printed") / "printed.yaml"
    file.write_bytes(config.resolved_yaml.encode())
    again, _ = read_training([file], [])
    assert again == config
    assert "POPE" in again.sections


def test_a_declaration_is_printed_and_read_back_with_its_section(tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text("data: {file: zoo.jsonl}\nprompt: '{question}'\nscorer: yes_no\n")
    config, catalog = read_configuration([tmp_path / "zoo.yaml"], ["ZOO.TEST.NUM_BEAMS", "2"], EvalConfig)
    (tmp_path / "printed.yaml").write_text(config.resolved_yaml)
    again, same = read_configuration([tmp_path / "printed.yaml"], [], EvalConfig)
    assert (again.sections["ZOO"].TEST.NUM_BEAMS, again) == (2, config)
    assert same.benchmarks["zoo"].data == catalog.benchmarks["zoo"].data
