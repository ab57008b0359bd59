"""Names, layouts and identity of checkpoints: the only place that knows how the released weights are called.

Three layouts load: ours (``save_pretrained``: ``config.json`` of a `CoLLaVOConfig`, sharded safetensors), the released
one (InternLM2-style ``config.json``, sharded ``.bin`` or safetensors, the reference's names), and that of the base that
CoLLaVO was trained on (see `xcomposer2`), to begin training from. Sizes that a released configuration leaves out are
read off the tensors, and those that it says are compared with them. Tensors are memory-mapped, so a shard is read when
it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.common.words import quoted, shown, some_of
from modeling.files import FileError, give_usual_permissions, is_file, is_folder, path_in_folder, read_object
from modeling.stored_tensor import FLOATS, StoredTensor
from modeling.weight_files import describe, load

from ..errors import CheckpointError
from .sizes import HasShape
from .xcomposer2 import TITLE, from_xcomposer2, is_xcomposer2, missing_keys

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
_EMBEDDINGS, _OUTPUT = "language_model.embed_tokens.weight", "output.weight"
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_WHOLE_DIGEST_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 2**16
_FEW, _MOST_SHARDS = 5, 10_000


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
        CheckpointError: there are none, or a shard that the index names is missing or would lie outside.
    """
    if not is_folder(directory):
        raise CheckpointError(f"{directory}: no such checkpoint directory (RESUME_FROM takes a directory)")
    for index_name, single in zip(_INDEX_FILES, _SINGLE_FILES, strict=True):
        if is_file(directory / index_name):
            return _shards(directory, index_name)
        if is_file(directory / single):
            return [directory / single]
    looked_for = ", ".join((*_INDEX_FILES, *_SINGLE_FILES))
    raise CheckpointError(f"{directory}: holds no weights (looked for {looked_for})")


def _shards(directory: Path, index_name: str) -> list[Path]:
    """The files that an index names."""
    index = directory / index_name
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map should say the file of every tensor, found {quoted(weight_map)}")
    for key, name in weight_map.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{index}: the file of {quoted(key)} should be a name, found {quoted(name)}")
    names = sorted(set(weight_map.values()))
    if len(names) > _MOST_SHARDS:
        raise CheckpointError(f"{index}: names {len(names)} shards; at most {_MOST_SHARDS} are read")
    try:
        files = [path_in_folder(directory, name) for name in names]
    except FileError as error:
        raise CheckpointError(f"{index}: {error}") from None
    missing = [shown(file.name) for file in files if not is_file(file)]
    if missing:
        raise CheckpointError(f"{index}: names shards that are missing: {some_of(missing, _FEW)}")
    return files


def is_released_layout(directory: Path) -> bool:
    """Whether a checkpoint directory is in the released layout rather than ours.

    Raises:
        CheckpointError: no readable ``config.json``.
    """
    return read_json(directory / "config.json").get("model_type") != "collavo"


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How a checkpoint's weights are called.

    Attributes:
        translate: a stored name -> ours, or None for what nothing uses; `KeyError` for an unknown one.
        title: of the model that has these names.
        is_base: whether they are those of the base that CoLLaVO was trained on, whose embedding table has no row for
            ``<image>``.
    """

    translate: Callable[[str], str | None]
    title: str = "CoLLaVO"
    is_base: bool = False


def _layout(values: Mapping[str, Any], keys: Iterable[str]) -> _Layout:
    """How the weights are called.

    Args:
        values: of ``config.json``, which may keep what the base's said when a model trained on it is written.
        keys: names in the weight files.
    """
    if values.get("model_type") == "collavo":
        return _Layout(translate=str)
    if is_xcomposer2(values) and not any(".Plora_main." in key for key in keys):
        return _Layout(translate=from_xcomposer2, title=TITLE, is_base=True)
    return _Layout(translate=from_released)


def describe_tensors(directory: Path) -> dict[str, tuple[Path, StoredTensor]]:
    """What the weight files hold, without reading it. Loads no torch.

    Args:
        directory: a checkpoint in any layout.
    Returns: our parameter name -> its file and description, as `read_tensors` gives it.

    Raises:
        CheckpointError: no weights, an unreadable file, a name that no rule covers or that stands in two files, or a
            type that weights cannot have.
    """
    return _describe(directory)[0]


def _describe(directory: Path) -> tuple[dict[str, tuple[Path, StoredTensor]], _Layout]:
    """See `describe_tensors`."""
    values = read_json(directory / "config.json")
    try:
        files = {file: describe(file) for file in weight_files(directory)}
    except FileError as error:
        raise CheckpointError(str(error)) from error
    layout = _layout(values, (key for described in files.values() for key in described))
    found: dict[str, tuple[Path, StoredTensor]] = {}
    for file, described in files.items():
        for key, stored in described.items():
            ours = _our_name(layout, key, file)
            if ours is None:
                continue
            if ours in found:
                raise CheckpointError(f"{file}: '{key}' is in {found[ours][0].name} too")
            if stored.dtype not in FLOATS:
                raise CheckpointError(f"{file}: '{key}' is of the type {stored.dtype}; weights are {', '.join(FLOATS)}")
            found[ours] = file, stored
    if layout.is_base:
        if missing := missing_keys(found):
            raise CheckpointError(f"{directory}: the checkpoint of {TITLE} lacks {some_of(missing, _FEW)}")
        _add_image_row(found)
    return found, layout


def _add_image_row(found: dict[str, tuple[Path, StoredTensor]]) -> None:
    """Count a row for ``<image>`` in an embedding table that has only those which the output layer can say."""
    file, table = found[_EMBEDDINGS]
    if len(table.shape) == 2 and table.shape[0] == found[_OUTPUT][1].shape[0]:
        found[_EMBEDDINGS] = file, replace(table, shape=(table.shape[0] + 1, table.shape[1]))


def _our_name(layout: _Layout, key: str, file: Path) -> str | None:
    try:
        return layout.translate(key)
    except KeyError:
        raise CheckpointError(f"{file}: {quoted(key)} is no parameter of {layout.title}") from None


def read_tensors(directory: Path, *, compared: bool = True) -> dict[str, Any]:
    """Read a checkpoint's tensors under our names, memory-mapped on the CPU.

    Args:
        directory: a checkpoint in any layout.
        compared: compare the checksums of ``.bin`` files, which reads all of them; False for who does so later.
    Returns: our parameter name -> tensor, in the stored dtype. An embedding table without a row for ``<image>`` gets
        one of zeros, which nothing reads: an image's features stand in its place.

    Raises:
        CheckpointError: see `describe_tensors`; or bytes of a ``.bin`` file were changed.
    """
    described, layout = _describe(directory)
    tensors: dict[str, Any] = {}
    for file in dict.fromkeys(file for file, _ in described.values()):
        try:
            loaded = load(file, compared=compared)
        except FileError as error:
            raise CheckpointError(str(error)) from error
        named = ((_our_name(layout, key, file), tensor) for key, tensor in loaded.items())
        tensors |= {name: tensor for name, tensor in named if name is not None}
    if layout.is_base:
        table, shape = tensors[_EMBEDDINGS], described[_EMBEDDINGS][1].shape
        tensors[_EMBEDDINGS] = table.new_zeros(shape)
        tensors[_EMBEDDINGS][: len(table)] = table
    return tensors


def fingerprint(directory: Path) -> str:
    """Identity of a checkpoint: changes when its configuration, tokenizer or weights change.

    Small files count whole; of a weight file over 64 MiB its size, its first and last block and 64 evenly spaced blocks
    count, so that 18 GB need no minute to recognise.

    Raises:
        CheckpointError: see `weight_files`.
    """
    digest = hashlib.sha256()
    files = weight_files(directory)
    try:
        others = (p for p in directory.iterdir() if p.suffix in (".json", ".model", ".txt") and is_file(p))
        for file in sorted({*others, *files}):
            digest.update(f"{file.name}:{file.stat().st_size};".encode("utf-8", "surrogateescape"))
            _update_digest(digest, file)
    except OSError as error:
        raise CheckpointError(f"{directory}: not readable ({error})") from error
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


def check_fit(file: Path, found: Mapping[str, HasShape], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """A file must hold the tensors of a part of a model, and no others.

    Args:
        file: for the message.
        found: its tensors, or their descriptions.
        wanted: shapes by name.

    Raises:
        CheckpointError: naming the first misfits.
    """
    odd = sorted(set(found) ^ set(wanted))
    odd += [name for name in wanted if name in found and tuple(found[name].shape) != wanted[name]]
    if odd:
        raise CheckpointError(f"{file}: does not fit this model at {', '.join(map(quoted, odd[:3]))}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint.

    Raises:
        CheckpointError: it is missing, unreadable, or holds no object.
    """
    try:
        return read_object(file)
    except FileError as error:
        raise CheckpointError(str(error)) from error


def share_weights(directory: Path) -> None:
    """Let others read the weights that a library wrote into a directory as they may read the files next to them."""
    for file in directory.glob("*.safetensors"):
        give_usual_permissions(file)


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
    share_weights(directory)
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
