"""What the pages for contributors say: paths that exist, commands of the Makefile, hooks that are the same checks."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.fixtures import ROOT

PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")
_COMMAND = re.compile(r"python -m ([\w.]+)")
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|yaml|toml))`")


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


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "docs/performance.md"])
def test_the_modules_of_commands_exist_and_nothing_is_left_to_fill_in(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    own = [name.split(".") for name in _COMMAND.findall(text) if (ROOT / name.split(".")[0]).is_dir()]
    modules = [ROOT.joinpath(*parts) for parts in own]
    assert [str(m) for m in modules if not (m.with_suffix(".py").is_file() or (m / "__main__.py").is_file())] == []
    assert not re.findall(r"@@|TODO|FIXME|XXX", text)
