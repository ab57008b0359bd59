"""The report in headless Chromium: keys, filters, hostile texts, and how many nodes 12,000 records need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.results.browse.report_files import write_report
from tests.browser import Page, browser, needs_browser
from tests.hostile_run import HOSTILE, hostile_run, other_run

pytestmark = needs_browser
NODES = """(() => { const walker = document.createTreeWalker(document, NodeFilter.SHOW_ALL);
    let count = 1; while (walker.nextNode()) count++; return count; })()"""
CELL = "[...document.querySelectorAll('dt')].find(d => d.textContent === {!r}).nextSibling.textContent"
LARGE = 12_000


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report <b>")
    run, sights = hostile_run(LARGE)
    write_report([[run]], lambda _: sights, folder, budget=0)
    write_report([[run, other_run(run)]], lambda _: sights, folder / "two")
    return folder


def cell(page: Page, name: str) -> str:
    return page.eval(CELL.format(name))


def count(page: Page) -> str:
    return page.eval("document.querySelector('nav span').textContent")


def opened(page: Page, file: Path) -> None:
    page.console.clear()
    page.open(file.as_uri())


def test_keys_step_filter_and_show_the_map(page: Page, report: Path) -> None:
    opened(page, report / "zoo.html")
    assert cell(page, "id") == "r0" and count(page) == f"{LARGE} of {LARGE}"
    for key in ("j", "ArrowDown", "j", "k"):
        page.press(key)
    assert cell(page, "id") == "r2"
    page.press("w")
    assert count(page) == f"{LARGE // 4} of {LARGE}" and cell(page, "verdict").startswith("wrong")
    page.press("j")
    assert cell(page, "id") == "r5"
    page.press("End")
    assert cell(page, "id") == f"r{LARGE - 3}"
    page.wait("document.querySelector('.stage img').naturalWidth > 0")  # a file next to the page, under this policy
    hidden = "document.querySelector('canvas').hidden"
    assert page.eval(hidden)
    page.press("m")
    painted = "(() => { const c = document.querySelector('canvas'); return [...c.getContext('2d')"
    painted += ".getImageData(0, 0, c.width, c.height).data].filter((v, i) => i % 4 === 3 && v > 0).length; })()"
    assert not page.eval(hidden) and page.eval(painted) > 1000
    page.press("m")
    assert page.eval(hidden)
    page.hover(".stage")
    assert not page.eval(hidden)
    assert page.console == []


def test_filters_by_verdict_group_and_text(page: Page, report: Path) -> None:
    opened(page, report / "zoo.html")

    def choose(selector: str, value: str, event: str) -> str:
        page.eval(f"(() => {{ const e = document.querySelector({selector!r}); e.value = {json.dumps(value)};"
                  f" e.dispatchEvent(new Event('{event}')); }})()")  # fmt: skip
        return count(page)

    for value in ("unreadable", "error", "right"):
        assert choose("select", value, "change") == f"{LARGE // 4} of {LARGE}"
    assert choose("select", "all", "change") == f"{LARGE} of {LARGE}"
    assert choose("[list=groups]", "group 39 ", "input") == f"{LARGE // 40} of {LARGE}"
    assert choose("[list=groups]", "", "input") == f"{LARGE} of {LARGE}"
    assert choose("[type=search]", "question 11999", "input") == f"1 of {LARGE}"
    assert cell(page, "id") == "r11999"
    assert choose("[type=search]", "no such text anywhere", "input") == f"0 of {LARGE}"
    assert page.console == []


def test_hostile_texts_are_shown_as_they_are(page: Page, report: Path) -> None:
    opened(page, report / "zoo.html")
    for index in range(len(HOSTILE)):
        if index % 4 != 3:
            whole = HOSTILE[index].encode("utf-8", "replace").decode()
            assert cell(page, "reply").encode("utf-8", "replace").decode()[:6].strip("\ufffd?") == whole[:6].strip("?")
            assert not page.eval(r"/[\x00-\x08\x1b\u2028-\u202e]/.test(document.body.innerText)"), "marks are escapes"
        page.press("j")
    assert page.eval("document.title").startswith("zoo")
    allowed = "['IMG', 'SCRIPT', 'SVG'].flatMap(n => [...document.querySelectorAll(n)]).length"
    assert page.eval(allowed) == 9 + 1 + 2  # the rows, the record, the two scripts
    assert page.console == []
    opened(page, report / "index.html")
    assert page.eval("document.querySelector('td a').getAttribute('href')") == "zoo.html"


@pytest.mark.parametrize("name", ["zoo.html", "two/zoo.html"])
def test_nodes_stay_few(page: Page, report: Path, name: str) -> None:
    opened(page, report / name)
    most = page.eval(NODES)
    for key in ("End", "k", "Home", "m", "w", "j", "a"):
        page.press(key)
        most = max(most, page.eval(NODES))
    page.eval("document.querySelector('.list').scrollTop = 400000")
    page.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert max(most, page.eval(NODES)) <= 300
    assert page.eval("document.querySelectorAll('.row:not([hidden])').length") == 9


def test_two_runs_and_what_changed_between_them(page: Page, report: Path) -> None:
    opened(page, report / "two" / "zoo.html")
    page.eval("(() => { const e = document.querySelector('select'); e.value = 'better';"
              " e.dispatchEvent(new Event('change')); })()")  # fmt: skip
    # every third is changed to right: better where it was wrong or unreadable, that is half of those
    assert count(page) == f"{LARGE // 6} of {LARGE}"
    assert page.eval(
        "[...document.querySelectorAll('dd')].some(d => d.textContent.startsWith('other <b>run</b>: changed'))"
    )
    assert page.console == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_dark(page: Page, report: Path, dark: bool) -> None:
    page.open((report / "zoo.html").as_uri(), dark=dark)
    lightness = "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    ink, ground = (page.eval(lightness.format(name)) for name in ("color", "backgroundColor"))
    assert (ink > ground) == dark and abs(ink - ground) > 150
    assert page.eval("document.documentElement.scrollWidth <= innerWidth")
