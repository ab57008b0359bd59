"""Words of messages, paths and JSON: short, harmless, and no other errors than those that are promised."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.common.checked import dataclass_from_mapping
from configs.common.nested import flattened
from configs.common.paths import path_text, user_path
from configs.common.safe_json import DEEPEST, parse_json, parse_json_lines, read_json
from configs.common.words import and_more, did_you_mean, nearest, no_such, printable, quoted, shown, some_of


def test_near_names() -> None:
    assert did_you_mean("mne", ["mme", "pope_test"]) == "; did you mean mme?"
    assert did_you_mean("POPE", ["pope", "poppe"]) == "; did you mean pope?"
    assert did_you_mean("zzz", ["mme"]) == "."
    assert did_you_mean(3, ["mme"], otherwise=";") == ";"
    assert nearest("m" * 100_000, ["m" * 100_000 + "x"]) == []


@given(st.text(st.characters(), max_size=400))
def test_what_is_shown_can_be_written_and_does_not_steer_a_terminal(text: str) -> None:
    for made in (printable(text), shown(text), quoted(text), quoted([text])):
        made.encode()
        assert all(c.isprintable() or c in "\u200c\u200d" or unicodedata.category(c) == "Zs" for c in made)
    if text.isprintable() and len(text) < 160:
        assert shown(text) == text


def test_long_values_are_cut_in_the_middle() -> None:
    made = quoted("a" * 50_000 + "b" * 50_000)
    assert len(made) < 250
    assert made.startswith("'aaa")
    assert made.endswith("bbb'")
    assert "99840 more characters" in made


def test_paths() -> None:
    assert user_path("~") == Path.home()
    assert path_text("~/x") == f"{Path.home()}/x"
    assert path_text("a/../b") == "a/../b"
    assert user_path("\udcff").name == "\udcff"  # a name in another encoding is a name
    for text, why in (
        ("~nosuchuser/x", "no user"),
        ("a\0", "NUL"),
        ("x" * 256, "too long"),
        ("é" * 128, "too long"),
        ("a/" * 3000, "too long"),
        ("\ud800", "surrogate"),
    ):
        with pytest.raises(ValueError, match=why):
            user_path(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_is_read_as_python_reads_it(value: object) -> None:
    import json

    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 101 + "]" * 101, '{"a":' * 900 + "1" + "}" * 900, "9" * 5000, "{", "", "\ud800"]
)
def test_what_is_no_json_or_too_deep_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_depth_that_is_allowed_and_files(tmp_path: Path) -> None:
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)
    (tmp_path / "x.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "x.json")
    with pytest.raises(OSError, match="No such file"):
        read_json(tmp_path / "nowhere.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(OSError, match="no regular file"):
        read_json(tmp_path / "pipe.json")


def test_some_of_many_names() -> None:
    names = ["a", "b", "c"]
    assert [some_of(names, most) for most in (1, 2, 3, 9, None)] == [
        "a and 2 more",
        "a, b and 1 more",
        "a, b, c",
        "a, b, c",
        "a, b, c",
    ]
    assert (some_of([], 2), and_more(3, 3), and_more(5, None)) == ("", "", "")


def test_a_name_that_there_is_not_brings_the_nearest_and_all() -> None:
    assert no_such("mmee", ["gqa", "mme"]) == "there is no 'mmee'; did you mean mme? There are: gqa, mme"
    assert no_such("x\n", ["gqa"]) == "there is no 'x\\n'. There are: gqa"


NESTED = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3), max_leaves=6
)


@given(NESTED)
def test_flattened_mappings_are_found_by_their_path(values: Any) -> None:
    nested = {"top": values}
    for name, value in flattened(nested, "/").items():
        found: Any = nested
        for part in name.split("/"):
            found = found[part]
        assert found == value and not isinstance(found, dict)
    assert flattened({"a": {}, "b": {"c": {}}}) == {"a": {}, "b.c": {}}


def test_json_lines_have_places_and_a_broken_one_is_named() -> None:
    assert list(parse_json_lines('{"a": 1}\n\n [2] \r\n', "f")) == [("f, line 1", {"a": 1}), ("f, line 3", [2])]
    with pytest.raises(ValueError, match="^f, line 2: not JSON: "):
        list(parse_json_lines("1\n{", "f"))
    with pytest.raises(ValueError, match="^f, line 1: not JSON: nested more than 100 levels deep"):
        list(parse_json_lines("[" * 101 + "]" * 101, "f"))


@dataclass(frozen=True)
class Inner:
    size: int
    ratio: float = 1.0


@dataclass(frozen=True)
class Outer:
    inner: Inner
    names: tuple[str, ...] = ()
    kind: Literal["a", "b"] | None = None
    table: dict[str, str] = field(default_factory=dict)
    flag: bool = False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"inner": {"size": 1}, "nmes": []},
            r"top: unknown key 'nmes'; did you mean names\? Known keys: inner, names, ",
        ),
        ({}, "top: missing key inner"),
        ({"inner": {"size": 1, 3: 4}}, "top.inner: unknown key '3'"),
        ({"inner": 3}, "top.inner: expected a mapping, got 3"),
        ({"inner": {"size": "1"}}, "top.inner.size: expected int, got '1'"),
        ({"inner": {"size": True}}, "top.inner.size: expected int, got True"),
        ({"inner": {"size": 1, "ratio": float("nan")}}, "top.inner.ratio: expected a finite number, got nan"),
        ({"inner": {"size": 1}, "names": "ab"}, "top.names: expected a list, got 'ab'"),
        ({"inner": {"size": 1}, "names": ["a", 2]}, r"top.names\[1\]: expected str, got 2"),
        ({"inner": {"size": 1}, "kind": "c"}, "top.kind: 'c' is not one of a, b"),
        ({"inner": {"size": 1}, "table": {"x": 1}}, "top.table.x: expected str, got 1"),
        ({"inner": {"size": 1}, "flag": 1}, "top.flag: expected bool, got 1"),
        ([], r"top: expected a mapping, got \[\]"),
    ],
)
def test_mappings_that_are_no_such_dataclass(values: Any, message: str) -> None:
    with pytest.raises(LookupError, match=f"^{message}"):
        dataclass_from_mapping(Outer, values, "top", LookupError)


def test_mappings_as_dataclasses() -> None:
    found = dataclass_from_mapping(
        Outer, {"inner": {"size": 2, "ratio": 3}, "names": ["a"], "kind": None}, "", LookupError
    )
    assert found == Outer(inner=Inner(size=2, ratio=3.0), names=("a",))
    assert type(found.inner.ratio) is float
    assert dataclass_from_mapping(Outer, {"inner": {"size": 2}, "kind": "b"}, "", LookupError).kind == "b"
