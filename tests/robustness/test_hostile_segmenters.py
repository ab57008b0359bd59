"""Segmenters' checkpoints with anything wrong in them: refused by name, or loaded as they should be."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling.image import DecodedImage
from modeling.segmenters import build_segmenter
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from modeling.segmenters.xdecoder.checkpoint import load_model, save_model
from tests.limits import LIMIT, examples
from tests.robustness.hostile import POINTER, copied, mutate
from tests.unit.segmenters.tiny_mask2former import save_tiny_mask2former
from tests.unit.segmenters.tiny_xdecoder import random_embeddings, tiny_xdecoder

MUTATIONS = examples(25)


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    faulthandler.dump_traceback_later(LIMIT, exit=True)  # ends what hangs
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def xdecoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("xdecoder"), tiny_xdecoder()
    save_model(folder, model, random_embeddings(model))
    return folder


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_mask2former(tmp_path_factory.mktemp("mask2former"))


@pytest.mark.parametrize("name", ["xdecoder", "mask2former"])
def test_mutated_checkpoints_are_refused_or_segment(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(name)
    image = DecodedImage(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8), "noise.png")
    refused = 0
    for seed in range(MUTATIONS):
        folder = copied(source, tmp_path / str(seed))
        said, _ = mutate(folder, random.Random(f"{name} {seed}"))
        try:
            config = SegmenterConfig(NAME=name, PATH=str(folder), SHORT_SIDE=64 if name == "xdecoder" else None)
            maps = build_segmenter(config).segment([image], (8, 8))
        except SegmenterError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"mutation {seed}, {said}: {error!r}") from error
        else:
            assert maps[0].id_map.shape == (8, 8), said
        shutil.rmtree(folder)
    assert refused


def part(name: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[name].update(values)


def top(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (part("decoder", num_layers=10**6), "layers, but .* tensors"),
        (part("backbone", depths=[10**9] * 4), "layers, but .* tensors"),
        (part("text", num_layers=10**6), "layers, but .* tensors"),
        (part("decoder", num_heads=0), "num_heads: 0 does not divide"),
        (part("decoder", num_queries=10**30), "num_queries: out of range"),
        (part("decoder", ffn_dim=-1), "."),
        (top(pixel_mean=[1e999, 0, 0]), "is no number that JSON knows"),
        (top(pixel_std=[0, 1, 1]), "pixel_std"),
        (top(size_divisibility=2**30), "size_divisibility"),
        (top(backbone=[]), "backbone"),
    ],
)
def test_sizes_of_an_xdecoder_are_checked_before_it_is_built(
    change: Callable[[dict[str, Any]], None], message: str, xdecoder: Path, tmp_path: Path
) -> None:
    folder = copied(xdecoder, tmp_path / "c")
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content).replace("Infinity", "1e999"))
    with pytest.raises(SegmenterError, match=message):
        load_model(folder)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo executed > executed",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_bytes(POINTER), "is a git-lfs pointer"),
        (lambda file: torch.save({"a": Harmful()}, file), r"wants to run code"),
        (
            lambda file: torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=False),
            "format of torch before 1.6",
        ),
    ],
)
def test_what_stands_in_the_place_of_a_released_xdecoder_is_named(
    write: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pt")
    with pytest.raises(SegmenterError, match=message) as caught:
        build_segmenter(SegmenterConfig(NAME="xdecoder", PATH=str(tmp_path / "x.pt")))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_weights_that_are_no_numbers_are_named(xdecoder: Path, mask2former: Path, tmp_path: Path) -> None:
    for name, source, key in (
        ("xdecoder", xdecoder, "decoder.query_start"),
        ("mask2former", mask2former, "class_predictor.weight"),
    ):
        folder = copied(source, tmp_path / name)
        tensors = load_file(folder / "model.safetensors")
        tensors[key].view(-1)[3] = float("nan")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(SegmenterError, match=f"{key}.* holds NaN"):
            build_segmenter(SegmenterConfig(NAME=name, PATH=str(folder)))


def test_a_mask2former_with_a_missing_weight_is_not_filled_up_at_random(mask2former: Path, tmp_path: Path) -> None:
    folder = copied(mask2former, tmp_path / "c")
    tensors = load_file(folder / "model.safetensors")
    del tensors["class_predictor.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SegmenterError, match=r"class_predictor\.bias is missing"):
        build_segmenter(SegmenterConfig(NAME="mask2former", PATH=str(folder)))


def test_a_map_outside_of_its_folder_is_refused(tmp_path: Path) -> None:
    content = {
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 1, "file_name": "../secret.png", "segments_info": []}],
    }
    (tmp_path / "maps").mkdir()
    (tmp_path / "p.json").write_text(json.dumps(content))
    config = SegmenterConfig(NAME="precomputed", PATH=str(tmp_path / "p.json"), IMAGES=str(tmp_path / "maps"))
    segmenter = build_segmenter(config)
    with pytest.raises(SegmenterError, match="leads out of"):
        segmenter.segment([DecodedImage(np.zeros((8, 8, 3), np.uint8), "../secret.png")], (4, 4))
    (tmp_path / "p.json").write_bytes(POINTER)
    with pytest.raises(SegmenterError, match="git-lfs pointer"):
        build_segmenter(config)


def test_a_segmenter_without_a_path_says_so() -> None:
    with pytest.raises(SegmenterError, match=r"SEGMENTER\.PATH: SEGMENTER\.NAME xdecoder needs one"):
        build_segmenter(SegmenterConfig(NAME="xdecoder"))
