"""Every family's tiny model through the engine, against a plain loop written here: processor, generate, decode."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from collavo.engine import Generation, Query, Reply
from configs.load import read_yaml
from datasets.evaluation.grounding import GroundingScorer, resized
from modeling.image import DecodedImage
from pipeline.base import NoReply
from pipeline.models.hf_engine import TransformersEngine
from pipeline.models.images import ModelImage, ModelImages
from pipeline.models.profile import FOLDER, load_profile
from tests.tiny_models import BOS, END, EOS, FAMILIES, PAD, tiny

TOKENS = 6
SIZES = ((40, 60), (60, 40), (30, 30))
QUESTIONS = ("Is there a dog?", "what")
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
PROMPTS: dict[str, Callable[[str], str]] = {
    "llava-1.5": lambda q: f"{VICUNA} USER: <image>\n{q} ASSISTANT:",
    "blip-2": lambda q: f"Question: {q} Short answer:",
    "instructblip": lambda q: f"Question: {q} Short answer:",
    "paligemma": lambda q: f"<image>answer en {q}",
}
"""Prompts of families without a chat template of their own, as their authors have them."""
TEXT_ALONE = [family for family in FAMILIES if family not in ("blip-2", "instructblip", "paligemma")]
pytestmark = pytest.mark.slow  # models of all families


def image(height: int, width: int, seed: int = 0) -> DecodedImage:
    rng = np.random.default_rng(seed + height * 1000 + width)
    return DecodedImage(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), f"{height}x{width}")


@lru_cache(maxsize=1)
def engine_of(family: str) -> TransformersEngine:
    torch.set_num_threads(1)
    return TransformersEngine(*tiny(family), load_profile(family).profile)


def queries(family: str) -> list[Query]:
    asked = [Query(image(*size), question) for size in SIZES for question in QUESTIONS]
    return [*asked, *([Query(None, "hello")] if family in TEXT_ALONE else [])]


def plain_inputs(engine: TransformersEngine, family: str, query: Query) -> dict[str, Any]:
    """A family's inputs, as its model card has them."""
    image = None if query.image is None else Image.fromarray(query.image.pixels)
    if family == "llava-1.5" and image is not None:  # expand2square of the authors' mm_utils.py
        side = max(image.size)
        square = Image.new("RGB", (side, side), (122, 116, 104))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = square
    if family in PROMPTS:
        text = PROMPTS[family](query.question)
        if image is None:
            return dict(engine.processor(text=text.replace("<image>\n", ""), return_tensors="pt"))
        return dict(engine.processor(images=image, text=text, return_tensors="pt"))
    content = [{"type": "image", "image": image}] if image is not None else []
    content.append({"type": "text", "text": query.question})
    options = {"images_kwargs": {"crop_to_patches": True, "max_patches": 12}} if family == "internvl" and image else {}
    found = engine.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"images_kwargs": {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}}
        if family == "qwen2.5-vl" and image
        else options,
    )
    return dict(found)


def plain_reply(engine: TransformersEngine, inputs: dict[str, Any], beams: int, penalty: float) -> str:
    inputs.pop("labels", None)
    more = {"length_penalty": penalty} if beams > 1 else {}
    with torch.inference_mode():
        out = engine.model.generate(
            **inputs,
            do_sample=False,
            num_beams=beams,
            max_new_tokens=TOKENS,
            eos_token_id=[EOS],
            pad_token_id=PAD,
            **more,
        )[0].tolist()
    start = inputs["input_ids"][0].tolist()
    new = out[len(start) :] if out[: len(start)] == start else out
    return str(engine.tokenizer.decode(new, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_ids_and_replies_are_those_of_a_plain_loop(family: str) -> None:
    engine = engine_of(family)
    generation = engine.profile.generation
    for beams, penalty in {(1, 1.0), (generation.num_beams or 1, generation.length_penalty or 1.0)}:
        search = Generation(num_beams=beams, max_new_tokens=TOKENS, length_penalty=penalty)
        asked = queries(family)
        replies = engine.answer(asked, search)
        for query, reply in zip(asked[1::2], replies[1::2], strict=True):
            inputs = plain_inputs(engine, family, query)
            prepared = engine.prepare(0, query)
            assert torch.equal(prepared.inputs["input_ids"], torch.as_tensor(inputs["input_ids"])), query
            assert isinstance(reply, Reply)
            assert reply.text == plain_reply(engine, inputs, beams, penalty)
            if family in PROMPTS and query.image is not None:
                assert reply.prompt == PROMPTS[family](query.question)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_does_not_depend_on_its_batch_or_order(family: str) -> None:
    engine, asked = engine_of(family), queries(family)
    search = Generation(num_beams=1, max_new_tokens=TOKENS)
    together = texts(engine.answer(asked, search))
    assert together == [texts(engine.answer([query], search))[0] for query in asked]
    assert together == texts(engine.answer(asked[::-1], search))[::-1]
    assert len(set(together)) > 1, "a model that says one thing to everything would show nothing"


def texts(replies: Sequence[Reply | NoReply]) -> list[str]:
    found = []
    for reply in replies:
        assert isinstance(reply, Reply), reply
        found.append(f"{reply.text}|{reply.num_tokens}|{reply.finished}")
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_profile_states_what_the_library_has(family: str) -> None:
    """Class and configuration of a family are told from all others; its checkpoint is recognised."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from pipeline.models.profile import profile_of_config

    engine, profile = engine_of(family), load_profile(family).profile
    config = engine.model.config.to_dict()
    assert profile_of_config(config) == family
    assert type(engine.model).__name__ in profile.classes
    assert set(profile.classes) <= set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values())
    assert read_yaml(FOLDER / f"{family}.yaml")["source"], "every profile says where it is from"
    assert "end tokens [2]" in engine.described()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_profile_sets_what_the_librarys_image_processor_has(family: str) -> None:
    """Pixel limits and tiles are known to it, and boxes are read on the frame that it makes."""
    engine, profile = engine_of(family), load_profile(family).profile
    processor, set_to = engine.processor.image_processor, profile.image_processor
    assert set(set_to) <= set(processor.valid_kwargs.__annotations__) | set(vars(processor))
    if family == "internvl":
        whole = processor(Image.new("RGB", (28 * 40, 28)), **set_to)["pixel_values"]
        assert len(whole) == 12 + 1, "twelve tiles and the whole image"
    boxes = profile.boxes
    assert profile.pad_to_square == (boxes.frame == "padded")
    if boxes.frame == "resized":
        assert boxes.factor == processor.patch_size * processor.merge_size
        assert set_to["size"] == {"shortest_edge": boxes.min_pixels, "longest_edge": boxes.max_pixels}
        scorer = GroundingScorer(**{name: value for name, value in asdict(boxes).items() if value is not None})
        for height, width in ((30, 50), (700, 333)):
            grid = processor([Image.new("RGB", (width, height))], **set_to)["image_grid_thw"][0]
            rows, columns = (int(side) * processor.patch_size for side in grid[1:])
            assert (columns, rows) == resized(width, height, scorer)


def test_a_square_image_loses_nothing_to_the_crop_of_llava() -> None:
    """``do_center_crop`` of the library's processor cuts nothing off an image that the profile padded."""
    engine = engine_of("llava-1.5")
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :2] = pixels[:, -2:] = 255
    tensor = engine.prepare(0, Query(DecodedImage(pixels, "x"), "what")).inputs["pixel_values"][0]
    middle = tensor[:, tensor.shape[1] // 2]  # both margins of the longer side are there
    assert bool((middle[:, 0] > middle[:, 14]).all() and (middle[:, -1] > middle[:, 14]).all())


@pytest.mark.parametrize("family", ["llava-1.5", "llava-next", "gemma3", "mistral3", "instructblip"])
def test_a_prompt_begins_once(family: str) -> None:
    ids = engine_of(family).prepare(0, queries(family)[0]).inputs["input_ids"][0].tolist()
    assert ids.count(BOS) == 1


def test_prompts_are_padded_on_the_left_and_a_q_formers_text_on_the_right() -> None:
    engine = engine_of("instructblip")
    group = [engine.prepare(i, Query(image(30, 30), question)) for i, question in enumerate(("a", "a longer one"))]
    batch = engine.collated(group)
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][0, -1] == 1
    assert batch["input_ids"][0, 0] == PAD
    assert batch["qformer_attention_mask"][0, 0] == 1 and batch["qformer_attention_mask"][0, -1] == 0


def test_the_images_place_stands_before_the_begin_token_of_instructblip() -> None:
    ids = engine_of("instructblip").prepare(0, Query(image(30, 30), "what")).inputs["input_ids"][0].tolist()
    assert ids.index(BOS) == 4, "as many as the Q-Former has queries"


def test_instructblip_and_blip_2_search_as_their_authors_do() -> None:
    for family in ("instructblip", "blip-2"):
        resolved = load_profile(family)
        assert (resolved.profile.generation.num_beams, resolved.profile.generation.max_new_tokens) == (5, 10)
        search = Generation(num_beams=5, max_new_tokens=10, **resolved.search())
        assert engine_of(family).search_settings(search)["length_penalty"] == -1.0


@pytest.fixture
def llava() -> TransformersEngine:
    return TransformersEngine(*tiny("llava-1.5"), load_profile("llava-1.5").profile)


GREEDY = Generation(num_beams=1, max_new_tokens=TOKENS)
ASKED = [Query(image(30, 30), question) for question in ("Is there a dog?", "what", "a cat?")]


def test_a_checkpoints_sampling_and_penalties_do_not_leak(llava: TransformersEngine) -> None:
    expected = texts(llava.answer(ASKED, GREEDY))
    model, processor = tiny("llava-1.5")
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=9.0, num_beams=2, top_k=3)
    again = TransformersEngine(model, processor, load_profile("llava-1.5").profile)
    assert texts(again.answer(ASKED, GREEDY)) == expected
    kept = load_profile("llava-1.5", {"generation": {"keep": ["repetition_penalty"]}}).profile
    model, processor = tiny("llava-1.5")
    model.generation_config.update(repetition_penalty=9.0)
    assert TransformersEngine(model, processor, kept).search_settings(GREEDY)["repetition_penalty"] == 9.0


def test_all_end_tokens_of_a_checkpoint_end_a_reply() -> None:
    model, processor = tiny("llava-1.5")
    model.generation_config.eos_token_id = [EOS, END]
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[END] = 0.0  # all scores are equal but that of END, which is made largest by its bias
    engine = TransformersEngine(model, processor, load_profile("llava-1.5").profile)
    model.lm_head = _Always(model.lm_head, END)
    assert engine.end_tokens == [EOS, END]
    (reply,) = engine.answer(ASKED[:1], GREEDY)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.num_tokens, reply.finished) == ("", 1, True)


class _Always(torch.nn.Module):
    """Scores under which one token is the most probable; ``value`` where they should be something else."""

    def __init__(self, head: torch.nn.Module, token: int, value: float = 9.0) -> None:
        super().__init__()
        self.head, self.token, self.value = head, token, value

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = self.head(hidden).clone()
        scores[..., self.token] = scores.max() + 1 if self.value == 9.0 else self.value
        return scores


def test_scores_that_are_not_finite_are_no_reply(llava: TransformersEngine) -> None:
    llava.model.lm_head = _Always(llava.model.lm_head, 7, float("nan"))
    for reply in llava.answer(ASKED, GREEDY):
        assert isinstance(reply, NoReply) and "not finite" in reply.reason


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_a_batch_that_does_not_fit_is_halved(llava: TransformersEngine, error: Exception) -> None:
    expected, generate = texts(llava.answer(ASKED, GREEDY)), llava.model.generate
    sizes: list[int] = []

    def scarce(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise error
        return generate(**inputs)

    llava.model.generate = scarce
    assert texts(llava.answer(ASKED, GREEDY)) == expected
    assert sizes == [1, 3, 1, 1, 2, 1, 1], "the image's prefix stands in front of what is answered together"


def test_what_does_not_fit_alone_is_an_error_of_that_question(llava: TransformersEngine) -> None:
    generate = llava.model.generate

    def scarce(**inputs: Any) -> Any:
        if inputs["input_ids"].shape[1] > 250 or len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return generate(**inputs)

    llava.model.generate = scarce
    found = llava.answer([*ASKED, Query(image(30, 30), "x" * 200)], GREEDY)
    assert [type(reply) for reply in found] == [Reply, Reply, Reply, NoReply]
    assert isinstance(found[3], NoReply) and found[3].outcome == "failed" and "out of memory" in found[3].reason


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("blip-2", "has 3035 tokens with 6 of its reply (input_ids), and the model takes 512"),
        ("instructblip", "has 3024 tokens (qformer_input_ids), and the model takes 512"),
    ],
)
def test_a_prompt_without_positions_is_an_error_of_its_question(family: str, said: str) -> None:
    found = engine_of(family).answer([ASKED[0], Query(image(30, 30), "x" * 3000)], GREEDY)
    assert isinstance(found[0], Reply)
    assert isinstance(found[1], NoReply) and found[1].outcome == "failed" and said in found[1].reason


def test_what_a_model_fails_on_is_an_error_of_that_question(llava: TransformersEngine) -> None:
    expected, generate = texts(llava.answer(ASKED, GREEDY)), llava.model.generate
    fatal = llava.prepare(0, ASKED[1]).inputs["input_ids"].shape[1]

    def fails(**inputs: Any) -> Any:
        if fatal in inputs["attention_mask"].sum(dim=1):
            raise RuntimeError("split_with_sizes expects split_sizes to sum exactly to 32\nmore")
        return generate(**inputs)

    llava.model.generate = fails
    found = llava.answer(ASKED, GREEDY)
    assert texts(found[::2]) == expected[::2]
    assert isinstance(found[1], NoReply) and found[1].outcome == "failed"
    assert found[1].reason == "the model fails: RuntimeError: split_with_sizes expects split_sizes to sum exactly to 32"


def test_other_errors_end_the_run_rather_than_becoming_replies(llava: TransformersEngine) -> None:
    def broken(**inputs: Any) -> Any:
        raise RuntimeError("device-side assert triggered")

    llava.model.generate = broken
    with pytest.raises(RuntimeError, match="assert"):
        llava.answer(ASKED, GREEDY)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in TEXT_ALONE])
def test_a_question_without_the_image_that_a_family_needs_is_an_error_of_it(family: str) -> None:
    found = engine_of(family).answer([Query(None, "hello"), ASKED[0]], GREEDY)
    assert isinstance(found[0], NoReply) and "the processor refuses" in found[0].reason
    assert isinstance(found[1], Reply)


def test_an_image_token_in_a_question_is_no_image() -> None:
    engine = engine_of("llava-1.5")
    written = engine.prepare(0, Query(image(30, 30), "<image>what")).inputs["input_ids"]
    assert torch.equal(written, engine.prepare(0, Query(image(30, 30), "what")).inputs["input_ids"])


def test_several_images_go_to_models_that_take_them() -> None:
    parts = tuple(ModelImage(image(*size).pixels, f"{size}") for size in SIZES[:2])
    group = ModelImages(parts[0].pixels, "both", parts)
    engine = engine_of("qwen2-vl")
    prepared = engine.prepare(0, Query(group, "what"))
    assert prepared.inputs["image_grid_thw"].shape == (2, 3)
    swapped = ModelImages(parts[1].pixels, "both", parts[::-1])
    one, other = (engine.answer([Query(images, "what")], GREEDY)[0] for images in (group, swapped))
    assert isinstance(one, Reply) and isinstance(other, Reply)
    labelled = TransformersEngine(*tiny("internvl"), load_profile("internvl").profile)
    assert labelled.render("what", 2).count("Image-1: ") == labelled.render("what", 2).count("Image-2: ") == 1
    assert "Image-" not in labelled.render("what", 1)


def test_coordinates_that_are_tokens_stay_in_the_reply() -> None:
    engine = engine_of("paligemma")
    ids = [*engine.tokenizer.convert_tokens_to_ids([f"<loc{n:04}>" for n in (256, 0, 768, 512)]), EOS]
    reply = engine._reply("", ids, GREEDY)
    assert reply.text == "<loc0256><loc0000><loc0768><loc0512>"


def test_sampling_depends_on_the_seed_and_the_question_alone(llava: TransformersEngine) -> None:
    search = Generation(num_beams=1, max_new_tokens=TOKENS, temperature=2.0, seed=1)
    first = texts(llava.answer(ASKED, search))
    assert first == texts(llava.answer(ASKED[::-1], search))[::-1]
    assert first != texts(llava.answer(ASKED, Generation(num_beams=1, max_new_tokens=TOKENS, temperature=2.0, seed=2)))


def test_a_template_that_differs_from_the_published_one_is_said() -> None:
    model, processor = tiny("qwen2-vl")
    (note,) = TransformersEngine(model, processor, load_profile("qwen2-vl").profile).notes()
    assert "the checkpoint's chat template differs" in note and "You are a helpful assistant." in note
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    processor.chat_template = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "{% for c in messages[0].content %}{% if c.type == 'image' %}" + place + "{% else %}{{ c.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n<|im_start|>assistant\n{{ '' }}"
    )
    assert list(TransformersEngine(model, processor, load_profile("qwen2-vl").profile).notes()) == []


def test_qwen_vl_chat_reads_images_from_files_that_its_prompt_names() -> None:
    """Its code lies in its checkpoint; prompt and files are ours, shown on a stand-in of its model."""
    import transformers

    from tests.tiny_models import TEXT, tokenizer

    tok = tokenizer(bos=False)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, vocab_size=len(tok))).eval()
    engine = TransformersEngine(model, tok, load_profile("qwen-vl-chat").profile)
    shown = image(30, 40)
    prepared = engine.prepare(0, Query(shown, "Is there a dog?"))
    found = re.fullmatch(r"<img>(.+\.png)</img>Is there a dog\? Answer:", prepared.prompt)
    assert found
    with Image.open(found[1]) as opened:
        assert np.array_equal(np.asarray(opened), shown.pixels)
    assert prepared.inputs["input_ids"][0].tolist() == tok(prepared.prompt)["input_ids"]
    assert engine.prepare(0, Query(None, "what")).prompt == "what Answer:"
    assert all(isinstance(reply, Reply) for reply in engine.answer([Query(shown, "a"), Query(None, "b")], GREEDY))
