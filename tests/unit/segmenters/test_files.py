"""Segmenters whose files are missing: said at once, before torch is loaded; hub names are looked for locally first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from modeling import hub
from modeling.segmenters import build_segmenter, check_segmenter
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from tests.unit.segmenters.tiny_mask2former import save_tiny_mask2former

ROOT = Path(__file__).resolve().parents[3]
NAME = "someone/panoptic"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_mask2former(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    return tmp_path / "cache"


def put(cache: Path, saved: Path, *without: str) -> Path:
    """Lay a checkpoint into the cache as the hub's library does."""
    folder = cache / "models--someone--panoptic"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    shutil.copytree(saved, folder / "snapshots" / "abc", ignore=lambda *_: without)
    return folder / "snapshots" / "abc"


class Unreachable:
    """The hub of a machine without a network; counts how often it is asked."""

    asked = 0

    def model_info(self, name: str, **options: Any) -> Any:
        Unreachable.asked += 1
        raise RuntimeError("Name or service not known\nfor long")


def test_what_is_cached_is_never_asked_for(cache: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    monkeypatch.setattr(Unreachable, "asked", 0)
    folder = put(cache, saved)
    assert hub.locate(NAME) == folder and hub.locate(str(saved)) == saved
    config = SegmenterConfig(PATH=NAME)
    check_segmenter(config)
    assert build_segmenter(config).fingerprint == build_segmenter(SegmenterConfig(PATH=str(saved))).fingerprint
    assert Unreachable.asked == 0


@pytest.mark.parametrize("without", [(), ("config.json",), ("preprocessor_config.json",), ("model.safetensors",)])
def test_what_is_not_here_is_asked_for_once(
    without: tuple[str, ...], cache: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    monkeypatch.setattr(Unreachable, "asked", 0)
    if without:
        put(cache, saved, *without)
    with pytest.raises(SegmenterError, match=r"neither a directory nor .*: Name or service not known\)\. Without"):
        check_segmenter(SegmenterConfig(PATH=NAME))
    assert Unreachable.asked == 1


def test_offline_nothing_is_asked_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    monkeypatch.setattr(Unreachable, "asked", 0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SegmenterError, match="HF_HUB_OFFLINE forbids to fetch it"):
        check_segmenter(SegmenterConfig())
    assert Unreachable.asked == 0


def test_what_the_hub_has_is_fetched(cache: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Hub:
        def model_info(self, name: str, **options: Any) -> Any:
            files = ["config.json", "model.safetensors", "pytorch_model.bin", "README.md"]
            return type("Info", (), {"siblings": [type("File", (), {"rfilename": file}) for file in files]})

    def download(name: str, **options: Any) -> str:
        asked.update(options)
        return str(put(cache, saved))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    check_segmenter(SegmenterConfig(PATH=NAME))
    assert "model*.safetensors" in asked["allow_patterns"] and "pytorch_model*.bin" not in asked["allow_patterns"]
    assert hub.cached(NAME) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"PATH": "{empty}"}, "lacks config.json and preprocessor_config.json and model.safetensors"),
        ({"PATH": "/no/such/place"}, "no such directory, and the hub cannot have such a name"),
        ({"NAME": "xdecoder", "PATH": "no.pt"}, "SEGMENTER.PATH: no.pt is not there"),
        ({"NAME": "xdecoder", "PATH": "{empty}"}, "model.safetensors is not there"),
        ({"NAME": "precomputed", "PATH": "no.json"}, "SEGMENTER.PATH: no.json is not there"),
        ({"NAME": "precomputed", "PATH": "README.md", "IMAGES": "nowhere"}, "SEGMENTER.IMAGES: nowhere is not there"),
        ({"NAME": "detectron2", "PATH": "no.pkl"}, "SEGMENTER.PATH: no.pkl is not there"),
        ({"NAME": "nonne"}, "did you mean none"),
        ({"NAME": "none", "BATCH_SIZE": 0}, "SEGMENTER.BATCH_SIZE"),
    ],
)
def test_what_is_missing_is_named(settings: dict[str, Any], message: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    named: dict[str, Any] = {
        key: v.format(empty=tmp_path / "empty") if isinstance(v, str) else v for key, v in settings.items()
    }
    with pytest.raises(SegmenterError, match=message):
        check_segmenter(SegmenterConfig(**named))


@pytest.mark.slow
def test_checking_loads_no_torch_and_the_build_says_nothing_of_torchvision(saved: Path) -> None:
    program = (
        "import sys\n"
        "from modeling.segmenters import build_segmenter, check_segmenter\n"
        "from modeling.segmenters.options import SegmenterConfig\n"
        f"config = SegmenterConfig(PATH={str(saved)!r})\n"
        "check_segmenter(config)\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}\n"
        "build_segmenter(config)\n"
    )
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "orchvision" not in done.stderr
