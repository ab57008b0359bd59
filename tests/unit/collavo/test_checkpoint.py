"""Checkpoint layouts: names both ways, sizes from tensors, shards, and files that are broken."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from assets.tiny.random_checkpoint import tiny_config
from collavo.checkpoint.examine import describe_checkpoint
from collavo.checkpoint.names import (
    export_released,
    fingerprint,
    from_released,
    is_released_layout,
    read_tensors,
    to_released,
    weight_files,
)
from collavo.config import CoLLaVOConfig
from collavo.errors import CheckpointError
from collavo.model import CoLLaVOForConditionalGeneration


@pytest.fixture(scope="module")
def model() -> CoLLaVOForConditionalGeneration:
    torch.manual_seed(0)
    return CoLLaVOForConditionalGeneration(tiny_config(61, 60)).eval()


@pytest.fixture
def released(model: CoLLaVOForConditionalGeneration, tmp_path: Path) -> Path:
    export_released(model, tmp_path / "released", max_shard_size="200KB")
    return tmp_path / "released"


def test_every_name_translates_there_and_back(model: CoLLaVOForConditionalGeneration) -> None:
    for key in model.state_dict():
        assert from_released(to_released(key)) == key
    with pytest.raises(KeyError):
        from_released("model.unheard_of.weight")
    with pytest.raises(KeyError):
        to_released("unheard_of.weight")


def test_the_unused_pair_of_w2_is_left_out_and_written_back(
    model: CoLLaVOForConditionalGeneration, released: Path
) -> None:
    assert from_released("model.layers.3.feed_forward.w2.Plora_seg_A.weight") is None
    names = set(json.loads((released / "model.safetensors.index.json").read_text())["weight_map"])
    assert "model.layers.1.feed_forward.w2.Plora_seg_B.weight" in names
    assert len(names) == len(model.state_dict()) + 2 * 2


def test_released_layout_round_trip(model: CoLLaVOForConditionalGeneration, released: Path) -> None:
    assert is_released_layout(released)
    assert len(weight_files(released)) > 1
    tensors = read_tensors(released)
    state = model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)
    config = CoLLaVOConfig(**describe_checkpoint(released).sizes.model_dump())
    for part in ("text", "vision"):
        ours, theirs = getattr(config, part).to_dict(), getattr(model.config, part).to_dict()
        assert {k: v for k, v in ours.items() if theirs[k] != v} == {}
    assert (config.image_token_id, config.crayon_width, config.semantic_rows) == (60, 32, 134)


def test_sharded_bin_is_read_without_running_pickled_code(
    model: CoLLaVOForConditionalGeneration, tmp_path: Path
) -> None:
    export_released(model, tmp_path / "r")
    state = {to_released(key): value for key, value in model.state_dict().items()}
    directory = tmp_path / "bin"
    directory.mkdir()
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[:50], "pytorch_model-00002-of-00002.bin": names[50:]}
    for file, keys in shards.items():
        torch.save({key: state[key].half() for key in keys}, directory / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_text((tmp_path / "r" / "config.json").read_text())
    tensors = read_tensors(directory)
    assert all(torch.equal(tensors[key], value.half()) for key, value in model.state_dict().items())

    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"model.norm.weight": Harmful()}, directory / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(
        CheckpointError, match=r"00001-of-00002\.bin: .*a pickle that wants to run code \('posix\.mkdir'\)"
    ):
        read_tensors(directory)
    assert not (tmp_path / "executed").exists()


def test_broken_directories_are_explained(released: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint directory"):
        weight_files(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no weights"):
        weight_files(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json: not found"):
        read_tensors(tmp_path)
    shard = weight_files(released)[0]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{shard.name}: not a readable weight file"):
        read_tensors(released)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"names shards that are missing: {shard.name}"):
        weight_files(released)
    (released / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: not readable as JSON"):
        is_released_layout(released)


def test_an_unknown_tensor_is_named(released: Path) -> None:
    (released / "model.safetensors.index.json").unlink()
    save_file({"model.stranger.weight": torch.zeros(2)}, released / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'model\.stranger\.weight' is no parameter of CoLLaVO"):
        read_tensors(released)


def test_fingerprint_follows_weights_and_configuration(released: Path) -> None:
    first = fingerprint(released)
    assert fingerprint(released) == first
    file = weight_files(released)[-1]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    second = fingerprint(released)
    assert second != first
    (released / "config.json").write_text(
        (released / "config.json").read_text().replace('"bias": false', '"bias":  false')
    )
    assert fingerprint(released) not in (first, second)


def test_fingerprint_of_large_files_reads_samples_and_the_end(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.truncate(65 * 2**20)
    first = fingerprint(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")
    assert fingerprint(tmp_path) != first
