"""YAML files and command-line overrides, read as the types of declared keys; this file knows no field names.

`configs.keys` says how a text is read. All mistakes of the files and the overrides are collected and said at once, each
with its file and line, the key, and the names that were perhaps meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .common.paths import user_path
from .common.words import nearest, shown
from .errors import ConfigError as ConfigError
from .keys import Key, Section, leaves
from .nodes import NodeError, compose, construct, is_null, line_of

REPOSITORY = Path(__file__).resolve().parent.parent
BASE_KEY = "_BASE_"


@dataclass(frozen=True, kw_only=True)
class DeadKey:
    """A key that means nothing here, and is no mistake all the same.

    Attributes:
        name: of the key, or of the kind of key that it is.
        instead: what does its work here; "" for nothing.
    """

    name: str
    instead: str


Forgive = Callable[[str, Collection[str]], DeadKey | None]
"""Tells dead keys from mistakes, by a key's dotted name and the names that stand next to it."""


@dataclass(frozen=True, kw_only=True)
class LoadedSettings:
    """What files and overrides say.

    Attributes:
        values: by dotted name; keys that nobody sets are not in it.
        dead: the dead keys that were set, by the file's path or ``--overrides``.
        notes: on what was read otherwise than written.
    """

    values: dict[str, Any] = field(default_factory=dict)
    dead: dict[str, list[DeadKey]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load(
    keys: Section,
    conf_files: Sequence[str | Path],
    overrides: Sequence[str],
    apart: Mapping[str, str] = {},
    forgive: Forgive = lambda key, beside: None,
) -> LoadedSettings:
    """Read configuration files and overrides; later ones win.

    Args:
        keys: all that there are, see `configs.keys.section_of`.
        conf_files: YAML files, relative to the working directory or else to the repository.
        overrides: ``KEY VALUE KEY VALUE ...`` with dotted keys.
        apart: keys of the files that somebody else reads, and who, in words.
        forgive: see `Forgive`.

    Raises:
        ConfigError: a file is missing or unreadable, the overrides do not come in pairs, or keys are unknown or have
            values of another type: all of these at once.
    """
    reading = _Reading(keys, apart, forgive)
    for file in conf_files:
        for path, root in _documents(find_file(file)):
            reading.read_section(keys, root, str(path), skip=(*apart, BASE_KEY))
    words = reading.parted(overrides)
    for key, value in override_pairs(words):
        reading.read_override(key, value)
    if reading.mistakes:
        raise ConfigError("\n".join(reading.mistakes))
    return LoadedSettings(values=reading.values, dead=reading.dead, notes=tuple(reading.notes))


class _Reading:
    """Files and overrides on their way into values.

    Attributes:
        values: what was read so far, see `LoadedSettings`.
        dead: see `LoadedSettings`.
        mistakes: in words, each with its place.
        notes: see `LoadedSettings`.
    """

    def __init__(self, keys: Section, apart: Mapping[str, str], forgive: Forgive) -> None:
        self._keys = keys
        self._apart = apart
        self._forgive = forgive
        self.values: dict[str, Any] = {}
        self.dead: dict[str, list[DeadKey]] = {}
        self.mistakes: list[str] = []
        self.notes: list[str] = []

    def read_section(
        self, section: Section, node: yaml.MappingNode, file: str, prefix: str = "", skip: Collection[str] = ()
    ) -> None:
        """Read what a file says of a section."""
        beside = [key.value for key, _ in node.value]
        for key, value in node.value:
            if key.value not in skip:
                where = f"{file}:{line_of(key)}: "
                self._read(section, key.value, value, file, where, prefix, beside)

    def _read(
        self, section: Section, name: str, value: yaml.Node, file: str, where: str, prefix: str, beside: list[str]
    ) -> None:
        dotted = prefix + name
        dead = self._forgive(dotted, beside)
        known = section.get(name)
        if dead is not None:
            self.dead.setdefault(file, []).append(dead)
        elif known is None:
            self.mistakes.append(f"{where}{self._unknown(dotted)}")
        elif isinstance(known, Key):
            self._set(known, dotted, lambda: known.from_node(value), where)
        elif isinstance(value, yaml.MappingNode):
            self.read_section(known, value, file, f"{dotted}.")
        elif not is_null(value):
            self.mistakes.append(f"{where}{self._no_value(dotted, known)}")

    def read_override(self, dotted: str, text: str) -> None:
        """Read one override."""
        dead = self._forgive(dotted, ())
        if dead is not None:
            self.dead.setdefault("--overrides", []).append(dead)
            return
        known = self._node(dotted)
        if known is None:
            self.mistakes.append(self._unknown(dotted))
        elif isinstance(known, Key):
            self._set(known, dotted, lambda: known.from_text(text), "")
        else:
            self.mistakes.append(self._no_value(dotted, known))

    def _node(self, dotted: str) -> Key | Section | None:
        node: Key | Section | None = self._keys
        for part in dotted.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def parted(self, overrides: Sequence[str]) -> Sequence[str]:
        r"""The words of overrides, with a value and the key after it parted where the shell has joined them.

        It does so with ``DATASETS.TEST pope_test\`` before a line that begins with the next key, as in copies of the
        released command that have lost their indentation: the words are one too few then, and one ends in a key.
        """
        if len(overrides) % 2 == 0:
            return overrides
        known = sorted(leaves(self._keys), key=len, reverse=True)
        for place in range(1, len(overrides), 2):
            word = overrides[place]
            key = next((k for k in known if word.endswith(k) and word != k), None)
            if key is None:
                continue
            words = [*overrides[:place], word[: -len(key)], key, *overrides[place + 1 :]]
            if all(self._node(k) is not None or self._forgive(k, ()) for k in words[::2]):
                self.notes.append(f"--overrides: '{shown(word)}' is read as '{shown(words[place])}' and '{key}'")
                return words
        return overrides

    def _set(self, key: Key, dotted: str, read: Callable[[], Any], where: str) -> None:
        try:
            self.values[dotted] = read()
        except ConfigError as error:
            self.mistakes.append(f"{where}{dotted}: {error}")

    @staticmethod
    def _no_value(dotted: str, section: Section) -> str:
        return f"{dotted} is a section; set one of its keys: {', '.join(section)}"

    def _unknown(self, dotted: str) -> str:
        """Words about an unknown key, with those that were perhaps meant."""
        if (top := dotted.split(".")[0]) in self._apart:
            return f"unknown key {shown(dotted)}; {top} is for {self._apart[top]}"
        known = list(leaves(self._keys))
        parent = dotted.rpartition(".")[0]
        near = nearest(dotted, [*known, *(k for k, v in self._keys.items() if isinstance(v, dict))], n=3, cutoff=0.5)
        siblings = [k.rpartition(".")[2] for k in known if parent and k.rpartition(".")[0] == parent]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"unknown key {shown(dotted)}{hint}" + (f" {parent} has: {', '.join(siblings)}" if siblings else "")


def find_file(file: str | Path) -> Path:
    """A configuration file's path: as given, or below the repository.

    Raises:
        ConfigError: it is in neither place; files of nearly that name are named. Or something else is in its place.
    """
    try:
        given = user_path(str(file))
    except ValueError as error:
        raise ConfigError(f"configuration file {shown(str(file))}: {error}") from None
    places = [given, REPOSITORY / given]
    for place in places:
        if place.is_file():
            return place
    if there := next((place for place in places if place.exists()), None):
        kind = "a folder" if there.is_dir() else "a device or a pipe"
        raise ConfigError(f"configuration file {shown(str(file))} is {kind}, not a file")
    beside = sorted(path for path in given.parent.glob("*.y*ml") if path.is_file())
    shipped = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "configs").glob("*.yaml"))
    known = {path.name: str(path) for path in (*shipped, *beside)}
    near = [known[name] for name in nearest(given.name, known, n=2, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    looked = " and ".join(dict.fromkeys((str(Path.cwd()), str(REPOSITORY))))
    raise ConfigError(f"configuration file {shown(str(file))} not found (looked in {looked}){hint}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping, with values as YAML alone understands them.

    Raises:
        ConfigError: the file is unreadable, no mapping, or says a key twice; with its line.
    """
    root = _document(path)
    try:
        values: dict[str, Any] = construct(root)
    except NodeError as error:
        raise _placed(error, path) from None
    return values


def _document(path: Path) -> yaml.MappingNode:
    """A file's root."""
    try:
        root = compose(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except NodeError as error:
        raise _placed(error, path) from None
    if root is None or is_null(root):
        return yaml.MappingNode("tag:yaml.org,2002:map", [])
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(construct(root)).__name__}")
    return root


def _placed(error: NodeError, path: Path) -> ConfigError:
    return ConfigError(f"{path}{'' if error.line is None else f':{error.line}'}: {error}")


def read_with_bases(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A file's values, preceded by those of the file it names under ``_BASE_`` (relative to itself).

    Args:
        path: the file.

    Raises:
        ConfigError: a file is missing or unreadable, or leads back to itself.
    """
    for source, root in _documents(path):
        try:
            yield source, {key.value: construct(value) for key, value in root.value if key.value != BASE_KEY}
        except NodeError as error:
            raise _placed(error, source) from None


def _documents(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, yaml.MappingNode]]:
    """A file's root, preceded by those of its bases.

    Args:
        path: the file.
        above: the files that led to it.
    """
    if path.resolve() in above:
        raise ConfigError(f"{path}: {BASE_KEY} leads back to itself")
    root = _document(path)
    for key, value in root.value:
        if key.value == BASE_KEY and not is_null(value):
            where = f"{path}:{line_of(key)}: {BASE_KEY}"
            if not isinstance(value, yaml.ScalarNode):
                raise ConfigError(f"{where} takes the path of one file")
            try:
                base = path.parent / user_path(value.value)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from None
            if not base.is_file():
                raise ConfigError(f"{where} names {base}, which does not exist")
            yield from _documents(base, (*above, path.resolve()))
    yield path, root


def override_pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Cut ``KEY VALUE KEY VALUE ...`` into pairs.

    Raises:
        ConfigError: an odd count; the last key is named.
    """
    if len(overrides) % 2:
        raise ConfigError(
            f"--overrides takes KEY VALUE pairs; '{shown(overrides[-1])}' has no value ({len(overrides)} words)"
        )
    return list(zip(overrides[::2], overrides[1::2], strict=True))


def as_yaml(values: Mapping[str, Any]) -> str:
    """Settings as YAML that is read back as the same settings."""
    return yaml.dump(dict(values), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Writes texts with unseen characters in double quotes, with escapes: in single ones YAML reads some as blanks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
