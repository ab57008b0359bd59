"""Words of messages, paths and JSON: short, harmless, and no other errors than those that are promised."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.common.paths import path_text, user_path
from configs.common.safe_json import DEEPEST, parse_json, read_json
from configs.common.words import did_you_mean, nearest, printable, quoted, shown


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
