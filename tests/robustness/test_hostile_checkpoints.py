"""A checkpoint with anything wrong in it is refused by name, or loaded as it should be: no traceback, no hang."""

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

from assets.tiny.random_checkpoint import make_tiny
from collavo.adapters import IMAGE_CIT, VL_CIT
from collavo.checkpoint.names import export_released, read_tensors, to_released
from collavo.engine import Generation, Query
from collavo.errors import CheckpointError
from collavo.load_collavo import load_engine, load_model
from collavo.options import LLMConfig
from collavo.processing import CoLLaVOProcessor
from modeling.image import DecodedImage
from modeling.segmenters.none import NoSegmenter
from tests.limits import LIMIT, QUICK, examples
from tests.robustness.hostile import POINTER, copied, mutate
from tests.unit.trainer.test_merge import left  # noqa: F401 - a fixture: what a training run leaves

LLM, CPU = LLMConfig(BITS=32, DTYPE="fp32"), torch.device("cpu")
MUTATIONS = examples(50)
"""Of each of the three kinds of checkpoint."""


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    faulthandler.dump_traceback_later(LIMIT, exit=True)  # ends what hangs
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "ours"
    make_tiny(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def released(ours: Path) -> Path:
    """The same in two ``.bin`` shards by the released names."""
    folder = ours.parent / "released"
    model = load_model(LLM, ours, CPU)
    export_released(model, folder)
    for file in folder.glob("model*"):
        file.unlink()
    state = {to_released(key): value.clone() for key, value in model.state_dict().items()}
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for name, keys in shards.items():
        torch.save({key: state[key] for key in keys}, folder / name)
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    CoLLaVOProcessor.from_pretrained(ours).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(left: Path) -> Path:  # noqa: F811 - the fixture
    return left


def answer(folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Weights and a reply."""
    engine = load_engine(LLM, str(folder), NoSegmenter())
    image = DecodedImage(np.zeros((engine.image_size, engine.image_size, 3), np.uint8), "black.png")
    replies = engine.answer([Query(image, "Is there a dog?")], Generation(num_beams=1, max_new_tokens=2))
    return dict(engine.model.state_dict()), replies[0].text


@pytest.mark.parametrize("kind", ["ours", "released", "trained"])
def test_mutated_checkpoints_are_refused_or_right(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source: Path = request.getfixturevalue(kind)
    expected, _ = answer(source)
    refused = 0
    for seed in range(MUTATIONS):
        folder = copied(source, tmp_path / str(seed))
        said, unnoticed = mutate(folder, random.Random(f"{kind} {seed}"))
        try:
            weights, _ = answer(folder)
        except CheckpointError as error:
            assert "weights_only" not in str(error), said
            refused += 1
        except Exception as error:
            raise AssertionError(f"mutation {seed}, {said}: {error!r}") from error
        else:
            assert weights.keys() == expected.keys(), said
            assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()), said
            same = all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
            assert same or unnoticed, f"mutation {seed}, {said}: other weights"
        shutil.rmtree(folder)
    assert refused > MUTATIONS / 4, f"only {refused} of {MUTATIONS} were refused"
    assert QUICK or refused < MUTATIONS, "all were refused"


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def text(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["text_config"].update(values)


def top(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", text(num_attention_heads=0), "text_config.num_attention_heads: .*found 0"),
        ("config.json", text(num_attention_heads=-4), "text_config.num_attention_heads: .*found -4"),
        ("config.json", text(num_attention_heads=3), "3 attention heads do not divide the width 64"),
        ("config.json", text(num_key_value_heads=3), "wqkv.base.weight is .*, by config.json it would be"),
        ("config.json", text(num_hidden_layers=10**6), "text_config.num_hidden_layers"),
        ("config.json", text(num_hidden_layers=3), "language_model has 2 layers, by config.json it would have 3"),
        ("config.json", text(plora_rank=0), "text_config.plora_rank"),
        ("config.json", text(rope_theta="x"), "text_config.rope_theta: .*found 'x'"),
        ("config.json", text(hidden_act="nope"), "text_config.hidden_act"),
        ("config.json", text(eos_token_id=10**9), "text_config.eos_token_id"),
        ("config.json", text(hidden_size=10**12), "text_config.hidden_size"),
        ("config.json", text(rms_norm_eps=float("nan")), "NaN is no number"),
        ("config.json", top(text_config=[]), "text_config"),
        ("config.json", top(crayon_queries="nope"), "crayon_queries: .*found 'nope'"),
        ("config.json", top(image_size=113), "no whole number of 14 px patches"),
        ("config.json", top(semantic_rows=7), "crayon.semantic.weight is"),
        ("preprocessor_config.json", top(image_std=[1, 0, 1]), "image_std.1"),
        ("preprocessor_config.json", top(image_size="112"), "image_size"),
        ("tokenizer.json", lambda c: c["model"].update(vocab=[]), "the tokenizer"),
        ("tokenizer_config.json", top(model_max_length="x"), "the tokenizer"),
    ],
)
def test_what_is_wrong_with_a_json_file_is_named(
    ours: Path, name: str, change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    folder = copied(ours, tmp_path / "c")
    edited(folder, name, change)
    with pytest.raises(CheckpointError, match=message):
        load_engine(LLM, str(folder), NoSegmenter())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (top(weight_map=[1]), "weight_map should say the file of every tensor"),
        (top(weight_map={"a": 1}), "the file of 'a' should be a name, found 1"),
        (top(weight_map={"a": "../ours/model.safetensors"}), "leads out of"),
        (top(weight_map={"a": "/etc/passwd"}), "leads out of"),
        (top(weight_map={"a": "gone.bin"}), "names shards that are missing: gone.bin"),
        (top(weight_map={str(i): f"{i}.bin" for i in range(100_000)}), "names 100000 shards"),
        (top(weight_map={str(i): f"{i}.bin" for i in range(9)}), "missing: .* and 4 more"),
        (lambda content: content.pop("weight_map"), "weight_map"),
    ],
)
def test_what_is_wrong_with_an_index_is_named(
    released: Path, change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    folder = copied(released, tmp_path / "c")
    edited(folder, "pytorch_model.bin.index.json", change)
    with pytest.raises(CheckpointError, match=message):
        load_model(LLM, folder, CPU)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo executed > executed",)


def legacy(file: Path) -> None:
    torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_bytes(POINTER), "is a git-lfs pointer"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: file.write_bytes(b"<!DOCTYPE html><html>"), "is a web page"),
        (legacy, "format of torch before 1.6"),
        (lambda file: torch.save({"a": Harmful()}, file), r"wants to run code \('posix.system'\)"),
        (lambda file: torch.save([torch.zeros(1)], file), "holds a list, not a dictionary of tensors"),
        (lambda file: torch.save({"a": {"b": torch.zeros(1)}}, file), "'a' is a dict, not a tensor"),
        (lambda file: torch.save({1: torch.zeros(1)}, file), "1 is no name of a tensor"),
        (lambda file: save_file({"a": torch.zeros(1)}, file), "is safetensors; give it the suffix .safetensors"),
    ],
)
def test_what_stands_in_the_place_of_weights_is_named(
    released: Path, write: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copied(released, tmp_path / "c")
    write(folder / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(LLM, folder, CPU)
    assert "pytorch_model-00001-of-00002.bin" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("language_model.embed_tokens.weight", torch.tensor(1.0), "has the shape"),
        ("crayon.semantic.weight", torch.zeros(0, 32), "has the shape"),
        ("language_model.layers.0.attention.wqkv.image_a.weight", torch.zeros(0, 64), "has the shape"),
        ("language_model.layers.1.mlp.w3.base.weight", torch.zeros(3, 3), r"w3.base.weight is \(3, 3\), not"),
        ("language_model.layers.1.mlp.w3.base.weight", torch.zeros(128, 64, dtype=torch.int32), "is of the type"),
        ("language_model.layers.1.mlp.w3.base.weight", torch.full((128, 64), float("nan")), "w3.* holds NaN"),
        ("output.weight", torch.full((848, 64), float("inf")), "output.weight"),
        (f"language_model.layers.{10**30}.mlp_norm.weight", torch.zeros(64), "is of a layer beyond 1024"),
        ("language_model.layers.999999.mlp_norm.weight", torch.zeros(64), "layer"),
        ("language_model.layers.3.mlp_norm.weight", torch.zeros(64), "has a layer 3, but lacks layer 2"),
        ("stranger", torch.zeros(1), "has unknown stranger"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_named(
    ours: Path, name: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    folder = copied(ours, tmp_path / "c")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: tensor}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_model(LLM, folder, CPU)


def test_a_tensor_in_two_shards_is_refused(released: Path, tmp_path: Path) -> None:
    folder = copied(released, tmp_path / "c")
    shutil.copy(folder / "pytorch_model-00001-of-00002.bin", folder / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(CheckpointError, match="is in pytorch_model-00001-of-00002.bin too"):
        load_model(LLM, folder, CPU)


def test_every_flipped_byte_of_a_bin_file_is_noticed_or_harmless(released: Path, tmp_path: Path) -> None:
    """Checked on the tensors of one shard, of which each byte counts: data, padding and directory alike."""
    expected = read_tensors(released)
    folder = copied(released, tmp_path / "c")
    file = folder / "pytorch_model-00001-of-00002.bin"
    whole, rng, noticed = file.read_bytes(), random.Random(0), 0
    rounds = 30 if QUICK else 300
    for _ in range(rounds):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            tensors = read_tensors(folder)
        except CheckpointError:
            noticed += 1
        else:
            assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    assert noticed > rounds / 2
    file.write_bytes(whole)
    assert read_tensors(folder).keys() == expected.keys()


def test_weights_beyond_half_precision_are_named(ours: Path, tmp_path: Path) -> None:
    folder = copied(ours, tmp_path / "c")
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.norm.weight"][3] = 1e5
    save_file(tensors, folder / "model.safetensors")
    load_model(LLMConfig(BITS=16, DTYPE="bf16"), folder, CPU)
    with pytest.raises(CheckpointError, match=r"norm.weight holds 100000, more than float16 can"):
        load_model(LLMConfig(BITS=16, DTYPE="fp16"), folder, CPU)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("state.json", top(started_from="."), "is itself what a training run left"),
        ("state.json", top(started_from="nowhere"), "which is not there"),
        ("state.json", top(started_from="a\0b"), "is no path"),
        ("state.json", top(started_from=7), "started_from"),
        ("state.json", top(adapters=["../../base"]), "adapters.0"),
        ("state.json", top(adapters=["image_cit", "image_cit"]), "stands there twice"),
        ("state.json", top(rank=0), "rank"),
        ("state.json", top(rank=10**9), "rank"),
        ("state.json", top(rank=8), "r and lora_alpha are 4 and 8, state.json says 8 and 8"),
        ("state.json", top(alpha="x"), "alpha"),
        ("state.json", top(crayon="nope"), "crayon: .*found 'nope'"),
        ("state.json", top(version=99), "its version is 99"),
        ("state.json", top(settings={"CRAYON": [False]}), "settings.CRAYON"),
        ("state.json", top(settings={"CRAYON": [1, "x"]}), "settings.CRAYON"),
        ("state.json", top(segmenter={"NAME": "xdecoder", "NONSENSE": 1}), "segmenter.NONSENSE"),
        (f"{IMAGE_CIT}/adapter_config.json", top(r="x"), "adapter_config.json: r: "),
        (f"{IMAGE_CIT}/adapter_config.json", top(r=5), "r and lora_alpha are 5 and 8"),
        (f"{VL_CIT}/adapter_config.json", top(use_dora=True), "use_dora"),
        (f"{VL_CIT}/adapter_config.json", top(peft_type="IA3"), "peft_type"),
        (f"{VL_CIT}/adapter_config.json", top(layer_replication=[[0, 2], [1, 2]]), "layer_replication"),
        (f"{VL_CIT}/adapter_config.json", top(use_qalora=True), "use_qalora"),
    ],
)
def test_what_is_wrong_with_what_a_training_left_is_named(
    trained: Path, name: str, change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    folder = copied(trained, tmp_path / "c")
    edited(folder, name, change)
    with pytest.raises(CheckpointError, match=message):
        load_engine(LLM, str(folder), NoSegmenter())


def test_garbage_beside_a_lora_set_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "c")
    (folder / IMAGE_CIT / "adapter_config.json").write_text("garbage")
    with pytest.raises(CheckpointError, match=r"adapter_config.json: not readable as JSON"):
        load_engine(LLM, str(folder), NoSegmenter())


def test_two_trainings_that_name_each_other_end(trained: Path, tmp_path: Path) -> None:
    one, two = copied(trained, tmp_path / "one"), copied(trained, tmp_path / "two")
    edited(one, "state.json", top(started_from="../two"))
    edited(two, "state.json", top(started_from="../one"))
    with pytest.raises(CheckpointError, match="is itself what a training run left"):
        load_engine(LLM, str(one), NoSegmenter())


def test_all_is_looked_at_before_a_weight_is_read(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizer, image size and shapes: weights that cannot be read are no hindrance to say what does not fit."""
    read: list[Path] = []
    monkeypatch.setattr("collavo.load_collavo.read_tensors", lambda folder, **_: read.append(folder))
    for name, change in (
        ("tokenizer.json", lambda c: c["model"]["vocab"].append(["zzzzz", -1.0])),
        ("preprocessor_config.json", top(image_size=126)),
        ("config.json", text(vocab_size=5)),
    ):
        folder = copied(ours, tmp_path / name)
        edited(folder, name, change)
        with pytest.raises(CheckpointError):
            load_engine(LLM, str(folder), NoSegmenter())
    assert read == []
