"""What a result depends on besides its configuration: the code's commit and the libraries' versions.

Versions alone move scores, so a run says where it differs from those that were tried (``assets/requirements/locked-*``,
which `bash install --locked` installs).
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "safetensors",
    "numpy",
    "pillow",
)
_ROOT = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+)")
_PATIENCE = 120.0
"""Seconds for git, which on a busy machine or a shared disk may need long to look at all files."""
_CUDA_BUILD = re.compile(r"^cuda\b.*=\s*['\"]", re.MULTILINE)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape an answer; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def tried_versions(lock: Path | None = None) -> dict[str, str]:
    """Versions that were tried together, of the packages in `PACKAGES`; one may end in ``.*``.

    Args:
        lock: a constraint file; None for that of the torch build that is installed.
    Returns: version by package; nothing where there is no such file.
    """
    file = lock or _ROOT / "assets" / "requirements" / f"locked-{'cuda' if _is_cuda_build() else 'cpu'}.txt"
    if not file.is_file():
        return {}
    pins = (_PIN.fullmatch(line.strip()) for line in file.read_text(encoding="utf-8").splitlines())
    found = {pin["name"].lower(): pin["version"] for pin in pins if pin}
    return {name: found[name] for name in PACKAGES if name in found}


def untried_versions(found: Mapping[str, str], tried: Mapping[str, str]) -> dict[str, str]:
    """The tried versions of those packages whose version is another one.

    Args:
        found: see `versions`; a build's own mark (``2.13.0+cpu``) is no difference.
        tried: see `tried_versions`.
    """
    return {
        name: version
        for name, version in tried.items()
        if name in found and not _fits(found[name].partition("+")[0], version)
    }


def libraries() -> dict[str, dict[str, str]]:
    """What a run's files say of libraries: ``versions``, and ``tried_versions`` of those that differ from them."""
    found = versions()
    return {"versions": found, "tried_versions": untried_versions(found, tried_versions())}


def difference_in_words(about: Mapping[str, Any]) -> str:
    """A line on what `libraries` found; "" where all versions are those that were tried."""
    found, tried = about.get("versions", {}), about.get("tried_versions", {})
    different = ", ".join(f"{name} {found[name]} (tried: {version})" for name, version in tried.items())
    return f"versions other than those tried: {different}" if different else ""


def _fits(version: str, tried: str) -> bool:
    return f"{version}.".startswith(tried[:-1]) if tried.endswith(".*") else version == tried


def _is_cuda_build() -> bool:
    """Whether the installed torch is built for CUDA; read from its files, as importing it takes seconds."""
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return False
    return _CUDA_BUILD.search(text) is not None


def git_commit() -> str | None:
    """The commit of this code, ``-changed`` appended if files differ from it; None outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("-changed" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
