"""What gives an engine: its segmenter with the cache of its maps, and what it says and refuses of a checkpoint."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from collavo.errors import CheckpointError
from configs.load import REPOSITORY
from pipeline.config import EvalConfig, read_configuration
from pipeline.models.choose import make_source
from pipeline.models.hf import TransformersSource
from pipeline.models.map_cache import CachedSegmenter
from tests.tiny_models import tiny

SEGMENTER = ("SEGMENTER.NAME", "xdecoder", "SEGMENTER.PATH", str(REPOSITORY / "assets" / "tiny" / "segmenter"))


@pytest.mark.parametrize("kind", ["collavo", "hf", "endpoint"])
def test_every_kind_of_model_keeps_the_maps_of_its_segmenter(kind: str, tmp_path: Path) -> None:
    words = ("MODEL.NAME", kind, *SEGMENTER, "SEGMENTER.CACHE", str(tmp_path))
    config, _ = read_configuration([], words, EvalConfig)
    source = make_source(config, torch.device("cpu"))
    segmenter = source.segmenter()
    assert isinstance(segmenter, CachedSegmenter) and segmenter.cache is not None
    assert segmenter.cache.folder == tmp_path
    assert source.segmenter() is segmenter, "it is built once"


def source_of(folder: Path, *words: str) -> TransformersSource:
    given = ("MODEL.NAME", "hf", "MODEL.PATH", str(folder), "LLM.DTYPE", "fp32", "LLM.BITS", "32", *words)
    source = make_source(read_configuration([], given, EvalConfig)[0], torch.device("cpu"))
    assert isinstance(source, TransformersSource)
    return source


def test_a_checkpoints_template_is_compared_with_the_published_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    model, processor = tiny("gemma3")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    said = []
    for template in (processor.chat_template, GEMMA_3):
        (tmp_path / "chat_template.jinja").write_text(template)
        source_of(tmp_path).engine()
        said.append(capsys.readouterr().err)
    assert "warning: the checkpoint's chat template differs from the one that its authors published" in said[0]
    assert "convert_gemma3_weights.py" in said[0] and "'<s>user: <boi>{question}" in said[0]
    assert "differs" not in said[1] and "over its questions of up to 16 tokens" in said[1]


GEMMA_3 = (
    "<bos>{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\\n' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ item['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""Makes what google/gemma-3-4b-it makes of one question."""

NEED_VIDEO = {
    "qwen2-vl": "Qwen2-VL",
    "qwen2.5-vl": "Qwen2.5-VL",
    "qwen3-vl": "Qwen3-VL",
    "llava-onevision": "LLaVA-OneVision",
    "internvl": "InternVL",
    "smolvlm": "SmolVLM",
}


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize("family", NEED_VIDEO)
def test_six_families_want_torchvision_and_say_how_to_have_it(family: str, tmp_path: Path) -> None:
    model, processor = tiny(family)
    model.config.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": type(processor).__name__}))
    images = {"image_processor_type": type(processor.image_processor).__name__.removesuffix("Pil")}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    with pytest.raises(CheckpointError) as raised:
        source_of(tmp_path).parts()
    assert f"the processor of {NEED_VIDEO[family]} needs the package torchvision, which is not ins" in str(raised.value)
    assert "bash install --extras torchvision" in str(raised.value)
