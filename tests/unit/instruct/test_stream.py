"""Streamed arrays against the library's own parser, at every size of block, and files that are damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.instruct import stream
from datasets.instruct.stream import stream_arrays, stream_list
from datasets.types import DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream")


@pytest.fixture(params=[1, 2, 7, 1 << 20], autouse=True, scope="module")
def block(request: pytest.FixtureRequest) -> Any:
    before, stream.BLOCK = stream.BLOCK, request.param
    yield
    stream.BLOCK = before


@given(items=st.lists(values, max_size=6), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_lists_equal_the_librarys(items: list[Any], indent: int | None, ascii_only: bool, folder: Path) -> None:
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    (folder / "a.json").write_bytes(text.encode("utf-8", "surrogatepass") if ascii_only else text.encode())
    assert list(stream_list(folder / "a.json")) == list(enumerate(json.loads(text)))


@given(content=st.dictionaries(st.text(), values, max_size=4), indent=st.sampled_from([None, 2]))
def test_arrays_of_objects_equal_the_librarys(content: dict[str, Any], indent: int | None, folder: Path) -> None:
    (folder / "b.json").write_text(json.dumps(content, indent=indent), encoding="utf-8-sig")
    wanted = [
        (key, i, item) for key, value in content.items() if isinstance(value, list) for i, item in enumerate(value)
    ]
    assert list(stream_arrays(folder / "b.json")) == wanted


@given(items=st.lists(values, min_size=1, max_size=4), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_is_told(items: list[Any], share: float, folder: Path) -> None:
    text = json.dumps(items)
    (folder / "c.json").write_text(text[: int(share * len(text))])
    with pytest.raises(DataError, match=r"c.json: not valid JSON at character \d+: .*cut short"):
        list(stream_list(folder / "c.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 0: expected [, got the end of the file"),
        ("{}", "character 0: expected [, got {"),
        ("version https://git-lfs", "character 0: expected [, got v"),
        ("[1 2]", "character 3: expected , or ], got 2"),
        ("[1,]", "character 3: Expecting value"),
        ("[1] x", "character 4: expected the end of the file, got x"),
        ('[{"a": 1}, {"b" 2}' + " " * 99 + "]", "character 16: Expecting ':' delimiter"),
        ('["' + "\\q" + "x" * 99 + '"]', "character 2: Invalid \\escape"),
        ("[" * 100_000, "character 1: the end of the file"),
    ],
)
def test_damage_is_named_by_its_place(text: str, message: str, folder: Path) -> None:
    (folder / "d.json").write_text(text)
    with pytest.raises(DataError) as raised:
        list(stream_list(folder / "d.json"))
    assert message in str(raised.value)


def test_a_list_is_no_object(folder: Path) -> None:
    (folder / "e.json").write_text("[]")
    with pytest.raises(DataError, match=r"expected \{, got \["):
        list(stream_arrays(folder / "e.json"))


def test_what_cannot_be_read_is_told(folder: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such"):
        list(stream_list(folder / "none.json"))


def test_faults_within_an_element_stay_in_it(folder: Path) -> None:
    deep = b"[" * 50_000 + b"]" * 50_000
    (folder / "f.json").write_bytes(b'[1, "\xff", ' + b"9" * 5000 + b', {"a": ' + deep + b', "b": 2}, 3]')
    found = [item for _, item in stream_list(folder / "f.json")]
    assert (found[:3], found[4]) == ([1, "\udcff", float("inf")], 3)
    assert set(found[3]) == {"a", "b"} and found[3]["b"] == 2


def test_a_missing_quote_does_not_read_the_whole_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST", 1000)
    (folder / "g.json").write_text('["' + "x" * 5_000)
    with pytest.raises(DataError, match="a value of more than 1000 characters"):
        list(stream_list(folder / "g.json"))
