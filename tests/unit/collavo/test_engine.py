"""The engine: equal to plain `generate`, independent of company, nothing computed twice."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assets.tiny.random_checkpoint import make_tiny
from collavo.checkpoint.examine import examine_checkpoint
from collavo.engine import CLOSE_MARGIN, MOST_PADDING, Engine, Generation, Query, _Prompt
from collavo.errors import CheckpointError
from collavo.images import PreparedImage
from collavo.load_collavo import load_engine, resolve_attention, size_in_memory
from collavo.options import CrayonConfig, LLMConfig
from collavo.template import CHAT
from configs.load import REPOSITORY
from modeling.image import DecodedImage
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import COCO_BY_INDEX
from modeling.segmenters.errors import SegmenterError
from modeling.shared_prefix import SharedPrefixCache
from tests.processor import RIGHT_INT8

QUESTIONS = (
    "Is there a dog in the image?",
    "Is there a wine glass in the image?\nAnswer briefly.",
    "How many?",
    "图中有几只狗？",
)


class HalfSegmenter:
    """Finds a person in the left half of every image and a sky in the right one; counts its calls."""

    fingerprint = "half"
    categories = COCO_BY_INDEX
    reads_maps = False

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.sizes: list[tuple[int, int]] = []

    def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
        self.seen += [image.name for image in images]
        self.sizes.append(size)
        id_map = np.ones(size, np.int32)
        id_map[:, size[1] // 2 :] = 2
        segments = (Segment(id=1, category_id=0, score=1.0), Segment(id=2, category_id=119, score=1.0))
        return [PanopticMap(id_map, segments) for _ in images]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engine") / "tiny"
    make_tiny(directory, seed=0)
    return directory


@pytest.fixture
def engine(checkpoint: Path) -> Engine:
    return load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(checkpoint), HalfSegmenter())


def images(count: int) -> list[DecodedImage]:
    rng = np.random.default_rng(0)
    return [DecodedImage(np.full((112, 112, 3), rng.integers(0, 256, 3), np.uint8), f"{i}.png") for i in range(count)]


def queries(count: int = 4) -> list[Query]:
    asked = [Query(image, question) for image in images(count) for question in QUESTIONS]
    return [*asked, Query(None, "What is two and two?"), Query(None, "Hello")]


@pytest.mark.parametrize(
    "generation", [Generation(num_beams=1, max_new_tokens=6), Generation(num_beams=3, max_new_tokens=5)]
)
def test_replies_equal_plain_generate(engine: Engine, generation: Generation) -> None:
    """The library's own search over whole prompts, one question at a time, is the oracle."""
    model, processor = engine.model, engine.processor
    replies = engine.answer(queries(), generation)
    for query, reply in zip(queries(), replies, strict=True):
        ids, mask = processor.pad_left(processor.encode([reply.prompt]))
        inputs = {}
        if query.image is not None:
            half = torch.ones(8, 8, dtype=torch.long)
            half[:, 4:] = 120
            inputs = {
                "pixel_values": processor.pixel_values(query.image.pixels[None]),
                "semantic": half.view(1, -1),
                "numbering": torch.ones(1, 64, dtype=torch.long),
            }
        out = model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=generation.num_beams,
            max_new_tokens=generation.max_new_tokens,
            eos_token_id=engine.end_ids,
            **inputs,
        )
        assert reply == engine.reply(reply.prompt, out[0, ids.shape[1] :].tolist())
    assert len({reply.text for reply in replies}) > 4, "replies that hardly differ prove little"


@pytest.mark.parametrize(
    ("model", "dtype", "beams"),
    [
        *(("random", "fp32", beams) for beams in (1, 3)),
        *(pytest.param("random", d, beams, marks=pytest.mark.slow) for d in ("bf16", "fp16") for beams in (1, 3)),
        pytest.param("trained", "fp32", 3, marks=pytest.mark.slow),
    ],
)
def test_numbers_do_not_depend_on_company_or_order(checkpoint: Path, model: str, dtype: str, beams: int) -> None:
    """Replies, and the smallest gap of each search to the last bit, for any batch size and order."""
    settings: dict[str, Any] = {"BITS": 32 if dtype == "fp32" else 16, "DTYPE": dtype}
    path = checkpoint if model == "random" else REPOSITORY / "assets" / "tiny" / "collavo"
    engine = load_engine(LLMConfig(**settings), str(path), HalfSegmenter())
    generation = Generation(num_beams=beams, max_new_tokens=4)
    asked = queries(6)
    asked += [Query(asked[0].image, f"Is there a {'very ' * (n % 5)}large dog?") for n in range(14)]

    def ask(order: list[int], size: int) -> dict[int, tuple[str, float]]:
        found = {}
        for start in range(0, len(order), size):
            part = order[start : start + size]
            for index, reply in zip(part, engine.answer([asked[i] for i in part], generation), strict=True):
                found[index] = (reply.text, reply.margin)
        return found

    alone = ask(list(range(len(asked))), 1)
    assert all(0 <= margin < float("inf") for _, margin in alone.values())
    rng = np.random.default_rng(1)
    for size in (4, 18, 64):
        assert ask(rng.permutation(len(asked)).tolist(), size) == alone


@pytest.mark.parametrize("beams", [1, 3])
def test_the_number_of_threads_is_irrelevant(engine: Engine, beams: int) -> None:
    """The engine computes on one thread whatever the process was given, and gives the threads back."""
    generation, before = Generation(num_beams=beams, max_new_tokens=4), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            engine.forget()
            found.append([(reply.text, reply.margin) for reply in engine.answer(queries(2), generation)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@given(st.integers(1, 3000), st.integers(1, 400))
def test_padding_stays_below_a_tenth_of_what_a_row_reads(prefix: int, suffix: int) -> None:
    prompt = _Prompt(0, "", None, (), [0] * suffix, prefix)
    padding = prompt.slots - suffix
    assert 0 <= padding <= 0.1 * (prefix + suffix)
    assert padding < MOST_PADDING


def test_close_replies_are_marked(engine: Engine) -> None:
    below = CLOSE_MARGIN[torch.float32] / 2
    assert engine.reply("", [5], below).close
    assert not engine.reply("", [5], 1.0).close


def test_prompts_hold_the_objects(engine: Engine) -> None:
    reply = engine.answer(queries()[:1], Generation(num_beams=1, max_new_tokens=1))[0]
    objects = "(#1 person) [0.00, 0.00, 0.50, 1.00], (#1 sky) [0.50, 0.00, 1.00, 1.00]"
    assert reply.prompt == CHAT.prompt(objects, QUESTIONS[0])
    text_only = engine.answer([Query(None, "Hello")], Generation(num_beams=1, max_new_tokens=1))[0]
    assert "<image>" not in text_only.prompt


def test_an_image_is_segmented_and_encoded_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = engine.model.encode_images

    def noted(pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(engine.model, "encode_images", noted)
    for _ in range(3):
        engine.answer(
            [Query(images(1)[0], question) for question in QUESTIONS], Generation(num_beams=3, max_new_tokens=2)
        )
    assert engine.segmenter.seen == ["0.png"]  # type: ignore[attr-defined]
    assert encoded == [1]


def test_replies_about_prepared_images_are_the_same(engine: Engine) -> None:
    """To the last bit of every search, with features and without, and none of it is computed in `answer` again."""
    generation, drawn = Generation(num_beams=3, max_new_tokens=4), images(5)
    asked = [(number, question) for question in QUESTIONS for number in range(5)]
    plain = engine.answer([Query(drawn[number], question) for number, question in asked], generation)
    for features in (True, False):
        engine.forget()
        prepared = engine.prepare([drawn[n] for n in (3, 0, 4, 1, 2)], features=features)
        by_name = {image.name: image for image in prepared if isinstance(image, PreparedImage)}
        engine.segmenter.seen.clear()  # type: ignore[attr-defined]
        replies = engine.answer([Query(by_name[f"{number}.png"], q) for number, q in asked], generation)
        assert replies == plain and [r.margin for r in replies] == [r.margin for r in plain]
        assert engine.segmenter.seen == []  # type: ignore[attr-defined]
        assert all((image.features is not None) == features for image in by_name.values())


@pytest.mark.parametrize("block", [1, 3])
def test_features_do_not_depend_on_their_batch(engine: Engine, block: int) -> None:
    drawn, preparer = images(7), engine._images
    preparer._block = block

    def features(part: list[int]) -> dict[int, torch.Tensor]:
        prepared = engine.prepare([drawn[index] for index in part])
        return {i: p.features for i, p in zip(part, prepared, strict=True) if p.features is not None}  # type: ignore[union-attr]

    alone = {index: features([index])[index] for index in range(7)}
    rng = np.random.default_rng(0)
    for _ in range(4):
        part = rng.permutation(7).tolist()[: rng.integers(1, 8)]
        assert all(torch.equal(found, alone[index]) for index, found in features(part).items())
    with torch.inference_mode():
        assert all(torch.equal(preparer.features(preparer.one(drawn[i])), alone[i]) for i in range(7))


def test_images_are_prepared_beside_answers(engine: Engine) -> None:
    """Two threads at a time, as the loop has them: the replies are those of one."""
    generation, drawn = Generation(num_beams=1, max_new_tokens=3), images(24)
    plain = engine.answer([Query(image, QUESTIONS[0]) for image in drawn], generation)
    engine.forget()
    with engine.fixed_threads(), ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(engine.prepare, drawn[start : start + 3]) for start in range(0, 24, 3)]
        replies = [
            reply
            for future in ahead
            for reply in engine.answer([Query(image, QUESTIONS[0]) for image in future.result()], generation)  # type: ignore[arg-type]
        ]
    assert replies == plain and [r.margin for r in replies] == [r.margin for r in plain]


def test_an_image_without_a_map_is_its_own_error(checkpoint: Path) -> None:
    class Choosy(HalfSegmenter):
        def segment(self, images: Sequence[DecodedImage], size: tuple[int, int]) -> list[PanopticMap]:
            if any(image.name == "1.png" for image in images):
                raise SegmenterError("image 1.png: it has no map")
            return super().segment(images, size)

    engine = load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(checkpoint), Choosy())
    prepared = engine.prepare(images(3))
    assert [isinstance(image, PreparedImage) for image in prepared] == [True, False, True]
    assert str(prepared[1]) == "image 1.png: it has no map"
    with pytest.raises(SegmenterError, match=r"1\.png"):
        engine.answer([Query(images(2)[1], "What?")], Generation(num_beams=1, max_new_tokens=1))


def test_what_is_kept_of_images_does_not_grow(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collavo.images.CRAYONS_KEPT", 5)
    images = [DecodedImage(np.full((112, 112, 3), n, np.uint8), f"{n}.png") for n in range(12)]
    assert len(engine.prepare(images, features=False)) == 12
    assert len(engine._images._crayons) == 5
    engine.segmenter.seen.clear()  # type: ignore[attr-defined]
    engine.prepare([*images[-5:], images[0]], features=False)
    assert engine.segmenter.seen == ["0.png"]  # type: ignore[attr-defined]


def test_an_image_is_hashed_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    real = hashlib.sha256

    def counted(*given: Any) -> Any:
        hashed.append(1)
        return real(*given)

    monkeypatch.setattr("modeling.image.hashlib.sha256", counted)
    image, generation = images(1)[0], Generation(num_beams=1, max_new_tokens=1)
    for _ in range(2):
        engine.answer([Query(image, f"Is there a {n}?") for n in range(20)], generation)
    assert len(hashed) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_questions_or_beams(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred questions on an image: one prefix, and one block's suffixes at a time, however many beams."""
    sizes: list[int] = []
    start = SharedPrefixCache.__init__

    def watched(self: SharedPrefixCache, *args: object, **kwargs: object) -> None:
        start(self, *args, **kwargs)  # type: ignore[arg-type]
        sizes.append(self.num_bytes)

    monkeypatch.setattr(SharedPrefixCache, "__init__", watched)
    image = images(1)[0]
    engine.answer([Query(image, f"Is there a {n}?") for n in range(500)], Generation(num_beams=3, max_new_tokens=1))
    prefix = next(iter(engine._prefixes.values()))
    assert len(engine._prefixes) == 1
    assert max(sizes) <= 1.5 * sizes[0]
    per_token = prefix.num_bytes // prefix.length
    slots = engine._prompt(0, Query(image, "Is there a 0?")).slots
    assert sizes[0] <= engine._block_rows.most * (slots + 1 + 8) * per_token, (
        "rows of a block, times places, and nothing of the prefix"
    )


def test_a_cached_prefix_is_never_used_for_another_image(engine: Engine) -> None:
    """Same name, same objects, other pixels: the reply must be that of the other pixels."""
    first, second = images(2)
    renamed = DecodedImage(second.pixels, first.name)
    generation = Generation(num_beams=1, max_new_tokens=6)
    alone = engine.answer([Query(second, QUESTIONS[0])], generation)[0].text
    answers = [engine.answer([Query(image, QUESTIONS[0])], generation)[0].text for image in (first, renamed)]
    assert answers[1] == alone != answers[0]


def test_unfinished_replies_are_told_apart(engine: Engine) -> None:
    cut = engine.reply("", [5, 6, 7])
    assert (cut.finished, cut.num_tokens) == (False, 3)
    ended = engine.reply("", [5, engine.end_ids[-1], 7, 7])
    assert (ended.finished, ended.num_tokens) == (True, 2)
    assert ended.text == engine.processor.decode([5]).strip()


def test_random_weights_need_no_weights_and_identity_says_so(checkpoint: Path, engine: Engine) -> None:
    fresh = load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(checkpoint), HalfSegmenter(), weight=False)
    assert fresh.fingerprint != engine.fingerprint
    ours, theirs = fresh.model.output.weight, engine.model.output.weight
    assert not torch.equal(ours, theirs)


def test_memory_is_counted_from_the_checkpoint(checkpoint: Path, engine: Engine) -> None:
    actual = sum(p.numel() * p.element_size() for p in engine.model.parameters())
    assert size_in_memory(LLMConfig(BITS=32, DTYPE="fp32"), examine_checkpoint(checkpoint)) == actual
    assert size_in_memory(LLMConfig(BITS=16, DTYPE="bf16"), examine_checkpoint(checkpoint)) == actual // 2


@pytest.mark.parametrize(("bits", "dtype"), [(4, "fp32"), pytest.param(8, "fp32", marks=RIGHT_INT8), (16, "bf16")])
def test_other_types_answer(checkpoint: Path, bits: Any, dtype: Any) -> None:
    engine = load_engine(LLMConfig(BITS=bits, DTYPE=dtype), str(checkpoint), HalfSegmenter())
    replies = engine.answer(queries(2), Generation(num_beams=3, max_new_tokens=3))
    assert len(replies) == 10


def test_8_bits_are_refused_where_their_products_come_out_wrong(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As oneDNN's do without VNNI: one factor is made positive, and pairs of products are cut off at 16 bits."""

    def saturating(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        pairs = ((one.int() + 128) * other.int()).unflatten(-1, (-1, 2)).sum(-1)
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(-1) - 128 * other.int().sum(-1))[:, None].expand(-1, len(other))

    monkeypatch.setattr(torch.ops.bitsandbytes, "int8_linear_matmul", saturating)
    with pytest.raises(CheckpointError, match="LLM.BITS 8: 8-bit products come out wrong in this process"):
        load_engine(LLMConfig(BITS=8, DTYPE="fp32"), str(checkpoint), HalfSegmenter())
    assert load_engine(LLMConfig(BITS=4, DTYPE="fp32"), str(checkpoint), HalfSegmenter())


def test_an_image_tag_in_a_question_is_left_out(engine: Engine) -> None:
    image, generation = images(1)[0], Generation(num_beams=1, max_new_tokens=4)
    asked = [Query(image, "<image>Is it a dog?"), Query(None, "What is <image> it?"), Query(image, "Is it a dog?")]
    replies = engine.answer(asked, generation)
    assert replies[0] == replies[2]
    assert "What is  it?" in replies[1].prompt


def test_a_processor_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = (tmp_path / "preprocessor_config.json").read_text()
    (tmp_path / "preprocessor_config.json").write_text(settings.replace('"image_size": 112', '"image_size": 126'))
    with pytest.raises(CheckpointError, match="makes images of 126 px in patches of 14, the model expects 112"):
        load_engine(LLMConfig(BITS=32, DTYPE="fp32"), str(tmp_path), HalfSegmenter())


def test_flash_attention_falls_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve_attention("flash_attention_2", torch.float16, torch.device("cpu")) == "sdpa"
    assert "flash_attention_2" in caplog.text
    assert resolve_attention("auto", torch.float32, torch.device("cpu")) == "sdpa"
    assert resolve_attention("eager", torch.float32, torch.device("cpu")) == "eager"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_auto_is_no_flash_attention_where_rows_have_parts_that_do_not_see_each_other(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(name=name))  # flash_attn, too
    gpu = torch.device("cuda")
    assert resolve_attention("auto", dtype, gpu) == "flash_attention_2"
    assert resolve_attention("auto", dtype, gpu, masked=True) == "sdpa"


def test_the_object_list_can_stay_out_and_maps_can_be_finer(checkpoint: Path) -> None:
    llm, segmenter, one = LLMConfig(BITS=32, DTYPE="fp32"), HalfSegmenter(), images(1)[0]
    told = load_engine(llm, str(checkpoint), segmenter)
    untold = load_engine(llm, str(checkpoint), segmenter, crayon=CrayonConfig(OBJECT_LIST=False, MAP_SCALE=3))
    generation, query = Generation(num_beams=1, max_new_tokens=2), Query(one, "Is there a dog?")
    listed = "The image includes (#1 person) [0.00, 0.00, 0.50, 1.00], (#1 sky) [0.50, 0.00, 1.00, 1.00]. "
    assert listed in told.answer([query], generation)[0].prompt
    assert untold.answer([query], generation)[0].prompt == told.answer([query], generation)[0].prompt.replace(
        listed, ""
    )
    assert told.fingerprint != untold.fingerprint
    assert segmenter.sizes == [(8, 8), (24, 24)]


FEW = Generation(num_beams=2, max_new_tokens=3)


def test_a_prefix_that_is_tokenised_otherwise_within_the_prompt_is_cut_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tokenizers read a text's end in another way when more follows; the prompt's own ids count then."""
    asked, real = queries(2), engine.processor.encode
    expected = engine.answer(asked, FEW)
    engine.forget()

    def alone_otherwise(texts: Sequence[str]) -> list[list[int]]:
        whole = [any(query.question in text for query in asked) for text in texts]
        rows = zip(real(texts), whole, strict=True)
        return [row if known else [*row[:-2], row[-2] - 1, row[-1]] for row, known in rows]

    monkeypatch.setattr(engine.processor, "encode", alone_otherwise)
    for query, reply in zip(asked, expected, strict=True):
        prompt = engine._prompt(0, query)
        assert [*prompt.stem, *prompt.suffix] == real([reply.prompt])[0]
    assert engine.answer(asked, FEW) == expected


def test_questions_of_an_image_whose_prefixes_differ_keep_their_own(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, real = images(1)[0], engine.processor.encode
    asked = [Query(image, question) for question in QUESTIONS]
    cut = len(engine._prompt(0, asked[0]).stem) - 1

    def first_merges(texts: Sequence[str]) -> list[list[int]]:
        """The first question's prompt has another id where the prefix ends, as if a token reached over its end."""
        rows = zip(real(texts), texts, strict=True)
        return [[*row[:cut], row[cut] - 1, *row[cut + 1 :]] if QUESTIONS[0] in text else row for row, text in rows]

    monkeypatch.setattr(engine.processor, "encode", first_merges)
    stems = {engine._prompt(0, query).stem for query in asked}
    assert len(stems) == 2
    alone = []
    for query in asked:
        engine.forget()
        alone += engine.answer([query], FEW)
    engine.forget()
    together = engine.answer(asked, FEW)
    assert together == alone
    assert [reply.margin for reply in together] == [reply.margin for reply in alone]  # texts may hide another prefix


def test_prefixes_and_crayon_prompts_are_kept_within_bounds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Query(image, question) for image in images(5) for question in QUESTIONS[:2]]
    expected = engine.answer(asked, FEW)
    engine.forget()
    monkeypatch.setattr("collavo.images.CRAYONS_KEPT", 2)
    room = 2 * engine._prefix_bytes(engine._prompt(0, asked[0]).prefix_length)
    monkeypatch.setattr(engine, "_memory_for_prefixes", lambda: room)
    windows = [{prompt.held for prompt in window} for window in engine._windows(asked)]
    assert [len(held) for held in windows] == [2, 2, 1]
    assert engine.answer(asked, FEW) == expected
    assert len(engine._images._crayons) == 2
