"""The first release's configuration, script and names are taken as they are; what they set in vain is named.

The keys of its file stand here as they were (at fb419fad), with values and words of our own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.load import REPOSITORY, ConfigError
from pipeline.benchmarks import select_pipeline
from pipeline.catalog import load_catalog
from pipeline.commands.cli import main
from pipeline.config import read_configuration
from pipeline.runtime.errors import RunError
from trainer.cli import COMMANDS
from trainer.config import read_training

BENCHMARKS = (
    *("GQA", "TEXTVQA", "SCIENCEQA", "POPE", "MME", "MMBENCH", "QBENCH", "MMVET", "MATHVISTA", "AI2D"),
    *("HALLUSIONBENCH", "SEED"),
)
LOADER = dict.fromkeys(("FILTER_EMPTY_ANNOTATIONS", "NUM_WORKERS", "LOAD_PROPOSALS", "SAMPLER_TRAIN"), 0)
LOADER["ASPECT_RATIO_GROUPING"] = 0
NAMES = (
    "IMAGE_SIZE",
    "DATASET_MAPPER_NAME",
    "IGNORE_VALUE",
    "COLOR_AUG_SSD",
    "SIZE_DIVISIBILITY",
    "MASK_FORMAT",
    "FORMAT",
)
SECTION: dict[str, Any] = {
    "INPUT": {**dict.fromkeys(NAMES, 0), "CROP": {"ENABLED": True}, "NUM_CLASSES": 9},
    "TEST": {"BATCH_SIZE_TOTAL": 7, "TEMPERATURE": 0, "TOP_P": "None", "NUM_BEAMS": 1, "MAX_NEW_TOKENS": 128},
    "DATALOADER": LOADER,
}
FILE: dict[str, Any] = {
    "NAME": "released",
    "DATASETS": {"TRAIN": "", "TEST": "", "SIZE_DIVISIBILITY": 32, "PROPOSAL_FILES_TRAIN": []},
    "OPTIMIZER": dict.fromkeys(("LR", "LAST_LR", "PERIOD", "WEIGHT_DECAY", "EPOCH", "GRAD_MAX", "GRAD_CUM"), 1),
    "LLM": {"LOAD_LLM": True, "BITS": 8, "GRAD_CKPT": False, "LORA": False, "DTYPE": "bf16"},
    "PIPELINE": "CoLLaVOPipeline",
    "SAVE_DIR": "",
    "base_path": "./",
    "RESUME": False,
    "WEIGHT": False,
    "RESET_DATA_LOADER": False,
    "RESUME_FROM": "",
    "EVAL_AT_START": False,
    "WANDB": False,
    "MODEL": {
        **{"NAME": "some_model", "MASK_ON": False, "KEYPOINT_ON": False, "LOAD_PROPOSALS": False},
        "DECODER": {"TEST": dict.fromkeys(("SEMANTIC_ON", "INSTANCE_ON", "PANOPTIC_ON", "OVERLAP_THRESHOLD"), 1)},
    },
    "INPUT": {"PIXEL_MEAN": [1.5, 2.5, 3.5], "PIXEL_STD": [1.5, 2.5, 3.5]},
    "DATALOADER": LOADER,
    **dict.fromkeys(BENCHMARKS, SECTION),
}
SIZED = ("MME", "SCIENCEQA", "POPE", "MMBENCH", "MMVET", "AI2D", "HALLUSIONBENCH", "MATHVISTA", "QBENCH", "SEED")
"""Sections that the script gives a batch size, in its order."""


@pytest.fixture
def released(tmp_path: Path) -> Path:
    file = tmp_path / "collavo_eval.yaml"
    dumper = yaml.SafeDumper
    dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign, assignment]
    file.write_text(yaml.dump(FILE, Dumper=dumper, sort_keys=False), encoding="utf-8")
    return file


def test_its_file_is_read_and_one_line_names_what_does_nothing(released: Path) -> None:
    config, catalog = read_configuration([released], [])
    (note,) = config.notes
    assert "\n" not in note
    for name in (
        *("OPTIMIZER", "LLM.LOAD_LLM", "LLM.GRAD_CKPT", "LLM.LORA", "MODEL", "INPUT", "DATALOADER", "base_path"),
        *("DATASETS.TRAIN", "DATASETS.SIZE_DIVISIBILITY", "RESET_DATA_LOADER", "EVAL_AT_START", "<benchmark>.INPUT"),
        *("<benchmark>.TEST.TEMPERATURE", "<benchmark>.TEST.TOP_P", "<benchmark>.DATALOADER"),
        *("TRAIN.GRADIENT_CHECKPOINTING", "EVAL.WORKERS", "SEGMENTER"),
    ):
        assert name in note, name
    assert (config.LLM.BITS, config.LLM.DTYPE, config.SAVE_DIR) == (8, "bf16", "outputs/eval")
    assert config.sections["POPE"].TEST.BATCH_SIZE_TOTAL == 7
    pope = catalog.benchmarks["pope_test"]
    assert config.declared(pope) == pope, "beams and lengths of its file were read by nothing"
    assert type(select_pipeline(config.PIPELINE, pope)).__name__ == "CoLLaVOPOPEPipeline"


def test_beams_of_a_file_of_ours_and_of_overrides_count(released: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("POPE: {TEST: {NUM_BEAMS: 2}}\n")
    assert read_configuration([released, tmp_path / "ours.yaml"], [])[0].sections["POPE"].TEST.NUM_BEAMS == 2
    assert read_configuration([released], ["MME.TEST.MAX_NEW_TOKENS", "9"])[0].sections["MME"].TEST.MAX_NEW_TOKENS == 9


def test_training_reads_its_file_too(released: Path) -> None:
    config, _ = read_training([released], ["LLM.BITS", "16"])
    assert (config.RESUME, config.LLM.BITS, len(config.notes)) == (False, 16, 1)


def test_unknown_keys_are_listed_at_once_with_lines_and_near_names(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("NAM: x\nLLM:\n  BITZ: 4\n  LOAD_LLM: true\nNOVEL:\n  A: 1\nPOPE: {TEST: {BATCH_SIZ_TOTAL: 3}}\n")
    with pytest.raises(ConfigError) as caught:
        read_configuration([file], ["EVAL.LIMITS", "3"])
    lines = str(caught.value).split("\n")
    assert len(lines) == 5
    for line, (number, hint) in zip(
        lines,
        [(1, "did you mean NAME"), (3, "LLM.BITS"), (5, "NOVEL"), (7, "POPE.TEST.BATCH_SIZE_TOTAL")],
        strict=False,
    ):
        assert line.startswith(f"{file}:{number}: unknown key")
        assert hint in line
    assert "did you mean EVAL.LIMIT" in lines[4]


@pytest.mark.parametrize(
    "word", ["OPTIMIZER.LR", "MODEL.DECODER.TEST.PANOPTIC_ON", "GQA.TEST.TEMPERATURE", "VERBOSE", "FP16"]
)
def test_overrides_of_dead_keys_are_named(word: str) -> None:
    (note,) = read_configuration([], [word, "1"])[0].notes
    assert note.startswith("--overrides: ")
    assert word.split(".")[-1] in note


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("gqa_testdev_balanced", ["GQAPipeline", "CoLLaVOGQAPipeline"]),
        ("scienceqa_test", ["SQAPipeline", "CoLLaVOSQAPipeline"]),
        ("textvqa_val", ["TextVQAPipeline"]),
        ("pope_test", ["POPEPipeline", "CoLLaVOPOPEPipeline", "CoLLaVOPipeline", "MoAIPipeline"]),
        ("mme", ["MMEPipeline"]),
        ("mmbench", ["MMBenchPipeline"]),
        ("mmbench_cn", ["MMBenchPipeline"]),
        ("mm-vet", ["MMVetPipeline"]),
        ("qbench_dev", ["QBenchPipeline"]),
        ("mathvista_testmini", ["MathVistaPipeline"]),
        ("ai2d", ["AI2DPipeline"]),
        ("seed", ["SEEDPipeline"]),
        ("hallusionbench", ["HallusionBenchPipeline", "HallusionPipeline", "CoLLaVOHallusionPipeline"]),
        ("chartqa_test", ["ChartQAPipeline"]),
    ],
)
def test_its_datasets_and_classes_are_known(dataset: str, names: list[str]) -> None:
    (benchmark,) = load_catalog().select(dataset)
    own = type(select_pipeline(None, benchmark)).__name__
    assert {type(select_pipeline(name, benchmark)).__name__ for name in names} == {own}
    with pytest.raises(RunError, match="did you mean"):
        select_pipeline(names[0] + "s", benchmark)


def test_splits_that_it_could_ask_but_not_score_name_those_with_answers() -> None:
    for name in ("mmbench_test", "mmbench_test_cn", "qbench_test", "mathvista_test"):
        with pytest.raises(ConfigError, match=f"'{name}' has no declaration here.*{name.split('_')[0]}"):
            load_catalog().select(name)


def words_of(script: str) -> list[str]:
    """What a shell makes of a command."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {script}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def command(dataset: str, pipeline: str, end: str, indent: str) -> str:
    """The overrides of the released script, in its order, as a shell command."""
    sizes = "".join(f"{indent}{name}.TEST.BATCH_SIZE_TOTAL $((6 * 1)) \\\n" for name in SIZED)
    return (
        f"--overrides \\\n{indent}WANDB False \\\n{indent}DATASETS.TEST {dataset}{end}\\\n"
        f"{indent}PIPELINE {pipeline} \\\n"
        f"{sizes}{indent}SAVE_DIR results \\\n{indent}WEIGHT True \\\n{indent}RESUME_FROM . \\\n{'#' * 40}\n"
    )


@pytest.mark.parametrize(
    ("dataset", "pipeline", "end", "indent", "joined"),
    [
        ("mme", "MMEPipeline", " ", "    ", False),
        ("pope_test", "CoLLaVOPOPEPipeline", "", "            ", False),  # no space before the backslash
        ("pope_test", "CoLLaVOPOPEPipeline", "", "", True),  # and none after it: a copy without indentation
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_the_script_runs_as_it_is(
    *, dataset: str, pipeline: str, end: str, indent: str, joined: bool, own: bool, released: Path
) -> None:
    words = words_of(command(dataset, pipeline, end, indent))
    assert (len(words) % 2 == 1) is not joined  # the option's name, and pairs
    file = REPOSITORY / "configs" / "collavo_eval.yaml" if own else released
    config, catalog = read_configuration([file], words[1:])
    assert [dataset, pipeline, True, "."] == [config.DATASETS.TEST, config.PIPELINE, config.WEIGHT, config.RESUME_FROM]
    assert {config.sections[name].TEST.BATCH_SIZE_TOTAL for name in SIZED} == {6}
    assert type(select_pipeline(config.PIPELINE, catalog.select(dataset)[0])).__name__.endswith(pipeline)
    assert any("is read as 'pope_test' and 'PIPELINE'" in note for note in config.notes) is joined


def test_a_missing_value_is_still_a_mistake() -> None:
    with pytest.raises(ConfigError, match="'NAME' has no value"):
        read_configuration([], ["WANDB", "False", "NAME"])


def test_notes_go_to_the_terminal_once(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--print-config", "--conf_files", str(released)], COMMANDS) == 0
    printed = capsys.readouterr()
    assert printed.err.count("note: ") == 1
    assert yaml.safe_load(printed.out)["LLM"] == {"BITS": 8, "DTYPE": "bf16", "ATTENTION": "auto", "CUDA_GRAPHS": True}
