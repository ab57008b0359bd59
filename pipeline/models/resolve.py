"""What the ``MODEL`` section stands for: a model's profile, and its place on this machine. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from collavo.checkpoint.finetuned_checkpoint import STATE
from collavo.checkpoint.location import locate
from collavo.errors import CheckpointError
from configs.common.safe_json import read_json
from configs.common.words import shown
from configs.load import ConfigError
from modeling.files import is_file, is_folder

from .options import AUTO, ModelConfig
from .profile import DEFAULTS, ResolvedProfile, load_profile, profile_of_checkpoint


def resolve_profile(model: ModelConfig) -> ResolvedProfile:
    """The profile of a configuration's model, with what ``MODEL.SETTINGS`` changes.

    Raises:
        ConfigError: ``MODEL.PROFILE`` names none, or one of another kind of model; or a setting is wrong.
        CheckpointError: the checkpoint could not be fetched where ``MODEL.DOWNLOAD`` asks for it.
    """
    name, guessed = model.PROFILE, False
    if name == AUTO:
        found = profile_of_checkpoint(folder) if model.NAME == "hf" and (folder := _found(model)) else ""
        name, guessed = found or DEFAULTS[model.NAME], model.NAME != "collavo" and not found
    resolved = load_profile(name, model.SETTINGS)
    kind = resolved.profile.kind
    if model.NAME == "endpoint" and kind == "hf":  # boxes and wording are the model's wherever it runs
        return _served(resolved)
    if kind != model.NAME:
        raise ConfigError(
            f"MODEL.PROFILE: {shown(resolved.name)} is of a model of the kind {kind}, and MODEL.NAME is {model.NAME}"
        )
    return replace(resolved, guessed=guessed)


def _served(resolved: ResolvedProfile) -> ResolvedProfile:
    """A profile of a checkpoint for a server that has it: lengths are those of endpoints where it has none."""
    general = load_profile(DEFAULTS["endpoint"]).profile.generation
    generation = resolved.profile.generation
    if generation.max_new_tokens is None:
        generation = replace(generation, max_new_tokens=general.max_new_tokens)
    return replace(resolved, profile=replace(resolved.profile, generation=generation))


def _local(name: str) -> Path | None:
    """The directory of a checkpoint on this machine; None where there is none."""
    if not name:
        return None
    folder = Path(name).expanduser()
    if is_folder(folder):
        return folder
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json")
    except Exception:  # noqa: BLE001 - the hub's library refuses names in its own ways
        return None
    return Path(found).parent if isinstance(found, str) else None


def _found(model: ModelConfig) -> Path | None:
    """The directory of a checkpoint, fetched where that is wanted; None where there is none.

    Raises:
        CheckpointError: it could not be fetched.
    """
    folder = _local(model.PATH)
    wanted = model.DOWNLOAD and model.PATH and not is_folder(Path(model.PATH).expanduser())
    return _fetch(model.PATH) if wanted and (folder is None or _lacks_weights(folder)) else folder


def _lacks_weights(folder: Path) -> bool:
    """Whether files of weights are missing, as after a download that was interrupted."""
    for index in folder.glob("*.index.json"):
        try:
            shards = {str(name) for name in read_json(index)["weight_map"].values()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return True
        if all(is_file(folder / name) for name in shards):
            return False
    return not any(is_file(folder / name) for name in ("model.safetensors", "pytorch_model.bin"))


def locate_checkpoint(model: ModelConfig) -> Path:
    """The directory of a checkpoint of the transformers library.

    Raises:
        CheckpointError: it is neither a directory nor in the hub's cache, holds no config.json, or could not be
            fetched where ``MODEL.DOWNLOAD`` allows it.
    """
    folder = _found(model)
    if folder is None:
        raise CheckpointError(
            f"MODEL.PATH: {shown(model.PATH)} is neither a directory nor in the hub's cache on this machine. Nothing "
            "is fetched in a run: download it (hf download NAME --local-dir DIR) and name that directory, or set "
            "MODEL.DOWNLOAD True"
        )
    if is_file(folder / STATE):
        raise CheckpointError(f"MODEL.PATH: {shown(str(folder))} is a checkpoint of CoLLaVO: set MODEL.NAME collavo")
    if not is_file(folder / "config.json"):
        raise CheckpointError(f"MODEL.PATH: {shown(str(folder))} is no checkpoint: it has no config.json")
    return folder


def _fetch(name: str) -> Path:
    """Fetch a checkpoint from the hub.

    Raises:
        CheckpointError: it cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name))
    except Exception as error:  # noqa: BLE001 - it lets out errors of its HTTP library, which it changes
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"MODEL.PATH: {shown(name)} cannot be fetched from the hub: {reason}") from error


def collavo_checkpoint(name: str) -> Path:
    """The directory of a CoLLaVO checkpoint; one of another known family is told from it by its configuration.

    Raises:
        CheckpointError: it is missing, or of another family.
    """
    folder = locate(name)
    if family := profile_of_checkpoint(folder):
        raise CheckpointError(
            f"MODEL.PATH: {shown(str(folder))} is a checkpoint of {load_profile(family).profile.title}, and MODEL.NAME "
            "is collavo: set MODEL.NAME hf"
        )
    return folder
