"""YAML as a tree of nodes, which know their lines: parsed safely, and bounded in depth and size.

PyYAML composes the tree; what its own constructors would make of odd texts (a date, ``1:30`` as 90, an exception of
some other kind) is asked for only where a value has no declared type.
"""

from __future__ import annotations

from typing import Any

import yaml

from .common.words import shown
from .errors import ConfigError

DEEPEST = 50
"""Levels of a document; a configuration has five."""
_TOO_DEEP = f"nested more than {DEEPEST} levels deep"
MOST = 100_000
"""Nodes of a document with all its aliases written out."""
_MERGE = "tag:yaml.org,2002:merge"
_CORE = tuple(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "binary", "value", "merge")
)


class _Loader(yaml.SafeLoader):
    """Stops at the first bracket that is too deep, instead of scanning a thousand characters ahead for each."""

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:  # noqa: N803 - PyYAML's name
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(problem=_TOO_DEEP, problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


def compose(text: str) -> yaml.Node | None:
    """Parse one document.

    Args:
        text: YAML.
    Returns: its root; None for an empty document. Keys of mappings are texts, and each stands once.

    Raises:
        ConfigError: it is no valid YAML, says a key twice, or is too deep or too large; ``line N: ...`` where known.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _invalid(error.problem or error.context or "", mark) from None
    except yaml.YAMLError as error:
        raise _invalid(" ".join(str(error).split()), None) from None
    except RecursionError:
        raise _invalid(_TOO_DEEP, None) from None
    if root is not None:
        _check(root)
    return root


def line_of(node: yaml.Node) -> int:
    """The line that a node begins in, from 1."""
    return int(node.start_mark.line) + 1


def is_null(node: yaml.Node) -> bool:
    """Whether a node says that there is no value."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def construct(node: yaml.Node) -> Any:
    """A node as plain Python values, as YAML alone understands them.

    Raises:
        ConfigError: a text is no valid value of its tag.
    """
    if isinstance(node, yaml.MappingNode):
        return {construct(key): construct(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [construct(item) for item in node.value]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except yaml.MarkedYAMLError as error:
        raise _invalid(error.problem or "", node.start_mark) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):  # of PyYAML's own constructors
        raise _invalid(f"'{shown(node.value)}' is no {node.tag.rpartition(':')[2]}", node.start_mark) from None
    finally:
        loader.dispose()


def _invalid(problem: str, mark: Any) -> ConfigError:
    return NodeError(f"not valid YAML ({shown(problem)})", None if mark is None else mark.line + 1)


class NodeError(ConfigError):
    """A mistake in YAML itself.

    Args:
        message: without the place.
        line: from 1; None where it is not known.
    """

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def _check(root: yaml.Node) -> None:
    """Check depth, size, tags and keys of a document, and write its merge keys (``<<``) out.

    Raises:
        NodeError: with the line.
    """
    left = MOST
    waiting = [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        left -= 1
        if depth > DEEPEST:
            raise _invalid(_TOO_DEEP, node.start_mark)
        if left < 0:
            raise _invalid(f"more than {MOST} values, with all its aliases", node.start_mark)
        if node.tag not in _CORE:
            raise _invalid(f"the tag {node.tag} is not taken", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            node.value = _merged(node, depth)
            waiting += ((child, depth + 1) for pair in node.value for child in pair)
        elif isinstance(node, yaml.SequenceNode):
            waiting += ((child, depth + 1) for child in node.value)


def _merged(node: yaml.MappingNode, depth: int) -> list[tuple[yaml.Node, yaml.Node]]:
    """The pairs of a mapping, each key once, those of merged mappings after its own."""
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    if depth > DEEPEST:
        raise _invalid(_TOO_DEEP, node.start_mark)
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _invalid("a key must be a text, not a list or mapping", key.start_mark)
        if key.tag == _MERGE:
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(other, yaml.MappingNode):
                    raise _invalid("<< takes mappings", value.start_mark)
                other.value = _merged(other, depth + 1)
                merged = {**{pair[0].value: pair for pair in other.value}, **merged}
        elif key.value in own:
            raise _invalid(f"the key '{shown(key.value)}' stands twice", key.start_mark)
        else:
            own[key.value] = (key, value)
    return list({**merged, **own}.values())
