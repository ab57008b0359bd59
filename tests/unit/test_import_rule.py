"""Imports point one way: lbk_entry -> trainer -> pipeline -> {collavo -> modeling, datasets}; none imports assets."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "assets": {"lbk_entry", "trainer", "pipeline", "collavo", "modeling", "datasets", "configs"},
    "lbk_entry": {"trainer", "pipeline", "configs"},
    "trainer": {"pipeline", "collavo", "modeling", "datasets", "configs"},
    "pipeline": {"collavo", "modeling", "datasets", "configs"},
    "collavo": {"modeling"},
    "modeling": set(),
    "datasets": set(),
    "configs": set(),
}
FOR_ALL = "configs.common."
"""What every package may import: words for messages, paths, JSON; it imports nothing of ours."""
NO_TORCH = ("datasets", "configs")


def imports(tree: ast.AST) -> Iterator[tuple[int, str, bool, list[str]]]:
    """Line, module, whether relative, and imported names of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "", node.level > 0, [alias.name for alias in node.names]


def offences(root: Path) -> list[str]:
    found = []
    for package, allowed in MAY_IMPORT.items():
        files = (
            [root / f"{package}.py"] if (root / f"{package}.py").is_file() else sorted((root / package).rglob("*.py"))
        )
        for file in files:
            for line, module, relative, names in imports(ast.parse(file.read_text(encoding="utf-8"))):
                top = module.split(".")[0]
                where = f"{file.relative_to(root)}:{line}"
                if "*" in names:
                    found.append(f"{where}: imports * from {module}")
                if relative:
                    continue
                if top == package:
                    found.append(f"{where}: absolute import inside its package")
                elif module.startswith(FOR_ALL):
                    continue
                elif top in MAY_IMPORT and top not in allowed:
                    found.append(f"{where}: {package} must not import {top}")
                elif top == "torch" and package in NO_TORCH:
                    found.append(f"{where}: {package} must not import torch")
                elif top == "tests":
                    found.append(f"{where}: imports tests")
    return found


def test_imports_point_one_way() -> None:
    assert offences(ROOT) == []


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        (
            "datasets/a.py",
            "import os\nfrom collavo.model import x\n",
            "datasets/a.py:2: datasets must not import collavo",
        ),
        (
            "modeling/b/c.py",
            "def f():\n    import pipeline.run.plan\n",
            "modeling/b/c.py:2: modeling must not import pipeline",
        ),
        ("pipeline/a.py", "from trainer import t\n", "pipeline/a.py:1: pipeline must not import trainer"),
        ("datasets/b.py", "from configs.load import x\n", "datasets/b.py:1: datasets must not import configs"),
        ("configs/load.py", "import datasets\n", "configs/load.py:1: configs must not import datasets"),
        ("datasets/a.py", "import torch.nn\n", "datasets/a.py:1: datasets must not import torch"),
        ("collavo/a.py", "from modeling.vit import *\n", "collavo/a.py:1: imports * from modeling.vit"),
        ("collavo/a.py", "from collavo.model import x\n", "collavo/a.py:1: absolute import inside its package"),
    ],
)
def test_an_offence_is_named_by_file_and_line(file: str, code: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(code)
    assert offences(tmp_path) == [message]


def modules(root: Path) -> dict[str, set[str]]:
    """Our modules, and those of ours that each imports, also for its annotations alone."""
    files = [root / "lbk_entry.py", *(file for package in MAY_IMPORT for file in (root / package).rglob("*.py"))]
    names = {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    found: dict[str, set[str]] = {}
    for name, file in names.items():
        package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                found[name] |= {part if (part := f"{base}.{a.name}") in names else base for a in node.names}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
        found[name] = (found[name] & names.keys()) - {name}
    return found


def in_circles(imported: dict[str, set[str]]) -> set[str]:
    """Modules that import each other, directly or over others: what is left when all others are taken away."""
    left = dict(imported)
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    while free := left.keys() - {other for others in left.values() for other in others}:
        left = {name: others for name, others in left.items() if name not in free}
    return set(left)


def test_no_modules_import_each_other() -> None:
    imported = modules(ROOT)
    assert {"modeling.image", "datasets.types"} <= imported["pipeline.images"]
    assert in_circles(imported) == set()
    circle = {"a": {"b", "e"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": set()}
    assert in_circles(circle) == {"b", "c"}


def test_the_runtime_stands_below_the_rest_of_the_pipeline() -> None:
    above = []
    for file in sorted((ROOT / "pipeline" / "runtime").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                above.append(f"{file.name}:{node.lineno}: imports {'.' * node.level}{node.module or ''}")
    assert above == []
