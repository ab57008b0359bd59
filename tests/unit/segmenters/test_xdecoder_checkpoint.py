"""X-Decoder's weights on disk: released files by their names, directories of ours, and every way they can be wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.xdecoder.checkpoint import load_model, save_model
from modeling.segmenters.xdecoder.checkpoint_names import UNUSED_NAMES, released_name
from tests.unit.segmenters.tiny_xdecoder import CONFIG, random_embeddings, tiny_xdecoder

PREDICTOR = "sem_seg_head.predictor."


def released() -> dict[str, Tensor]:
    """The tiny model's tensors as a public checkpoint names them, with what is not used."""
    tensors = {str(released_name(key)): tensor for key, tensor in tiny_xdecoder().state_dict().items()}
    return tensors | {name: torch.zeros(2) for name in UNUSED_NAMES}


def save(tensors: object, path: Path) -> Path:
    torch.save(tensors, path)
    return path


def test_a_released_file_shows_its_sizes_and_what_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_model(save(released(), tmp_path / "xdecoder.pt"))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]  # shown by default
    assert len(said) == 1
    assert all(f"{name} ({why})" in said[0] for name, why in UNUSED_NAMES.items())
    assert loaded.model.config == CONFIG
    assert loaded.skipped == UNUSED_NAMES
    assert loaded.has_text_encoder
    assert loaded.kept is None
    assert not loaded.model.training
    for key, tensor in tiny_xdecoder().state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], tensor), key


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    loaded = load_model(save({key: tensor.half() for key, tensor in released().items()}, tmp_path / "x.pth"))
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {torch.float32}


def test_a_configuration_beside_the_file_says_the_sizes(tmp_path: Path) -> None:
    values = CONFIG.to_dict()
    values["decoder"]["num_heads"] = 4
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_model(save(released(), tmp_path / "x.pt")).model.config.decoder.num_heads == 4
    (tmp_path / "config.json").write_text(json.dumps(values | {"widht": 3}))
    with pytest.raises(SegmenterError, match=r"config\.json: .*widht"):
        load_model(tmp_path / "x.pt")


def without(key: str) -> dict[str, Tensor]:
    tensors = released()
    del tensors[key]
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: without(PREDICTOR + "decoder_norm.bias"), "decoder.head.norm.bias is missing"),
        (lambda: without("backbone.patch_embed.proj.weight"), "patch_embed.proj.weight is missing; .*FocalNet"),
        (lambda: released() | {PREDICTOR + "surprise": torch.zeros(1)}, "predictor.surprise is unknown"),
        (lambda: released() | {PREDICTOR + "class_embed": torch.zeros(32, 5)}, "expected"),
        (
            lambda: released() | {PREDICTOR + "decoder_norm.bias": torch.zeros(5)},
            r"decoder\.head\.norm\.bias is \(5,\), expected \(32,\)",
        ),
        (lambda: {"model": released()}, "'model' is a dict, not a tensor"),
        (lambda: [1, 2], "holds a list"),
        (lambda: {"a": torch.zeros(1)}, r"config\.json is missing"),
        (lambda: {"a": Path("x")}, "cannot be read as a checkpoint"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tensors: object, message: str, tmp_path: Path) -> None:
    save(tensors(), tmp_path / "x.pt")  # type: ignore[operator]
    with pytest.raises(SegmenterError, match=message) as caught:
        load_model(tmp_path / "x.pt")
    assert str(tmp_path) in str(caught.value)


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    tensors = {key: tensor for key, tensor in released().items() if "decoder.layers" not in key}
    kept = {key: tensor for key, tensor in tensors.items() if "mask_embed" not in key}
    with pytest.raises(SegmenterError, match=r"mask_layers\.0\.weight, .* and 2 more are missing"):
        load_model(save(kept, tmp_path / "x.pt"))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match="does not exist; xdecoder takes"):
        load_model(tmp_path / "none.pt")
    with pytest.raises(SegmenterError, match=r"model\.safetensors does not exist"):
        load_model(tmp_path)
    rng = np.random.default_rng(0)
    # each of the first ones fails in another way inside the pickle reader
    damaged = [b"no checkpoint", b"junk", b"", b"\x80\x02.", *(rng.bytes(40) for _ in range(20))]
    whole = save(released(), tmp_path / "whole.pt").read_bytes()
    damaged += [whole[: len(whole) // 2], whole[:-100], whole[:30]]
    for name in ("x.pt", "x.safetensors"):
        for content in damaged:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(SegmenterError, match=re.escape(name) + " cannot be read"):
                load_model(tmp_path / name)


def test_our_directory_gives_the_model_back(tmp_path: Path) -> None:
    model = tiny_xdecoder()
    kept = random_embeddings(model)
    save_model(tmp_path, model, kept)
    loaded = load_model(tmp_path)
    assert loaded.kept is not None
    assert (loaded.kept.classes, loaded.kept.stuff) == (kept.classes, kept.stuff)
    assert torch.equal(loaded.kept.vectors, kept.vectors)
    assert loaded.model.config == CONFIG
    assert all(torch.equal(loaded.model.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    assert load_model(tmp_path).digest == loaded.digest
    (tmp_path / "class_embeddings.safetensors").write_bytes(b"nothing")
    with pytest.raises(SegmenterError, match="class_embeddings.safetensors cannot be read"):
        load_model(tmp_path)


def test_embeddings_of_another_text_encoder_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_xdecoder()
    kept = random_embeddings(model)
    with torch.no_grad():
        model.text_encoder.projection[0, 0] += 1
    save_model(tmp_path, model, kept)
    assert load_model(tmp_path).kept is None
    assert "made by another text encoder" in caplog.text


def test_a_model_without_text_encoder_has_none(tmp_path: Path) -> None:
    model = tiny_xdecoder()
    with pytest.raises(SegmenterError, match="needs class embeddings next to it"):
        save_model(tmp_path / "a", model, with_text=False)
    save_model(tmp_path / "b", model, random_embeddings(model), with_text=False)
    loaded = load_model(tmp_path / "b")
    assert not loaded.has_text_encoder
    assert not hasattr(loaded.model, "text_encoder")
    (tmp_path / "b" / "class_embeddings.safetensors").unlink()
    with pytest.raises(SegmenterError, match="text_encoder.* missing"):
        load_model(tmp_path / "b")
