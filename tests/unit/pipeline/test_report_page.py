"""The report's pages without a browser: what they hold, that nothing in them is markup, and their policy."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from configs.load import ConfigError
from modeling.image import decode_pixels
from pipeline.results.browse.page import as_json, data_page
from pipeline.results.browse.prediction import as_line
from pipeline.results.browse.report_data import common_ends, page_data
from pipeline.results.browse.report_files import page_names, side_by_side, write_report
from pipeline.results.browse.thumbnails import make_thumbnails, shrink
from pipeline.runtime.files import json_line
from tests.hostile_run import HOSTILE, MadeImage, hostile_run, other_run


class Seen(HTMLParser):
    """Elements and attributes of a page, and the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = "data" if dict(attrs).get("id") == "data" else tag

    def handle_data(self, data: str) -> None:
        self.inside[self._open] = self.inside.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    @property
    def policy(self) -> str:
        (found,) = [a["content"] for t, a in self.tags if a.get("http-equiv") == "Content-Security-Policy"]
        return found or ""


def written(folder: Path, num: int, **options: Any) -> Path:
    run, sights = hostile_run(num)
    return write_report([[run]], lambda _: sights, folder, **options)


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_hostile_texts_are_data_and_nothing_else(tmp_path: Path) -> None:
    index = written(tmp_path, 60)
    seen = Seen((tmp_path / "zoo.html").read_text())
    names = {"html", "head", "meta", "title", "style", "body", "noscript", "script"}
    assert {tag for tag, _ in seen.tags} == names
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    data = json.loads(seen.inside["data"])
    texts = {record[data["fields"].index("first")][data["reply_fields"].index("text")] for record in data["records"]}
    assert texts - {None} == set(HOSTILE)  # each as the model said it
    assert not set("<>&") & set(seen.inside["data"])
    assert {tag for tag, _ in Seen(index.read_text()).tags} <= names | {"div", "h1", "table", "tr", "th", "td", "a"}


def test_the_policy_allows_this_script_and_this_style_alone(tmp_path: Path) -> None:
    index = written(tmp_path, 8)
    seen = Seen((tmp_path / "zoo.html").read_text())
    rules = dict(rule.split(" ", 1) for rule in seen.policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": hashed(seen.inside["script"]),
        "style-src": hashed(seen.inside["style"]),
        "img-src": "data: 'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "script-src 'none'" in Seen(index.read_text()).policy
    assert not re.search(
        r"https?://|innerHTML|\beval\(|insertAdjacent|document\.write", (tmp_path / "zoo.html").read_text()
    )


@pytest.mark.slow
def test_the_page_has_as_many_elements_for_12000_records_as_for_12(tmp_path: Path) -> None:
    counts = []
    for num in (12, 12_000):
        run, sights = hostile_run(num)
        page = data_page("zoo", page_data([run], sights, {}, 0))
        counts.append(len(Seen(page).tags))
        assert len(page) < 1000 * num + 40_000
    assert counts[0] == counts[1] < 20


def test_images_are_made_once_and_wrong_answers_carry_theirs_as_far_as_the_budget_goes(tmp_path: Path) -> None:
    written(tmp_path, 40)
    files = sorted((tmp_path / "thumbnails").iterdir())
    assert len(files) == 3
    data = json.loads(Seen((tmp_path / "zoo.html").read_text()).inside["data"])
    assert len(data["images"]) == 3 and all(i["inside"].startswith("data:image/jpeg;base64,") for i in data["images"])
    before = {file: file.stat().st_mtime_ns for file in files}
    written(tmp_path, 40, budget=0)
    data = json.loads(Seen((tmp_path / "zoo.html").read_text()).inside["data"])
    assert [image["inside"] for image in data["images"]] == [None] * 3
    assert {image["file"] for image in data["images"]} == {file.name for file in files}
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_unreadable_images_are_left_out(tmp_path: Path) -> None:
    class Broken(MadeImage):
        def read(self) -> bytes:
            return b"no image"

    class Gone(MadeImage):
        def read(self) -> bytes:
            raise FileNotFoundError(2, "gone")

    assert list(make_thumbnails([Broken("a"), Gone("b"), MadeImage("c")], tmp_path)) == ["c"]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "I;16", "F", "RGBA", "LA"])
def test_thumbnails_show_what_the_model_is_shown(mode: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    image = Image.fromarray(ramp)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(40)
    else:
        image = image.convert(mode)
    content = io.BytesIO()
    image.save(content, "TIFF")
    made = Image.open(io.BytesIO(shrink(content.getvalue(), 32) or b""))
    wanted = Image.fromarray(decode_pixels(content.getvalue(), None)).resize((32, 24), Image.Resampling.BOX)
    assert made.size == wanted.size
    assert np.abs(np.asarray(made, float) - np.asarray(wanted, float)).mean() < (25 if mode == "1" else 6)


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    run, sights = hostile_run(12)
    data = page_data([run, other_run(run)], sights, {}, 0)
    first, second = (data["fields"].index(name) for name in ("first", "second"))
    text = data["reply_fields"].index("text")
    assert [r[second] and r[second][text] == "changed" for r in data["records"]] == [
        *(index % 3 == 0 for index in range(11)),
        None,
    ]
    assert all(record[first] for record in data["records"])
    prompts = [data["prompt"][0] + r[first][0] + data["prompt"][1] for r in data["records"] if r[first][0] is not None]
    assert prompts == [p.prompt for p in run.predictions if p.prompt is not None]


def test_runs_are_read_from_folders_and_told_apart(tmp_path: Path) -> None:
    run, _ = hostile_run(8)
    for name in ("one", "two", "three"):
        folder = tmp_path / name / "zoo"
        folder.mkdir(parents=True)
        (folder / "predictions.jsonl").write_bytes(b"".join(json_line(as_line(p)) for p in run.predictions))
    ((first, second),) = side_by_side([tmp_path / "one", tmp_path / "two" / "zoo"])
    assert (first.name, second.name, first.dataset) == ("one", "two", "zoo")
    assert len(first.predictions) == 8
    ((same, again),) = side_by_side([tmp_path / "one", tmp_path / "one"])
    assert same.name == again.name != "one"
    with pytest.raises(ConfigError, match="zoo is in 3 of the runs"):
        side_by_side([tmp_path / name for name in ("one", "two", "three")])


def test_pages_have_names_of_their_own() -> None:
    names = page_names(["pope_test", "../../etc", "..", "index", "a b", "a/b", "<x>"])
    assert names == ["pope_test.html", "etc.html", "benchmark.html", "index-2.html", "a-b.html", "a-b-2.html", "x.html"]


def test_strange_verdicts_of_a_judge_cost_nothing() -> None:
    run, sights = hostile_run(1)
    odd = replace(run.predictions[0], judge=[{"part": float("nan"), "verdict": [1], "reply": "fine", "more": {}}])
    data = page_data([replace(run, predictions=[odd])], sights, {}, 0)
    record = data["records"][0][data["fields"].index("first")]
    assert record[data["reply_fields"].index("judge")] == [{"part": None, "verdict": None, "reply": "fine"}]
    assert data_page("zoo", data)


@given(texts=st.lists(st.text(alphabet="ab", max_size=6), max_size=5))
def test_common_ends_never_overlap(texts: list[str]) -> None:
    start, end = common_ends(texts)
    assert all(t.startswith(start) and t.endswith(end) and len(t) >= len(start) + len(end) for t in texts)


@given(value=st.dictionaries(st.text(), st.lists(st.text() | st.none() | st.integers(), max_size=4), max_size=4))
def test_json_in_a_page_is_ascii_without_markup(value: Any) -> None:
    text = as_json(value)
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == value
