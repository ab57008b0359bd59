"""What the pages say: links, paths and commands that exist, and hooks that are the same checks as the Makefile's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configs.load import ConfigError
from pipeline.commands.keys import key_helps
from tests import documents
from tests.fixtures import ROOT
from trainer.config import TrainSchema

PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")
_COMMAND = re.compile(r"python -m ([\w.]+)")
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|yaml|toml))`")


_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_KEY = re.compile(r"([A-Z][A-Z0-9]*(?:\.[A-Z][A-Z0-9_]*)+)(?: \S.*)?")
_MEANINGLESS = ("MODEL.DECODER",)
"""Keys of the first release that mean nothing here, which the pages say."""
LARGEST_IMAGE = 200_000


def anchors(page: str) -> set[str]:
    """What links to the headings of a page end in, on GitHub and on the site."""
    text = re.sub(r"^```.*?^```$", "", documents.read(page), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", documents.PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    folder = (ROOT / page).parent
    for target in _LINK.findall(documents.read(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / page
        assert file.is_file(), (page, target)
        if page in documents.SITE:  # a site has no files from outside of its folder
            assert file.is_relative_to(ROOT / "docs") or file == ROOT / "ARCHITECTURE.md", (page, target)
        if anchor:
            assert anchor in anchors(str(file.relative_to(ROOT))), (page, target)
        if file.suffix == ".png" and file.is_relative_to(ROOT / "docs"):
            assert file.stat().st_size < LARGEST_IMAGE


def test_the_site_has_every_page_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = [name for entry in site["nav"] for name in entry.values()]
    assert sorted(named) == sorted(file.name for file in (ROOT / "docs").glob("*.md"))
    assert site["plugins"] == ["search"] and site["theme"]["font"] is False  # nothing from other servers


def test_every_block_of_commands_says_how_it_is_tested() -> None:
    found = [block for page in documents.PAGES for block in documents.blocks(page)]
    shells = [block for block in found if block.language in documents.SHELLS]
    assert len(shells) > 40
    assert [b for b in shells if b.language != "bash" or b.kind not in documents.KINDS] == []
    assert [b for b in found if b.kind and b not in shells] == []
    plain = [b for b in found if not b.language and re.search(r"^\s*(bash|python|accelerate) ", b.text, re.MULTILINE)]
    assert plain == []


@pytest.mark.parametrize("page", documents.PAGES)
def test_commands_name_what_exists(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.make_workspace(tmp_path, (page,))
    monkeypatch.chdir(tmp_path)
    for kind in documents.KINDS:
        for command in documents.commands(page, kind):
            documents.check(command)
    for command in documents.inline(page) if page != "CHANGELOG.md" else ():  # which shortens, and tells of the past
        documents.check(command)


@pytest.mark.parametrize("page", ["README.md", "assets/tiny/README.md", *documents.SITE])
def test_configuration_keys_in_the_text_exist(page: str) -> None:
    known = {one.name for one in key_helps(TrainSchema)}
    known |= {name.rpartition(".")[0] for name in known}
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", documents.read(page)):
        key = _KEY.fullmatch(" ".join(span.split()))
        if key and ".TEST." not in key.group(1) and key.group(1) not in _MEANINGLESS:
            assert key.group(1) in known, (page, span)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python lbk_entry.py eval --conf_files configs/nowhere.yaml", "configs/nowhere.yaml not found"),
        ("bash run eval --overrides DATASETS.TEST pope_tets", "did you mean pope_test"),
        ("bash run eval --overrides LLM.BITZ 4", "did you mean LLM.BITS"),
        ("bash run train --overrides TRAIN.STEPS many", "TRAIN.STEPS"),
        ("bash run eval --nonsense", "--nonsense"),
        ("bash run evla", "evla"),
        ("bash install --extras nothing", "nothing"),
        ("bash tests/gpu/run --tiny", "--tiny"),
        ("accelerate launch --config_file nowhere.yaml lbk_entry.py list", "nowhere.yaml"),
        ("accelerate launch --procs 2 lbk_entry.py list", "--procs"),
        ("GPUS=1 bash run eval", "GPUS"),
        ("python -m tests.parity.nowhere DIR", "tests.parity.nowhere"),
        ("curl https://example.com", "no test knows what 'curl' is"),
    ],
)
def test_a_wrong_command_is_found(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documents.make_workspace(tmp_path, ())
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, ConfigError, SystemExit)) as fault:
        documents.check(documents.split(line, "page:1")[0])
    assert message in f"{fault.value} {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES[:2])
def test_every_path_exists(page: str) -> None:
    named = set(_PATH.findall((ROOT / page).read_text(encoding="utf-8")))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_layout_of_the_readme_is_that_of_the_repository() -> None:
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2].partition("```")[2]
    block = layout.partition("```")[0]
    folder = ""
    for line in block.strip("\n").splitlines():
        head = line[:15].strip()
        folder = head or folder
        for name in re.findall(r"[\w./-]+", head):
            assert (ROOT / name).exists(), name
        for name in re.findall(r"(?<![\w/])[a-z_]+(?:/|\.py)", line[15:]):
            assert (ROOT / folder / name).exists() or (ROOT / name).exists(), (folder, name)


def test_the_commands_exist_and_hooks_run_the_same_checks() -> None:
    targets = dict(re.findall(r"^([\w-]+):\n\t(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for name in re.findall(r"`make ([\w-]+)`", (ROOT / page).read_text(encoding="utf-8")):
            assert name in targets, (page, name)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in hooks]
    assert entries == [command.replace(" .", "") for command in targets["check"].split(" && ")]


def test_the_changelog_has_versions_the_newest_first() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0] == "Unreleased"
    versions = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \(\d{4}-\d{2}-\d{2}\)", title) for title in titles[1:]]
    assert all(versions)
    numbers = [tuple(map(int, match.groups())) for match in versions if match]
    assert numbers == sorted(set(numbers), reverse=True)


@pytest.mark.parametrize("page", documents.PAGES)
def test_the_modules_of_commands_exist_and_nothing_is_left_to_fill_in(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    own = [name.split(".") for name in _COMMAND.findall(text) if (ROOT / name.split(".")[0]).is_dir()]
    modules = [ROOT.joinpath(*parts) for parts in own]
    assert [str(m) for m in modules if not (m.with_suffix(".py").is_file() or (m / "__main__.py").is_file())] == []
    assert not re.findall(r"@@|TODO|FIXME|XXX", text)
