"""What a training run leaves: alone, merged, in the released layout, and in plain PEFT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from assets.tiny.random_checkpoint import make_tiny
from collavo.adapters import IMAGE_CIT, VL_CIT, Adapters, crayon_parameters
from collavo.checkpoint.finetuned_checkpoint import TrainingState, identity_of, load_crayon, read_state, use_base
from collavo.checkpoint.location import take_base
from collavo.checkpoint.names import fingerprint
from collavo.checkpoint.settings import settings_for
from collavo.errors import CheckpointError
from collavo.load_collavo import load_model
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.options import CrayonConfig, LLMConfig
from pipeline.runtime.errors import RunError
from trainer.checkpoint import save, write_tuned
from trainer.checkpoint_folders import newest
from trainer.merge import merge

CPU, LLM = torch.device("cpu"), LLMConfig(BITS=32, DTYPE="fp32")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run's checkpoint with both adapters away from their start."""
    folder = tmp_path_factory.mktemp("left")
    make_tiny(folder / "base", seed=0)
    model = load_model(LLM, folder / "base", CPU, trainable=True)
    adapters = Adapters(model, (IMAGE_CIT, VL_CIT), rank=4, alpha=8)
    torch.manual_seed(0)
    for parameters in (*map(adapters.parameters, adapters.names), crayon_parameters(model)):
        for parameter in parameters.values():
            torch.nn.init.normal_(parameter, std=0.1)
    state = TrainingState(
        step=7,
        started_from=str(folder / "base"),
        stage="cit",
        adapters=adapters.names,
        rank=4,
        alpha=8,
        crayon="both",
        settings={"CRAYON": {"OBJECT_LIST": False, "MAP_SCALE": 2}},
        segmenter={"NAME": "none"},
    )
    crayon = {name: parameter.detach() for name, parameter in crayon_parameters(model).items()}
    sets = {name: p.detach() for each in adapters.names for name, p in adapters.parameters(each).items()}
    write = partial(write_tuned, state=state, crayon=crayon, adapters=adapters, weights=sets)
    return save(folder, state.step, write, {}, [{"cpu": torch.get_rng_state()}], keep=2)


def rights(folder: Path) -> int:
    """Of a file that is newly made in a folder."""
    (folder / "probe").touch()
    return (folder / "probe").stat().st_mode & 0o777


def test_others_may_read_what_a_training_leaves(left: Path, tmp_path: Path) -> None:
    assert {file.stat().st_mode & 0o777 for file in left.rglob("*") if file.is_file()} == {rights(tmp_path)}


def logits(model: CoLLaVOForConditionalGeneration) -> torch.Tensor:
    """Of a prompt with an image."""
    torch.manual_seed(1)
    tokens = model.config.num_image_tokens
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([[1, model.config.image_token_id, 5, 6, 7]]),
            pixel_values=torch.randn(1, 3, 112, 112),
            semantic=torch.randint(0, 134, (1, tokens)),
            numbering=torch.randint(0, 21, (1, tokens)),
        )
    return output.logits


@pytest.fixture(scope="module")
def alone(left: Path) -> Iterator[torch.Tensor]:
    yield logits(load_model(LLM, left, CPU))


@pytest.mark.parametrize("released", [False, True])
def test_merged_is_the_same_model(left: Path, alone: torch.Tensor, released: bool, tmp_path: Path) -> None:
    base = logits(load_model(LLM, left.parents[1] / "base", CPU))
    assert (base - alone).abs().max() > 0.1
    merge(left, tmp_path / "whole", dtype="fp32", released=released)
    assert torch.allclose(logits(load_model(LLM, tmp_path / "whole", CPU)), alone, atol=2e-4)
    settings = settings_for(tmp_path / "whole")
    assert (settings.crayon, settings.segmenter.NAME) == (CrayonConfig(OBJECT_LIST=False, MAP_SCALE=2), "none")
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "whole").iterdir()} == {rights(tmp_path)}
    with pytest.raises(RunError, match="is not empty"):
        merge(left, tmp_path / "whole", dtype="fp32", released=released)
    with pytest.raises(RunError, match="nothing to merge"):
        merge(tmp_path / "whole", tmp_path / "again", dtype="fp32", released=released)


def test_plain_peft_loads_the_sets(left: Path, alone: torch.Tensor) -> None:
    model = load_model(LLM, left.parents[1] / "base", CPU)
    load_crayon(left, crayon_parameters(model))
    peft = PeftModel.from_pretrained(model, str(left / IMAGE_CIT), adapter_name=IMAGE_CIT)
    peft.load_adapter(str(left / VL_CIT), VL_CIT)
    tuner: Any = peft.base_model
    tuner.set_adapter([IMAGE_CIT, VL_CIT])
    assert torch.equal(logits(model), alone)


def test_its_identity_follows_from_what_was_trained_and_on_what(left: Path) -> None:
    before = identity_of(left)
    assert before != fingerprint(left.parents[1] / "base")
    file = left / VL_CIT / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert identity_of(left) != before
    file.write_bytes(content)
    assert identity_of(left) == before


def test_damage_is_explained(left: Path, tmp_path: Path) -> None:
    assert newest(left.parents[1]) == left
    with pytest.raises(CheckpointError, match="not what a training run left"):
        read_state(tmp_path)
    (tmp_path / "state.json").write_text((left / "state.json").read_text().replace("base", "gone"))
    with pytest.raises(CheckpointError, match="which is not there"):
        read_state(tmp_path)


def test_old_checkpoints_go_and_half_ones_do_not_count(left: Path, tmp_path: Path) -> None:
    model = load_model(LLM, left.parents[1] / "base", CPU, trainable=True)
    adapters, state = Adapters(model, ()), read_state(left)
    for step in (1, 2, 3):
        values = TrainingState(**{**vars(state), "step": step, "adapters": ()})
        write = partial(write_tuned, state=values, crayon=crayon_parameters(model), adapters=adapters, weights={})
        save(tmp_path, step, write, {}, [{"cpu": torch.get_rng_state()}], keep=2)
        for half in (".step-00000009.partial", ".step-00000001.gone"):  # left by kills
            (tmp_path / "checkpoints" / half).mkdir()
        found = newest(tmp_path)
        assert found is not None and found.name == f"step-{step:08d}"
    values = TrainingState(**{**vars(state), "step": 3, "adapters": ()})
    write = partial(write_tuned, state=values, crayon=crayon_parameters(model), adapters=adapters, weights={})
    save(tmp_path, 3, write, {}, [{"cpu": torch.get_rng_state()}], keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def test_a_base_that_has_moved_is_named(left: Path, tmp_path: Path) -> None:
    """By BASE, and never another checkpoint in its place."""
    state = json.loads((left / "state.json").read_text())
    below = Path(state["started_from"])
    state["settings"]["foundation"] = fingerprint(below)
    moved, copy = tmp_path / "moved", tmp_path / "left"
    shutil.copytree(below, moved)
    shutil.copytree(left, copy)
    state["started_from"] = str(tmp_path / "gone")
    (copy / "state.json").write_text(json.dumps(state))
    try:
        with pytest.raises(CheckpointError, match="which is not there.*BASE"):
            read_state(copy)
        use_base(moved)
        assert read_state(copy).started_from == str(moved)
        (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
        with pytest.raises(CheckpointError, match=f"^BASE: {moved} is not the checkpoint that .* was trained on"):
            read_state(copy)
        with pytest.raises(CheckpointError, match="is a whole checkpoint and has no base"):
            take_base(str(moved), str(moved))
    finally:
        use_base(None)
