"""Text of data and servers, made fit for messages, terminals, Markdown and spreadsheets."""

import csv
import html
import io
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.common.escape import csv_cell, markdown, terminal_lines
from configs.common.words import printable, quoted, shown

ANY = st.text(st.characters(), max_size=60)
HOSTILE = [
    "\x1b[31m",
    "\r",
    "\n",
    "\u202e",
    "\u2066",
    "\x07",
    "\x9b31m",
    "\ud800",
    "\u2028",
    "\ufeff",
    "\x00",
    "\t",
    "\x7f",
]


@given(text=ANY)
def test_nothing_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\ufeff")
    shown.encode()
    assert printable(shown) == shown


@pytest.mark.parametrize("part", HOSTILE)
def test_what_is_not_seen_becomes_an_escape(part: str) -> None:
    shown = printable(f"a{part}b")
    assert shown.startswith("a\\") and shown.endswith("b") and len(shown.splitlines()) == 1
    assert terminal_lines(f"a\nb{part}c").startswith("a\nb")


@pytest.mark.parametrize("text", ["naïve café", "中文　标题", "ชื่อ", "می‌خواهم", "👩‍🔬", "a\u00a0b", "no_answer 50 %"])
def test_other_scripts_are_shown_as_they_are(text: str) -> None:
    assert printable(text) == text


@given(text=ANY)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    """Undoing the escapes of CommonMark (2.4 and 2.5) gives the text back, and nothing unescaped has a meaning."""
    shown = markdown(text)
    plain = re.sub(r"\\([!-/:-@\[-`{-~])", lambda match: f"&#{ord(match[1])};", shown)
    assert html.unescape(plain) == printable(text) or "&" in text
    assert not re.search(r"[`*\[\]|<>~$]", plain)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:alert)", "\\[x\\](javascript:alert)"),
        ("a|b`c`", "a\\|b\\`c\\`"),
        ("_em_ no_answer **b**", "\\_em\\_ no_answer \\*\\*b\\*\\*"),
        ("&lt;b&gt; R&D & co", "&amp;lt;b&amp;gt; R&amp;D & co"),
        ("a\nb", "a\\\\nb"),
        ("mean accuracy 97.22 (chance 50.00)", "mean accuracy 97.22 (chance 50.00)"),
    ],
)
def test_markup_is_text(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize(
    "text", ["=cmd()", "+1+1", "-2+3", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "\ufeff=1", "＝1+1", "-", "+x"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["-1.5", "+0.3", "42", "accuracy", "", "1e-05", "-1e5", "a=b", "87.2"])
def test_numbers_and_names_stay(text: str) -> None:
    assert csv_cell(text) == text


@given(text=ANY)
def test_a_cell_is_one_line_and_read_back(text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow([csv_cell(text), "end"])
    (row,) = csv.reader(io.StringIO(stream.getvalue()))
    assert row == [csv_cell(text), "end"]
    assert row[0].removeprefix("'").strip()[:1] not in tuple("=+@") or row[0].startswith("'") or row[0][1:2].isdigit()


def test_long_values_are_shortened_and_say_by_how_much() -> None:
    long = "a" * 60_000 + "b" * 40_000
    for made in (shown(long), quoted(long), quoted([long]), quoted({"k": long})):
        assert len(made) < 300
        assert re.search(r"\d{5} more characters", made)
        assert "a" in made and "b" in made
    assert shown("x" * 160) == "x" * 160
    assert len(terminal_lines(f"head\n{long}")) < 2100


def test_what_cannot_be_written_down_is_named() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert quoted(deep) == "a value of type list that is too large to be shown"
    assert quoted(10**10_000) == "a value of type int that is too large to be shown"
    assert quoted("a\x1b") == "'a\\x1b'"
