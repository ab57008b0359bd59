"""YAML files and command-line overrides, read into typed dataclasses; this file knows no field names.

Types come from the dataclasses (OmegaConf structured configs): ``1e-5`` becomes a float, ``True`` a boolean, ``None`` a
missing value, ``[a, b]`` a list, and what does not fit is an error that names the key, its neighbours and its type.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from .text import inline

REPOSITORY = Path(__file__).resolve().parent.parent
BASE_KEY = "_BASE_"


class ConfigError(Exception):
    """A mistake in the configuration: the message names file or key and says what was expected."""


def load(
    schema: DictConfig, conf_files: Sequence[str | Path], overrides: Sequence[str], apart: Collection[str] = ()
) -> DictConfig:
    """Merge configuration files and overrides into a schema; later ones win.

    Args:
        schema: made from dataclasses; it alone says which keys there are and of what type.
        conf_files: YAML files, relative to the working directory or else to the repository.
        overrides: ``KEY VALUE KEY VALUE ...`` with dotted keys.
        apart: keys of the files that somebody else reads.

    Raises:
        ConfigError: an unreadable file, an unknown key, a value of another type, or an odd count of overrides.
    """
    config = schema.copy()
    for file in conf_files:
        for path, values in read_with_bases(find_file(file)):
            _merge(config, {key: value for key, value in values.items() if key not in apart}, str(path))
    for key, value in pairs(overrides):
        _set(config, key, parse_value(value))
    return config


def find_file(file: str | Path) -> Path:
    """A configuration file's path: as given, or below the repository.

    Raises:
        ConfigError: it is in neither place.
    """
    places = [Path(file), REPOSITORY / file]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"configuration file {inline(str(file))} not found (looked in {Path.cwd()} and {REPOSITORY})")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is unreadable, no mapping, or says a key twice; with its line.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(values).__name__}")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key said twice: plain YAML keeps the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_with_bases(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A file's values, preceded by those of the file it names under ``_BASE_`` (relative to itself).

    Args:
        path: the file.
        above: the files that led to it.

    Raises:
        ConfigError: a file is missing or unreadable, or leads back to itself.
    """
    if path.resolve() in above:
        raise ConfigError(f"{path}: {BASE_KEY} leads back to itself")
    values = read_yaml(path)
    base = values.pop(BASE_KEY, None)
    if base is not None:
        if not (path.parent / str(base)).is_file():
            raise ConfigError(f"{path}: {BASE_KEY} names {path.parent / str(base)}, which does not exist")
        yield from read_with_bases(path.parent / str(base), (*above, path.resolve()))
    yield path, values


def pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Cut ``KEY VALUE KEY VALUE ...`` into pairs.

    Raises:
        ConfigError: an odd count; the last key is named.
    """
    if len(overrides) % 2:
        raise ConfigError(f"--overrides takes KEY VALUE pairs; '{overrides[-1]}' has no value ({len(overrides)} words)")
    return list(zip(overrides[::2], overrides[1::2], strict=True))


def parse_value(text: str) -> Any:
    """Read an override: ``None`` and lists as such, all else as text that the key's type converts."""
    if text in ("None", "null", "~"):
        return None
    if text.startswith("[") or text.startswith("{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def _merge(config: DictConfig, values: dict[str, Any], where: str, prefix: str = "") -> None:
    """Set every leaf of a mapping, so that a misfit names its own key."""
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        try:
            node = _get(config, dotted) if isinstance(value, dict) else None
            if isinstance(value, dict) and isinstance(node, DictConfig) and OmegaConf.get_type(node) is not dict:
                _merge(config, value, where, f"{dotted}.")
            else:
                _set(config, dotted, value)
        except ConfigError as error:
            raise error if str(error).startswith(where) else ConfigError(f"{where}: {error}") from error


def _get(config: DictConfig, key: str) -> Any:
    """The node of a dotted key.

    Raises:
        ConfigError: there is none.
    """
    try:
        node: Any = config
        for part in key.split("."):
            if not isinstance(node, DictConfig) or node._is_none():
                raise ConfigKeyError(part)
            node = node._get_node(part, throw_on_missing_key=True)
    except (ConfigKeyError, ConfigAttributeError):
        raise ConfigError(f"unknown key {key}{_nearest(config, key)}") from None
    return node


def _nearest(config: DictConfig, key: str) -> str:
    """Words about keys that were perhaps meant."""
    known = leaves(config)
    by_case = [k for k in known if k.lower() == key.lower()]
    near = by_case or difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    siblings = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]] if "." in key else []
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return hint + (
        f" {key.rpartition('.')[0]} has: {', '.join(k.rpartition('.')[2] for k in siblings)}" if siblings else ""
    )


def leaves(config: DictConfig, prefix: str = "") -> list[str]:
    """Dotted names of all keys that hold a value rather than a section."""
    found: list[str] = []
    for key in config:
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and OmegaConf.get_type(node) is not dict:
            found += leaves(node, prefix + str(key) + ".")
        else:
            found.append(prefix + str(key))
    return found


def _set(config: DictConfig, key: str, value: Any) -> None:
    """Give one key a value of its type.

    Raises:
        ConfigError: no such key, a section, or a misfit; the expected type is named.
    """
    node = _get(config, key)
    expected = _type_name(node)
    if isinstance(node, DictConfig) and expected is None:
        raise ConfigError(f"{key} is a section; set one of its keys: {', '.join(str(k) for k in node)}")
    if isinstance(value, bool) and node._metadata.ref_type in (int, float, str):
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")
    try:
        # a mapping replaces that of an earlier file; a list does so either way, but only merging gives its items types
        OmegaConf.update(config, key, value, merge=not isinstance(node, DictConfig))
    except OmegaConfBaseException:
        raise ConfigError(f"{key}: expected {expected}, got {value!r}") from None


def _type_name(node: Any) -> str | None:
    """How a message calls a node's type; None for a section."""
    kind = node._metadata.ref_type
    if isinstance(node, DictConfig) and OmegaConf.get_type(node) is not dict:
        return None
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    name = names.get(kind, "a list" if not isinstance(node, DictConfig) else "a mapping")
    return f"{name} or None" if node._metadata.optional and kind in names else name
