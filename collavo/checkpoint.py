"""Names, layouts and identity of checkpoints: the only place that knows how the released weights are called.

Two layouts load: ours (``save_pretrained``: ``config.json`` of a `CoLLaVOConfig`, sharded safetensors) and the released
one (InternLM2-style ``config.json``, sharded ``.bin`` or safetensors, the reference's names). Sizes that the released
configuration leaves out are read off the tensors. Tensors are memory-mapped, so a shard is read when it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError

UNUSED_RELEASED = re.compile(r"^model\.layers\.\d+\.feed_forward\.w2\.Plora_seg_[AB]\.weight$")
"""The released weights hold a crayon pair for ``w2`` that no code path reads; it is skipped, and named when it is."""

_PREFIXES = (  # ours, released
    ("vision_tower.class_embedding", "vit.vision_tower.vision_model.embeddings.class_embedding"),
    ("vision_tower.patch_embedding.", "vit.vision_tower.vision_model.embeddings.patch_embedding."),
    ("vision_tower.position_embedding.", "vit.vision_tower.vision_model.embeddings.position_embedding."),
    ("vision_tower.pre_norm.", "vit.vision_tower.vision_model.pre_layrnorm."),
    ("vision_tower.post_norm.", "vit.vision_tower.vision_model.post_layernorm."),
    ("vision_tower.layers.", "vit.vision_tower.vision_model.encoder.layers."),
    ("projector.", "vision_proj."),
    ("crayon.projector.", "vision_proj_for_seg."),
    ("crayon.semantic.", "seg_prompt_embed."),
    ("crayon.numbering.", "seg_num_embed."),
    ("language_model.embed_tokens.", "model.tok_embeddings."),
    ("language_model.norm.", "model.norm."),
    ("language_model.layers.", "model.layers."),
    ("output.", "output."),
)
_PARTS = {  # within one layer, by prefix of our name
    "vision_tower.layers.": ((".fc", ".mlp.fc"),),
    "language_model.layers.": (
        (".mlp_norm.", ".ffn_norm."),
        (".mlp.", ".feed_forward."),
        (".base.", ".Plora_main."),
        (".image_a.", ".Plora_A."),
        (".image_b.", ".Plora_B."),
        (".crayon_a.", ".Plora_seg_A."),
        (".crayon_b.", ".Plora_seg_B."),
    ),
}
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_WHOLE_DIGEST_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 2**16


def to_released(key: str) -> str:
    """Translate one of our parameter names to the released name.

    Raises:
        KeyError: no rule covers the name.
    """
    for ours, released in _PREFIXES:
        if key.startswith(ours):
            key = released + key.removeprefix(ours)
            for our_part, released_part in _PARTS.get(ours, ()):
                key = key.replace(our_part, released_part, 1)
            return key
    raise KeyError(key)


def from_released(key: str) -> str | None:
    """Translate a released parameter name to ours; None for the weights that nothing uses (`UNUSED_RELEASED`).

    Raises:
        KeyError: no rule covers the name.
    """
    if UNUSED_RELEASED.match(key):
        return None
    for ours, released in _PREFIXES:
        if key.startswith(released):
            key = ours + key.removeprefix(released)
            for our_part, released_part in _PARTS.get(ours, ()):
                key = key.replace(released_part, our_part, 1)
            return key
    raise KeyError(key)


def weight_files(directory: Path) -> list[Path]:
    """The weight files of a checkpoint directory, sharded or single, safetensors preferred.

    Raises:
        CheckpointError: there are none, or a shard that the index names is missing.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such checkpoint directory (RESUME_FROM takes a directory)")
    for index_name, single in zip(_INDEX_FILES, _SINGLE_FILES, strict=True):
        if (directory / index_name).is_file():
            weight_map = _read_json(directory / index_name).get("weight_map", {})
            files = [directory / name for name in sorted(set(weight_map.values()))]
            missing = [file.name for file in files if not file.is_file()]
            if missing or not files:
                raise CheckpointError(f"{directory / index_name}: names shards that are missing: {', '.join(missing)}")
            return files
        if (directory / single).is_file():
            return [directory / single]
    looked_for = ", ".join((*_INDEX_FILES, *_SINGLE_FILES))
    raise CheckpointError(f"{directory}: holds no weights (looked for {looked_for})")


def is_released_layout(directory: Path) -> bool:
    """Whether a checkpoint directory is in the released layout rather than ours.

    Raises:
        CheckpointError: no readable ``config.json``.
    """
    return _read_json(directory / "config.json").get("model_type") != "collavo"


def read_tensors(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's tensors under our names, memory-mapped on the CPU.

    Args:
        directory: a checkpoint in either layout.
    Returns: our parameter name -> tensor, in the stored dtype.

    Raises:
        CheckpointError: no weights, an unreadable file, or a name that no rule covers.
    """
    translate: Callable[[str], str | None] = from_released if is_released_layout(directory) else str
    tensors: dict[str, Any] = {}
    for file in weight_files(directory):
        for key, tensor in _read_file(file):
            try:
                ours = translate(key)
            except KeyError:
                raise CheckpointError(f"{file}: '{key}' is no parameter of CoLLaVO") from None
            if ours is not None:
                tensors[ours] = tensor
    return tensors


def _read_file(file: Path) -> Iterable[tuple[str, Any]]:
    """Key and tensor pairs of one weight file; ``.bin`` is read without running any pickled code."""
    import pickle

    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                return [(key, opened.get_tensor(key)) for key in opened.keys()]  # noqa: SIM118 - not a mapping
        return list(torch.load(file, map_location="cpu", mmap=True, weights_only=True).items())
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{file}: not a readable weight file ({error})") from error


def read_config(directory: Path, tensors: Mapping[str, Any]) -> Any:
    """The configuration of a checkpoint in either layout.

    Args:
        directory: the checkpoint.
        tensors: its tensors under our names; the released configuration says nothing of the vision tower, the ranks
            and the tables, so their sizes are taken from here.
    Returns: a `CoLLaVOConfig`.

    Raises:
        CheckpointError: ``config.json`` is missing, unreadable or lacks a size.
    """
    from .config import CoLLaVOConfig

    values = _read_json(directory / "config.json")
    if not is_released_layout(directory):
        return CoLLaVOConfig.from_dict(values)
    try:
        return _released_config(values, tensors)
    except KeyError as error:
        raise CheckpointError(f"{directory}: the checkpoint lacks {error.args[0]}") from None


def _released_config(values: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """Join what the released ``config.json`` says with what the tensors' shapes say."""
    from .config import CoLLaVOConfig

    embedding = tensors["language_model.embed_tokens.weight"].shape
    vision_width, _, patch_size, _ = tensors["vision_tower.patch_embedding.weight"].shape
    grid = round((tensors["vision_tower.position_embedding.weight"].shape[0] - 1) ** 0.5)
    rank = tensors["language_model.layers.0.attention.wqkv.image_a.weight"].shape[0]
    text = {
        "vocab_size": tensors["output.weight"].shape[0],
        "embedding_rows": embedding[0],
        "hidden_size": embedding[1],
        "intermediate_size": tensors["language_model.layers.0.mlp.w1.base.weight"].shape[0],
        "num_hidden_layers": _count_layers(tensors, "language_model.layers."),
        "num_attention_heads": values["num_attention_heads"],
        "num_key_value_heads": values.get("num_key_value_heads", values["num_attention_heads"]),
        "bias": values.get("bias", False),
        "plora_rank": rank,
        "plora_alpha": float(values.get("plora_alpha", rank)),
    }
    for name in ("hidden_act", "rms_norm_eps", "rope_theta", "max_position_embeddings", "bos_token_id", "eos_token_id"):
        if values.get(name) is not None:
            text[name] = values[name]
    text["pad_token_id"] = values.get("pad_token_id") if (values.get("pad_token_id") or -1) >= 0 else 2
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": tensors["vision_tower.layers.0.fc1.weight"].shape[0],
        "num_hidden_layers": _count_layers(tensors, "vision_tower.layers."),
        "num_attention_heads": values.get("vision_num_attention_heads", max(vision_width // 64, 1)),
        "patch_size": patch_size,
        "image_size": grid * patch_size,
    }
    semantic = tensors["crayon.semantic.weight"].shape
    return CoLLaVOConfig(
        text_config=text,
        vision_config=vision,
        crayon_width=semantic[1],
        semantic_rows=semantic[0],
        numbering_rows=tensors["crayon.numbering.weight"].shape[0],
        image_token_id=values.get("image_token_index", embedding[0] - 1),
        image_size=values.get("image_size", 490),
    )


def _count_layers(tensors: Iterable[str], prefix: str) -> int:
    return 1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in tensors if key.startswith(prefix))


def fingerprint(directory: Path) -> str:
    """Identity of a checkpoint: changes when its configuration, tokenizer or weights change.

    Small files count whole; of a weight file over 64 MiB its size, its first and last block and 64 evenly spaced blocks
    count, so that 18 GB need no minute to recognise.

    Raises:
        CheckpointError: see `weight_files`.
    """
    digest = hashlib.sha256()
    others = (p for p in directory.iterdir() if p.suffix in (".json", ".model", ".txt")) if directory.is_dir() else ()
    for file in sorted({*others, *weight_files(directory)}):
        digest.update(f"{file.name}:{file.stat().st_size};".encode())
        _update_digest(digest, file)
    return digest.hexdigest()[:16]


def _update_digest(digest: Any, file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_DIGEST_BYTES:
            digest.update(stream.read())
            return
        for sample in range(_SAMPLES + 1):
            stream.seek(sample * (size - _SAMPLE_BYTES) // _SAMPLES)
            digest.update(stream.read(_SAMPLE_BYTES))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: not found; a checkpoint directory has it beside its weights") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected a JSON object")
    return values


def export_released(model: Any, directory: Path, max_shard_size: str = "5GB") -> None:
    """Write a model in the released layout: the reference's names, sharded safetensors, a flat ``config.json``.

    The crayon pair of ``w2``, which the released files hold and nothing uses, is written as zeros.

    Args:
        model: a `CoLLaVOForConditionalGeneration` that is not quantised.
        directory: made if absent.
        max_shard_size: as in ``save_pretrained``.
    """
    from huggingface_hub import save_torch_state_dict

    config = model.config
    tensors = {to_released(key): tensor.contiguous() for key, tensor in model.state_dict().items()}
    tensors |= _unused_pairs(model)
    directory.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(tensors, directory, max_shard_size=max_shard_size)
    text = {k: v for k, v in config.text.to_dict().items() if k not in ("model_type", "architectures")}
    text |= {
        "model_type": "internlm2",
        "architectures": ["CoLLaVOModel"],
        "image_token_index": config.image_token_id,
        "image_size": config.image_size,
        "vision_num_attention_heads": config.vision.num_attention_heads,
    }
    (directory / "config.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


def _unused_pairs(model: Any) -> dict[str, Any]:
    """Zeros in the shapes of the crayon pairs of ``w2``, by released name."""
    pairs = {}
    for index, layer in enumerate(model.language_model.layers):
        w2 = layer.mlp.w2
        name = f"model.layers.{index}.feed_forward.w2.Plora_seg"
        pairs[f"{name}_A.weight"] = w2.image_a.weight.new_zeros(w2.image_a.weight.shape)
        pairs[f"{name}_B.weight"] = w2.image_b.weight.new_zeros(w2.image_b.weight.shape)
    return pairs
