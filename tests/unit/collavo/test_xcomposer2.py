"""InternLM-XComposer2-VL's checkpoints: every parameter at its place, what is missing or unknown named, no code run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from assets.tiny.random_checkpoint import make_tiny
from collavo.checkpoint.examine import describe_checkpoint, examine_checkpoint
from collavo.checkpoint.names import export_released, fingerprint, read_tensors, to_released
from collavo.checkpoint.xcomposer2 import ARCHITECTURE, from_xcomposer2
from collavo.errors import CheckpointError
from collavo.load_collavo import load_examined, load_model
from collavo.model import CoLLaVOForConditionalGeneration
from collavo.options import LLMConfig
from collavo.trainable_parts import is_crayon
from tests.fixtures import fixture_dir

LLM, CPU = LLMConfig(BITS=32, DTYPE="fp32"), torch.device("cpu")
EMBEDDINGS = "model.tok_embeddings.weight"
REMOTE = "raise SystemExit('code of a checkpoint was run')\n"


def published(name: str) -> str:
    """A name of CoLLaVO's release as the base has it: there, a PLoRA layer is a linear itself."""
    return name.replace(".Plora_main.", ".")


def write_base(folder: Path, tensors: Mapping[str, Tensor], *, safetensors: bool = False) -> None:
    """Weights in two files, as ``save_pretrained`` divides them."""
    names = sorted(tensors)
    suffix, kind = ("safetensors", "model") if safetensors else ("bin", "pytorch_model")
    files = {name: f"{kind}-0000{1 + i % 2}-of-00002.{suffix}" for i, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: tensors[name].clone() for name in names if files[name] == file}
        if safetensors:
            from safetensors.torch import save_file

            save_file(part, folder / file, {"format": "pt"})
        else:
            torch.save(part, folder / file)
    index = {"metadata": {}, "weight_map": files}
    (folder / f"{kind}.{suffix}.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xcomposer2") / "tiny"
    make_tiny(folder, 0)
    return folder


@pytest.fixture(scope="module")
def weights(tiny: Path) -> dict[str, Tensor]:
    """Of the tiny CoLLaVO, by the base's names and without its crayon prompt."""
    return base_weights(load_file(tiny / "model.safetensors"))


def base_weights(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {published(to_released(name)): tensor for name, tensor in ours.items() if not is_crayon(name)}
    found[EMBEDDINGS] = found[EMBEDDINGS][:-1]  # the base has no <image>
    return found


@pytest.fixture
def base(tiny: Path, weights: dict[str, Tensor], tmp_path: Path) -> Path:
    """What a download of the base looks like, in small."""
    folder = tmp_path / "internlm-xcomposer2-vl-7b"
    as_base(tiny, folder)
    write_base(folder, weights)
    return folder


def as_base(checkpoint: Path, folder: Path) -> None:
    """Everything but the weights: the base's ``config.json``, code beside it, and the tokenizer."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    sizes = json.loads((checkpoint / "config.json").read_text())
    text = sizes["text_config"]
    kept = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
    config = {key: text[key] for key in (*kept, "vocab_size", "rms_norm_eps", "rope_theta", "hidden_act")}
    config |= {
        "architectures": [ARCHITECTURE],
        "auto_map": {
            "AutoConfig": "configuration_internlm_xcomposer2.InternLMXcomposer2Config",
            "AutoModelForCausalLM": f"modeling_internlm_xcomposer2.{ARCHITECTURE}",
        },
        "model_type": "internlm",
        "bias": False,
        "img_size": sizes["image_size"],
        "rope_scaling": {"factor": 1.0, "type": "dynamic"},
        "pad_token_id": 2,
        "crayon_width": sizes["crayon_width"],  # not the base's; it is 1024 without
        "vision_num_attention_heads": sizes["vision_config"]["num_attention_heads"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("modeling_internlm_xcomposer2", "configuration_internlm_xcomposer2", "build_mlp"):
        (folder / f"{name}.py").write_text(REMOTE)


def test_the_table_names_every_parameter_of_the_full_size_and_no_other() -> None:
    """What CoLLaVO's release adds to its base is left out of its list of keys, and PLoRA's layers are linears."""
    shapes = json.loads((fixture_dir("collavo") / "keys_7b.json").read_text())["shapes"]
    expected = {published(key) for key in shapes if "seg" not in key}
    assert "model.layers.31.feed_forward.w2.Plora_B.weight" in expected and len(expected) == 32 * 17 + 24 * 16 + 14
    ours = {from_xcomposer2(key) for key in expected}
    assert {published(to_released(str(name))) for name in ours} == expected and len(ours) == len(expected)
    for key in (
        "model.layers.0.attention.wqkv.Plora_main.weight",
        "plora_glb_GN",
        "model.layers.1.feed_forward.w1.bias",
    ):
        with pytest.raises(KeyError):
            from_xcomposer2(key)


@pytest.mark.parametrize("safetensors", [False, True])
def test_every_tensor_is_at_its_place_and_the_logits_are_those_of_the_same_weights(
    base: Path, tiny: Path, weights: dict[str, Tensor], safetensors: bool
) -> None:
    if safetensors:
        for file in base.glob("*.bin*"):
            file.unlink()
        write_base(base, weights, safetensors=True)
    original = load_model(LLM, tiny, CPU)
    model = load_examined(LLM, examine_checkpoint(base, fresh_crayon=True), CPU)
    assert model.config.to_dict()["vision_config"] == original.config.to_dict()["vision_config"]
    assert (model.config.image_size, model.config.image_token_id) == (112, original.config.image_token_id)
    found = model.state_dict()
    for name, tensor in original.state_dict().items():
        if name == "language_model.embed_tokens.weight":
            assert torch.equal(found[name][:-1], tensor[:-1]) and not found[name][-1].any()
        elif not is_crayon(name):
            assert torch.equal(found[name], tensor), name
    grid = model.config.num_image_tokens
    ids = torch.tensor([[1, 40, model.config.image_token_id, 50, 60, 70]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 112, 112)}
    semantic = torch.randint(0, 134, (1, grid))
    with torch.no_grad():
        expected = original(**given).logits
        torch.testing.assert_close(model(**given).logits, expected, rtol=0, atol=0)
        fresh = model(**given, semantic=semantic, numbering=torch.zeros_like(semantic)).logits
    torch.testing.assert_close(fresh, expected, rtol=0, atol=0)  # a fresh crayon prompt changes nothing
    assert (expected[0, 2] - expected[0, 3]).abs().max() > 0.1


def test_it_cannot_answer_with_a_crayon_prompt_that_nobody_trained(base: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vl-7b: the checkpoint has no crayon prompt; train one first"):
        load_model(LLM, base, CPU)


def test_what_is_missing_unknown_or_misfits_is_named(base: Path, weights: dict[str, Tensor]) -> None:
    def refused(tensors: Mapping[str, Tensor], message: str) -> None:
        write_base(base, tensors)
        with pytest.raises(CheckpointError, match=message):
            load_examined(LLM, examine_checkpoint(base, fresh_crayon=True), CPU)

    for name in (
        "model.layers.1.attention.wo.Plora_B.weight",
        "vit.vision_tower.vision_model.encoder.layers.0.mlp.fc2.bias",
        EMBEDDINGS,
        "output.weight",
        "vision_proj.2.bias",
    ):
        refused({k: v for k, v in weights.items() if k != name}, f"InternLM-XComposer2-VL lacks {name}")
    refused({k: v for k, v in weights.items() if "encoder.layers" not in k}, "lacks vit.*encoder.layers.0.self_attn")
    for name in (
        "plora_glb_GN",
        "model.layers.0.attention.wqkv.Plora_seg_A.weight",
        "model.layers.0.attention.wo.bias",
    ):
        refused({**weights, name: torch.zeros(4)}, f"'{name}' is no parameter of InternLM-XComposer2-VL")
    refused({**weights, "vision_proj.2.bias": torch.zeros(3)}, r"misfits: projector.2.bias is \(3,\), not \(64,\)")
    refused({**weights, EMBEDDINGS: weights[EMBEDDINGS][:-3]}, "embed_tokens|output")


def test_what_old_libraries_saved_beside_the_weights_is_left_out(base: Path, weights: dict[str, Tensor]) -> None:
    position_ids = {"vit.vision_tower.vision_model.embeddings.position_ids": torch.arange(65)[None]}
    write_base(base, {**weights, **position_ids})
    assert len(read_tensors(base)) == len(weights)


def test_a_release_that_keeps_its_bases_entries_is_read_as_what_it_is(tiny: Path, tmp_path: Path) -> None:
    """``config.json`` keeps what it does not know when a model trained on the base is saved."""
    model = load_model(LLM, tiny, CPU)
    released = tmp_path / "released"
    export_released(model, released)
    expected = read_tensors(released)
    values = json.loads((released / "config.json").read_text())
    for more in ({"architectures": [ARCHITECTURE]}, {"auto_map": {"AutoModel": f"modeling.{ARCHITECTURE}"}}):
        (released / "config.json").write_text(json.dumps({**values, **more}))
        found = read_tensors(released)
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_the_architecture_is_recognised_by_either_entry(base: Path) -> None:
    values = json.loads((base / "config.json").read_text())
    before = fingerprint(base)
    del values["architectures"]
    (base / "config.json").write_text(json.dumps(values))
    described = describe_checkpoint(base, fresh_crayon=True)
    assert len(described.lacking) == 6 + 2 * 4 * 2 and fingerprint(base) != before
    del values["auto_map"]
    (base / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="lacks language_model.layers.0.*base.weight"):
        describe_checkpoint(base, fresh_crayon=True)


def test_the_blank_model_has_every_parameter(weights: dict[str, Tensor], tiny: Path) -> None:
    blank: CoLLaVOForConditionalGeneration = examine_checkpoint(tiny).blank
    assert {from_xcomposer2(key) for key in weights} == {name for name in blank.state_dict() if not is_crayon(name)}
