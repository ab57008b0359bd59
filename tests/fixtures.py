"""Where the golden data of the reference implementations lies: next to the checkout, or nowhere."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def fixtures_root() -> Path:
    """Where golden data is looked for."""
    return Path(os.environ.get("COLLAVO_FIXTURES", ROOT.parent / "shared" / "fixtures"))


def fixture_dir(relative: str) -> Path:
    """A folder of golden data; the calling test is skipped, with the reason, where it is absent.

    Args:
        relative: e.g. ``collavo`` or ``benchmarks/pope``.
    """
    base = fixtures_root()
    if not (base / relative).is_dir():
        pytest.skip(f"golden data not found at {base / relative} (COLLAVO_FIXTURES names another place)")
    return base / relative
