"""CoLLaVO in one import: images of any kind, streaming, transformers' generate, saving, and the auto classes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList

import collavo.auto  # noqa: F401 - registers the classes
from assets.tiny.random_checkpoint import make_tiny
from collavo import CoLLaVO
from collavo.assistant import _compute_type
from collavo.engine import Generation, Query
from collavo.errors import CheckpointError, ImageError
from collavo.image_input import decode_image_input
from collavo.search import start_search
from datasets.types import ImageFile
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from pipeline.images import decode_image
from tests.limits import LIMIT
from tests.unit.collavo.test_engine import QUESTIONS, HalfSegmenter

SIZES = ((1, 1), (3, 200), (640, 427), (112, 112))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("assistant") / "tiny"
    make_tiny(directory, seed=0)
    return directory


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> CoLLaVO:
    return CoLLaVO.from_pretrained(checkpoint, bits=32, device="cpu", segmenter=HalfSegmenter())


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(noise(90, 150)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.slow
def test_a_path_an_image_and_an_array_give_the_same_reply(model: CoLLaVO, photo: Path) -> None:
    replies = {model.ask(image, QUESTIONS[0]) for image in (photo, str(photo), Image.open(photo), noise(90, 150))}
    assert len(replies) == 1 and replies != {model.ask(noise(90, 150, seed=1), QUESTIONS[0])}


def test_it_answers_as_eval_does(model: CoLLaVO, photo: Path) -> None:
    pixels = decode_image(ImageFile(photo, photo.name), 112).pixels
    image = decode_image_input(photo, 112)
    assert (image.pixels == pixels).all() and image.name == "photo.png"
    expected = model.engine.answer([Query(image, QUESTIONS[1])], Generation(num_beams=3, max_new_tokens=6))
    assert model.ask(photo, QUESTIONS[1], num_beams=3, max_new_tokens=6) == expected[0].text


def test_questions_are_answered_in_batches(model: CoLLaVO) -> None:
    images = [noise(*size) for size in SIZES]
    together = model.ask(images, list(QUESTIONS), max_new_tokens=8)
    assert together == [model.ask(i, q, max_new_tokens=8) for i, q in zip(images, QUESTIONS, strict=True)]
    assert model.ask(images[0], list(QUESTIONS[:2]), max_new_tokens=8)[1] == model.ask(
        images[0], QUESTIONS[1], max_new_tokens=8
    )
    assert model.ask(None, "Hello", max_new_tokens=4) == model.ask([None], ["Hello"], max_new_tokens=4)[0]
    with pytest.raises(ValueError, match="4 images for 1 questions"):
        model.ask(images, ["one?"])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "top_p": 0.9, "seed": 5}, {"num_beams": 3}])
@pytest.mark.parametrize("question", QUESTIONS)
def test_pieces_add_up_to_the_reply(model: CoLLaVO, question: str, options: dict[str, Any]) -> None:
    image = noise(50, 70)
    pieces = list(model.stream(image, question, max_new_tokens=24, **options))
    assert "".join(pieces) == model.ask(image, question, max_new_tokens=24, **options)
    assert all(pieces) and (len(pieces) > 1) == ("num_beams" not in options)


def test_a_stream_that_nobody_reads_ends(model: CoLLaVO) -> None:
    stream = model.stream(noise(50, 70), QUESTIONS[0], max_new_tokens=500)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert model.ask(noise(50, 70), QUESTIONS[0], max_new_tokens=4)


def test_tokens_are_handed_over_with_one_beam_only() -> None:
    with pytest.raises(ValueError, match="one beam only"):
        start_search(Generation(num_beams=3, max_new_tokens=2, on_token=print), [0], [1], "cpu")  # type: ignore[arg-type]


def test_without_the_crayon_prompt_no_objects_are_told(model: CoLLaVO) -> None:
    image = noise(50, 70)
    shown, plain = (
        model.replies(image, "What?", crayon=crayon, max_new_tokens=4)[0].prompt for crayon in (True, False)
    )
    assert "person" in shown and "person" not in plain
    panoptic, crayon = model.panoptic_map(image)
    assert panoptic.id_map.shape == (8, 8) and [item.category for item in crayon.objects] == ["person", "sky"]


def test_maps_are_handed_over_as_they_are_made(checkpoint: Path) -> None:
    """What the report shows of images is what the model was shown."""
    fresh = CoLLaVO.from_pretrained(checkpoint, bits=32, device="cpu", segmenter=HalfSegmenter())
    seen: list[tuple[str, int, int]] = []
    fresh.engine.on_map = lambda name, panoptic, crayon: seen.append((name, panoptic.id_map.size, len(crayon.objects)))
    fresh.ask(noise(50, 70), list(QUESTIONS[:2]), max_new_tokens=2)
    assert seen == [("ndarray", 64, 2)]
    later: list[str] = []
    fresh.engine.on_map = lambda name, panoptic, crayon: later.append(name)  # the next benchmark of a run
    fresh.ask(noise(50, 70), QUESTIONS[0], max_new_tokens=2)
    fresh.ask(noise(50, 70), QUESTIONS[1], max_new_tokens=2)
    assert later == ["ndarray"] and len(seen) == 1, "also a map that was made and kept before, and once"


def test_transformers_generate_with_its_own_settings(model: CoLLaVO) -> None:
    images, questions = [noise(50, 70), None, noise(30, 30)], list(QUESTIONS[:3])
    assert model.generate(images, questions, max_new_tokens=6) == model.ask(images, questions, max_new_tokens=6)
    several = model.generate(images[0], questions[0], max_new_tokens=4, num_beams=3, num_return_sequences=3)
    assert len(several) == 3
    out = model.generate(images[0], questions[0], max_new_tokens=6, num_beams=3, length_penalty=0.0)
    assert isinstance(out[0], str)


def test_transformers_output_and_lengths_are_those_asked_for(model: CoLLaVO) -> None:
    image, question = noise(50, 70), QUESTIONS[0]
    whole = model.generate(image, question, max_new_tokens=3, return_dict_in_generate=True, output_scores=True)
    start = model.inputs(image, question)["input_ids"]
    assert (whole.sequences[:, : start.shape[1]] == start).all()
    new = whole.sequences[0, start.shape[1] :].tolist()
    assert len(whole.scores) == len(new) and [int(step[0].argmax()) for step in whole.scores] == new
    config = GenerationConfig(max_new_tokens=2)
    assert model.generate(image, question, generation_config=config) == model.ask(image, [question], max_new_tokens=2)
    assert config.eos_token_id is None, "a caller's settings stay as they are"
    room = model.model.generate(**model.inputs(image, question), max_new_tokens=2).shape[1] + 8 * 8 - 1
    assert model.generate(image, question, max_length=room) == model.ask(image, [question], max_new_tokens=2)
    both = model.generate(image, question, generation_config=GenerationConfig(), max_length=room)
    assert both == model.ask(image, [question], max_new_tokens=2)
    heard: list[list[int]] = []

    class Listener:
        def put(self, value: Tensor) -> None:
            heard.append(value.flatten().tolist())

        def end(self) -> None:
            heard.append([])

    model.generate(image, question, max_new_tokens=3, streamer=Listener())
    assert [token for piece in heard[1:] for token in piece] == new, "after the prompt"
    ends = StoppingCriteriaList([lambda ids, scores, **_: torch.ones(len(ids), dtype=torch.bool)])
    assert model.generate(image, question, stopping_criteria=ends) == model.ask(image, [question], max_new_tokens=1)


@pytest.mark.slow
def test_what_is_saved_loads_and_answers_alike(model: CoLLaVO, checkpoint: Path, tmp_path: Path) -> None:
    plain = CoLLaVO.from_pretrained(checkpoint, bits=32, segmenter="none", device="cpu")
    plain.save_pretrained(tmp_path / "saved")
    again = CoLLaVO.from_pretrained(tmp_path / "saved", bits=32, device="cpu")  # the checkpoint names its segmenter
    assert again.settings.segmenter.NAME == "none"
    assert again.ask(noise(50, 70), list(QUESTIONS)) == plain.ask(noise(50, 70), list(QUESTIONS))


def test_quantised_and_unmerged_weights_are_not_saved(checkpoint: Path, tmp_path: Path) -> None:
    quantised = CoLLaVO.from_pretrained(checkpoint, bits=4, segmenter="none", device="cpu")
    assert quantised.ask(noise(9, 9), "What?", max_new_tokens=3)
    with pytest.raises(ValueError, match="load it with bits=16 or bits=32"):
        quantised.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_auto_classes_load_our_layout(checkpoint: Path, model: CoLLaVO) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    loaded = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert (
        type(loaded).__name__ == "CoLLaVOForConditionalGeneration" and AutoConfig.from_pretrained(checkpoint).grid == 8
    )
    assert processor.encode(["Hello"]) == model.processor.encode(["Hello"])
    ours = dict(model.model.named_parameters())
    assert all((ours[name] == value).all() for name, value in loaded.named_parameters())


def test_the_segmenter_is_the_checkpoints_or_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="names no segmenter; give one: segmenter='mask2former'"):
        CoLLaVO.from_pretrained(checkpoint)
    (tmp_path / "weights.xyz").write_text("x")
    for segmenter, message in (
        ("xdecodr", "'xdecodr' is no path and no backend; did you mean xdecoder"),
        ("xdecoder", "SEGMENTER.NAME xdecoder needs one"),
        (tmp_path / "weights.xyz", "weights.xyz has no suffix of a segmenter's weights"),
        (3, "not int"),
    ):
        with pytest.raises(SegmenterError, match=message):
            CoLLaVO.from_pretrained(checkpoint, segmenter=segmenter, bits=32)  # type: ignore[arg-type]
    config = SegmenterConfig(NAME="none")
    assert CoLLaVO.from_pretrained(checkpoint, segmenter=config, bits=32).segmenter.fingerprint == "none"
    with pytest.raises(CheckpointError, match="path: .*does not exist"):
        CoLLaVO.from_pretrained(tmp_path / "nowhere")


def test_compute_types() -> None:
    import torch

    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [_compute_type(bits, cpu) for bits in (4, 8, 16, 32)] == ["fp32", "fp32", "bf16", "fp32"]
    assert [_compute_type(bits, cuda) for bits in (4, 8, 16, 32)] == ["fp16", "fp16", "fp16", "fp32"]


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F")


@pytest.mark.parametrize("mode", MODES)
def test_images_are_prepared_as_in_evaluation(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(noise(31, 17)).convert("RGB" if mode in ("I;16", "F") else mode)
    if mode in ("I;16", "F"):
        deep = np.linspace(0, 60000 if mode == "I;16" else 1.0, 31 * 17).reshape(31, 17)
        image = Image.fromarray(deep.astype(np.uint16 if mode == "I;16" else np.float32))
    file = tmp_path / "image.tiff"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    assert (decode_image_input(file, 56).pixels == decode_image(ImageFile(file, "i"), 56).pixels).all()
    with Image.open(io.BytesIO(file.read_bytes())) as opened:
        assert (decode_image_input(opened, 56).pixels == decode_image(ImageFile(file, "i"), 56).pixels).all()


def test_a_damaged_image_is_named_however_it_is_given(tmp_path: Path) -> None:
    file, stream = tmp_path / "cut.png", io.BytesIO()
    Image.fromarray(noise(64, 64)).save(stream, "PNG")
    file.write_bytes(stream.getvalue()[:2000])
    with pytest.raises(ImageError, match=r"^cut\.png: damaged \("):
        decode_image_input(file, 8)
    with Image.open(file) as opened, pytest.raises(ImageError, match=r"^PngImageFile: damaged \("):
        decode_image_input(opened, 8)
    file.write_bytes(b"text")
    with pytest.raises(ImageError, match=r"^cut\.png: 4 bytes that are no image of a known format$"):
        decode_image_input(file, 8)


def test_arrays_of_all_kinds() -> None:
    pixels = noise(5, 7)
    grey = pixels[..., 0]
    assert (decode_image_input(pixels, None).pixels == pixels).all()
    assert (decode_image_input(pixels / 255, None).pixels == pixels).all()
    for array in (grey, grey[..., None]):
        assert (decode_image_input(array, None).pixels == np.repeat(grey[..., None], 3, axis=2)).all()
    assert (decode_image_input(np.dstack([pixels, grey]), None).pixels == pixels).all()
    assert (decode_image_input(grey > 100, None).pixels[..., 1] == np.where(grey > 100, 255, 0)).all()
    assert (decode_image_input(pixels.transpose(1, 0, 2)[::-1], None).pixels == pixels.transpose(1, 0, 2)[::-1]).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (".", "a folder, not an image"),
        (b"bytes", "not bytes"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\) is no image"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\) is no image"),
        (np.full((3, 4), 2.0), "numbers from 0 to 1"),
        (np.full((3, 4), np.nan), "numbers from 0 to 1"),
        (np.zeros((3, 4), np.int64), "not int64"),
    ],
)
def test_what_is_no_image_is_named(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image_input(image, 8)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(noise(90, 150)).save(tmp_path / "photo.png")
    data = (tmp_path / "photo.png").read_bytes()
    for content in (b"", b"no image", data[: len(data) // 2]):
        (tmp_path / "photo.png").write_bytes(content)
        with pytest.raises(ImageError, match=r"photo\.png: "):
            decode_image_input(tmp_path / "photo.png", 8)


@pytest.mark.slow
def test_importing_the_package_loads_no_torch() -> None:
    code = "import collavo, sys; assert 'torch' not in sys.modules; collavo.CoLLaVO; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT, cwd=Path(__file__).parents[3])
