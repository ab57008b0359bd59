"""Pages of the documentation: their code blocks, the commands in them, and whether a command can be what it says.

Above each block of bash stands, invisible on the page, ``<!-- test: run -->`` or ``<!-- test: parse -->``. Commands of
the first kind run on the tiny model (`tests.e2e.test_documented_commands`); those of the second need weights, GPUs, a
network or keys, and are checked as far as that goes without them: files, options, keys and their values, datasets.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.roots import ROOT_VARIABLES
from pipeline.commands.cli import build_parser
from pipeline.commands.registry import COMMANDS
from pipeline.config import read_configuration
from tests.fixtures import ROOT
from trainer.cli import COMMANDS as TRAINING
from trainer.config import TrainConfig

MORE = (*COMMANDS, *TRAINING)
SITE = tuple(sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md") if not file.is_symlink()))
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "assets/tiny/README.md", *SITE)
SHELLS = ("bash", "sh", "shell", "console", "shell script")
KINDS = ("run", "parse")
LINKED = ("configs", "assets", "docs", "tests", "trainer", "run", "install", "lbk_entry.py")
"""What commands name by relative paths."""
_FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- test: (\w+) -->\n\Z")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_BEGINNINGS = ("bash ", "python ", "lbk_entry.py ", "accelerate ", "sbatch ", "mkdocs ")
_ACCELERATE = ("config_file", "num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
_VARIABLES = (*ROOT_VARIABLES, "OPENAI_API_KEY", "HF_HUB_OFFLINE")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A code block of a page.

    Attributes:
        page: relative to the repository.
        line: of its fence, from 1.
        language: after the fence.
        kind: what the comment above it says; "" where there is none.
        text: without the fences.
    """

    page: str
    line: int
    language: str
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line.

    Attributes:
        where: page and line, for messages.
        words: as a shell splits them.
        environment: the variables set in front of it.
    """

    where: str
    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """The code blocks of a page."""
    text = read(page)
    found = []
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        kind = mark.group(1) if mark else ""
        found.append(Block(page=page, line=line, language=match.group(1).strip(), kind=kind, text=match.group(2)))
    return found


def commands(page: str, kind: str) -> list[Command]:
    """The commands in a page's blocks of a kind."""
    chosen = [block for block in blocks(page) if block.language in SHELLS and block.kind == kind]
    return [command for block in chosen for command in split(block.text, f"{page}:{block.line}")]


def split(text: str, where: str) -> list[Command]:
    """The commands of a shell's text, one a line; a backslash goes on with the next line, and comments do not count."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words, environment = shlex.split(line, comments=True), {}
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        if words:
            found.append(Command(where=where, words=tuple(words), environment=environment))
    return found


def inline(page: str) -> Iterator[Command]:
    """The commands in a page's running text."""
    text = _FENCE.sub(lambda match: "\n" * match.group().count("\n"), read(page))
    for match in _SPAN.finditer(text):
        span = " ".join(match.group(1).split())
        if span.startswith(_BEGINNINGS):
            yield from split(span, f"{page}:{text.count(chr(10), 0, match.start()) + 1}")


def yaml_files(page: str) -> dict[str, str]:
    """The YAML files that a page shows, by the name in their first line."""
    found = {}
    for block in blocks(page):
        name = re.match(r"# ([\w-]+\.yaml)\n", block.text)
        if block.language == "yaml" and name:
            found[name.group(1)] = block.text
    return found


def make_workspace(folder: Path, pages: Sequence[str]) -> None:
    """Make a folder in which the commands of pages find the files that they name relatively."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for page in pages:
        for name, text in yaml_files(page).items():
            (folder / name).write_text(text, encoding="utf-8")


def check(command: Command) -> None:
    """Check a command, from within a workspace.

    Raises:
        AssertionError, ConfigError, SystemExit: it names what does not exist.
    """
    words = list(command.words)
    known = (*_VARIABLES, *re.findall(r"^  ([A-Z_]+) ", read("run"), re.MULTILINE))
    assert [name for name in command.environment if name not in known] == [], command
    if words[0] == "export":
        assert words[1].partition("=")[0] in known, command
    elif words[0] == "rsync":  # copies a journal; there is nothing of ours in it
        assert len(words) == 4, command
    elif words[0] == "mkdocs":
        assert words[1] in ("serve", "build") and (ROOT / "mkdocs.yml").is_file(), command
    elif words[0] == "sbatch":
        assert Path(words[1]).is_file(), command
        check_entry(words[2:])
    elif words[0] == "accelerate":
        at = words.index("lbk_entry.py")
        _check_launcher(words[1:at])
        check_entry(words[at + 1 :])
    else:
        _check_script(command, words)


def _check_launcher(words: Sequence[str]) -> None:
    assert words[0] == "launch", words
    for option, value in zip(words[1::2], words[2::2], strict=True):
        assert option.removeprefix("--") in _ACCELERATE, option
        assert option != "--config_file" or Path(value).is_file(), value


def _check_script(command: Command, words: list[str]) -> None:
    """A command of the repository's scripts or modules."""
    if words[0] == "lbk_entry.py" or words[:2] == ["python", "lbk_entry.py"]:
        check_entry(words[words.index("lbk_entry.py") + 1 :])
    elif words[:2] == ["bash", "run"]:
        if words[2:] and not words[2].startswith("-"):
            check_entry(words[2:])
        else:
            assert all(word in read("run") for word in words[2:]), command
    elif words[0] == "bash":
        script = ROOT / words[1]
        sources = [script, *script.parent.glob("*.py")] if script.parent != ROOT else [script]
        _check_options(words[2:], sources, command)
        for name in words[words.index("--extras") + 1].split(",") if "--extras" in words else ():
            assert (ROOT / "assets" / "requirements" / f"{name}.txt").is_file(), command
    else:
        assert words[:2] == ["python", "-m"], f"{command.where}: no test knows what '{words[0]}' is"
        module = ROOT.joinpath(*words[2].split("."))
        file = module.with_suffix(".py")
        _check_options(words[3:], [file if file.is_file() else module / "__main__.py"], command)


def _check_options(words: Sequence[str], sources: Sequence[Path], command: Command) -> None:
    """Each option stands in a source, as text or as an argument of a parser."""
    assert sources[0].is_file(), command
    given = {word for word in words if word.startswith("--")}
    known: set[str] = set()
    for source in sources if given else ():
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".py":
            known |= {str(node.value) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        else:
            known |= set(re.findall(r"--[\w-]+", text))
    assert given <= known, (command, given - known)


def check_entry(words: Sequence[str]) -> None:
    """Check arguments of ``lbk_entry.py``: options, configuration files, keys and values, names of benchmarks.

    Raises:
        AssertionError, ConfigError, RunError, SystemExit: something there is not.
    """
    args, unknown = build_parser(MORE)[0].parse_known_args([word for word in words if word != "--help"])
    assert not unknown, (words, unknown)
    if args.command is None:
        return
    config: TrainConfig
    config, catalog = read_configuration(getattr(args, "conf_files", ()), getattr(args, "overrides", ()), TrainConfig)
    given = getattr(args, "dataset", None) or []
    names = [name for name in ([given] if isinstance(given, str) else given) if name != "train"]
    if args.command == "eval" and not args.print_config and (args.conf_files or args.overrides):
        names.append(config.DATASETS.TEST)
    if names:
        catalog.select(",".join(names))
