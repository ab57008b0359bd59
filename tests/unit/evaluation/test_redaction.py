"""A judge's key is taken out of texts in every encoding, and nothing else is."""

import base64
import html
import json
import string
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.evaluation.judges.base import JudgeError
from datasets.evaluation.judges.options import JudgeConfig, address_fault, check_no_key, key_variable_fault
from datasets.evaluation.judges.redaction import REDACTED, Redactor
from tests.limits import examples

KEYS = st.text(string.ascii_letters + string.digits + "-_+/=.&<>\"'\\%", min_size=12, max_size=80)
PLAIN = st.text(" \n.,:;(){}[]é中", max_size=20)
ENCODINGS = {
    "plain": lambda key: key,
    "url": lambda key: urllib.parse.quote(key, safe=""),
    "url twice": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "every character in a URL": lambda key: "".join(f"%{byte:02X}" for byte in key.encode()),
    "json": lambda key: json.dumps(key)[1:-1],
    "json twice": lambda key: json.dumps(json.dumps(key))[1:-1],
    "every character in json": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "repr": lambda key: repr(key)[1:-1],
    "html": html.escape,
    "every character in html": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "upper case": str.upper,
    "hexadecimal": lambda key: key.encode().hex(),
    "base64 in a URL": lambda key: urllib.parse.quote(base64.b64encode(key.encode()).decode(), safe=""),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(key=KEYS, before=PLAIN, after=PLAIN)
@settings(max_examples=examples(40))
def test_no_encoding_of_the_key_comes_through(encoding: str, key: str, before: str, after: str) -> None:
    encoded = ENCODINGS[encoding](key)
    shown = Redactor(key)(f"{before}{encoded}{after}")
    assert encoded not in shown
    assert REDACTED in shown
    assert (shown.startswith(before), shown.endswith(after)) == (True, True)


@given(key=KEYS, before=st.binary(max_size=5), after=st.binary(max_size=5), alphabet=st.sampled_from(["b64", "url"]))
def test_base64_of_a_longer_text_gives_nothing_of_the_key_away(
    key: str, before: bytes, after: bytes, alphabet: str
) -> None:
    encode = base64.b64encode if alphabet == "b64" else base64.urlsafe_b64encode
    shown = Redactor(key)(encode(before + key.encode() + after).decode())
    assert REDACTED in shown
    left = shown.split(REDACTED)
    assert sum(map(len, left)) <= 4 * (len(before) + len(after)) // 3 + 8  # no more than the neighbours' own characters


@given(key=st.text(string.ascii_letters + string.digits, min_size=30, max_size=60), data=st.data())
def test_a_piece_of_the_key_is_taken_out_too(key: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(key) - 12))
    end = data.draw(st.integers(start + 12, len(key)))
    assert Redactor(key)(f"<{key[start:end]}...") == f"<{REDACTED}..."


@given(text=st.text())
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert Redactor("sk-0123456789abcdef")(text) == text
    assert Redactor("none")(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter22@host/v1",
        "http://hunter22@host/v1",
        "https://host/v1?key=hunter22",
        "https://host/v1#hunter22",
        "user:hunter22@host/v1",
        "ftp://user:hunter22@host/v1",
        "http://user:hunter22@[::1",
        "http://host:hunter22@99999/v1",
    ],
)
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(JudgeError) as refused:
        JudgeConfig(BASE_URL=url)
    assert "hunter22" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://[::1", "http://", "http://host:99999/v1", "http://a b/v1", "localhost:8000"])
def test_what_is_no_address_is_refused(url: str) -> None:
    assert address_fault(url).startswith("is no address")


def test_the_key_in_place_of_the_variable_is_refused_without_showing_it() -> None:
    for name in ("sk-hunter22", "sk_hunter22", "hunter 22", "a" * 20 + "hunter22", ""):
        assert key_variable_fault(name)
        assert not name or name not in key_variable_fault(name)
    for name in ("OPENAI_API_KEY", "my_key", "AZURE_OPENAI_API_KEY_NUMBER_2"):
        assert key_variable_fault(name) == ""


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"JUDGE": {"MODEL": "x-hunter22-hunter22"}}, "JUDGE.MODEL"),
        ({"BENCHMARKS": {"zoo": {"data": {"keep": ["a", "hunter22-hunter22"]}}}}, "BENCHMARKS.zoo.data.keep"),
        ({"NAME": {"hunter22-hunter22": 1}}, "NAME"),
    ],
)
def test_a_setting_that_holds_the_key_is_refused_by_name(values: dict[str, object], where: str) -> None:
    environ = {"MINE": "hunter22-hunter22\n"}
    with pytest.raises(JudgeError, match=f"^{where} holds the key") as refused:
        check_no_key(values, "MINE", environ)
    assert "hunter22" not in str(refused.value)
    check_no_key(values, None, environ)
