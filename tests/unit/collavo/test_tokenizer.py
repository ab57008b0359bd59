"""InternLM2's tokenizer against the SentencePiece library, tags and ids of the released sizes, and the tiny tokenizer.

The models are trained here: byte fallback, InternLM2's special ids, its tags as pieces that the user defined, as normal
pieces, or not at all.
"""

import io
import itertools
import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from collavo.crayon import format_box
from collavo.errors import CheckpointError
from collavo.template import CHAT, DEMO, IMAGE_TAG, START_TAG, STOP_TAG
from collavo.tokenizer import InternLM2Tokenizer, load_tokenizer, tiny_tokenizer
from modeling.segmenters.coco import COCO_PANOPTIC, display_name
from tests.fixtures import fixture_dir

SENTENCES = (
    "AI assistant should give helpful and detailed answers to user after fully understanding an image.",
    "The image includes (#1 person) [0.00, 0.16, 0.29, 0.88], (#2 person) [0.10, 0.20, 0.30, 0.40].",
    "Is there a dog in the image?",
    "图中有几只狗？请直接回答选项字母。",
)
TAGS = (STOP_TAG, START_TAG)
NORMAL, USER_DEFINED = 1, 4
SPLIT = re.compile("(<image>|<s>|</s>|<unk>)")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")) | st.lists(
    st.sampled_from(
        ["Is there", " a  dog", "\n", "\n\n", "   ", "图中有几只狗？", "🐶", "é", "0.88]", "\t", "[UNUSED", "<"]
    )
).map("".join)
with_tags = st.lists(st.sampled_from([START_TAG, STOP_TAG, IMAGE_TAG, "<s>", "</s>"]) | texts, max_size=8).map("".join)


def train(symbols: tuple[str, ...], *, prefix: bool) -> bytes:
    """A small SentencePiece BPE model with InternLM2's special ids."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=itertools.chain.from_iterable([SENTENCES] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=list(symbols),
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def with_pieces(model: bytes, pieces: list[str], kind: int) -> bytes:
    """Append pieces to a model: its file is a protobuf message, whose repeated field 1 is continued at the end."""
    added = []
    for text in map(str.encode, pieces):
        body = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", -1e4) + b"\x18" + bytes([kind])
        added.append(b"\x0a" + bytes([len(body)]) + body)
    return model + b"".join(added)


def write(directory: Path, model: bytes, **files: object) -> Path:
    (directory / "tokenizer.model").write_bytes(model)
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="module")
def plain() -> bytes:
    return train((), prefix=False)


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "no prefix"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[InternLM2Tokenizer, SentencePieceProcessor]:
    """Our tokenizer and the library, on one model."""
    directory = write(tmp_path_factory.mktemp("pair"), train(TAGS, prefix=request.param))
    tokenizer = load_tokenizer(directory)
    assert isinstance(tokenizer, InternLM2Tokenizer)
    return tokenizer, SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))


@given(text=with_tags)
def test_ids_equal_the_library(pair: tuple[InternLM2Tokenizer, SentencePieceProcessor], text: str) -> None:
    """Between special tokens, which the library does not read in text, the ids are its own."""
    tokenizer, library = pair
    special = {"<image>": len(library), "<s>": 1, "</s>": 2, "<unk>": 0}
    wanted = [1]
    for part in SPLIT.split(text):
        wanted += [special[part]] if part in special else library.encode(part)
    assert tokenizer(text).input_ids == wanted
    assert tokenizer([text, "x"], add_special_tokens=False).input_ids[0] == wanted[1:]


@given(text=with_tags)
def test_text_comes_back(pair: tuple[InternLM2Tokenizer, SentencePieceProcessor], text: str) -> None:
    tokenizer, library = pair
    ids = tokenizer(text, add_special_tokens=False).input_ids
    decoded = tokenizer.decode(ids, skip_special_tokens=False)
    assert decoded == text
    assert tokenizer.decode(library.encode(text), skip_special_tokens=False) == library.decode(library.encode(text))


@pytest.mark.parametrize("objects", ["(#1 person) [0.00, 0.16, 0.29, 0.88]", "", None])
def test_templates_hold_each_tag_as_one_id(
    pair: tuple[InternLM2Tokenizer, SentencePieceProcessor], objects: str | None
) -> None:
    tokenizer, library = pair
    ids = tokenizer(CHAT.prompt(objects, "Is there  a dog?\n狗")).input_ids
    assert ids[0] == 1
    assert [ids.count(library.piece_to_id(tag)) for tag in (START_TAG, STOP_TAG)] == [2, 1]
    assert ids.count(len(library)) == (objects is not None)
    assert tokenizer(DEMO.prompt(objects, "a")).input_ids.count(len(library)) == (objects is not None)


def released_size(model: bytes, kind: int) -> bytes:
    """As many pieces as InternLM2 has, its 147 unused tokens being the last."""
    size = 92544 - 147 - len(_pieces(model))
    filled = with_pieces(model, [f"\x01{index}" for index in range(size)], NORMAL)
    return with_pieces(filled, [f"[UNUSED_TOKEN_{index}]" for index in range(147)], kind)


def _pieces(model: bytes) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=model)


OVERRIDES = {str(i): {"content": t, "special": True} for i, t in ((92542, "<|im_end|>"), (92543, "<|im_start|>"))}
LISTED = {"92542": {"content": STOP_TAG}, "92543": {"content": START_TAG}}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (USER_DEFINED, {}),
        (NORMAL, {}),
        (USER_DEFINED, {"added_tokens_decoder": LISTED}),
        (NORMAL, {"added_tokens_decoder": LISTED}),
        (USER_DEFINED, {"added_tokens_decoder": OVERRIDES}),
    ],
)
def test_the_released_ids(kind: int, config: dict[str, object], plain: bytes, tmp_path: Path) -> None:
    special = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "pad_token": "</s>"}
    files = {"tokenizer_config": config, "special_tokens_map": special}
    tokenizer = load_tokenizer(write(tmp_path, released_size(plain, kind), **files))
    for tag, index in ((STOP_TAG, 92542), (START_TAG, 92543), (IMAGE_TAG, 92544)):
        assert tokenizer.convert_tokens_to_ids(tag) == index
        assert tokenizer(tag, add_special_tokens=False).input_ids == [index]
        assert tokenizer(f"a {tag}b", add_special_tokens=False).input_ids.count(index) == 1
    for tag in re.findall(r"<\|im_\w+\|>", json.dumps(config)):
        assert tokenizer(tag, add_special_tokens=False).input_ids in ([92542], [92543])
    ids = [getattr(tokenizer, f"{name}_token_id") for name in ("unk", "bos", "eos", "pad")]
    assert ids == [0, 1, 2, 2]
    assert len(tokenizer) >= 92545
    assert tokenizer.padding_side == "left"
    assert tokenizer(["a", "a dog"], padding=True).attention_mask[0][0] == 0


def test_tags_that_cannot_have_their_ids_are_refused(plain: bytes, tmp_path: Path) -> None:
    model = released_size(plain, NORMAL)
    with pytest.raises(CheckpointError, match=r"UNUSED_TOKEN_145.* taken by other tokens of tokenizer_config.json"):
        load_tokenizer(write(tmp_path, model, tokenizer_config={"added_tokens_decoder": OVERRIDES}))


def test_absent_tags_are_added_behind_the_vocabulary(plain: bytes, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, plain, added_tokens={"<image>": len(_pieces(plain))}))
    ids = tokenizer.convert_tokens_to_ids([IMAGE_TAG, STOP_TAG, START_TAG])
    assert ids == [len(_pieces(plain)) + index for index in range(3)]
    assert tokenizer(f"{START_TAG}user\n", add_special_tokens=False).input_ids[0] == ids[2]


@pytest.mark.parametrize("kind", [None, USER_DEFINED, NORMAL])
def test_saved_and_loaded_again_it_is_the_same(kind: int | None, plain: bytes, tmp_path: Path) -> None:
    model = plain if kind is None else with_pieces(plain, list(TAGS), kind)
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    tokenizer = load_tokenizer(write(first, model))
    tokenizer.save_pretrained(second)
    again = load_tokenizer(second)
    text = CHAT.prompt("(#1 dog) [0.00, 0.16, 0.29, 0.88]", "图中有几只狗？ </s>")
    assert again(text).input_ids == tokenizer(text).input_ids
    assert (again.get_vocab(), len(again)) == (tokenizer.get_vocab(), len(tokenizer))


def test_special_tokens_follow_the_files(plain: bytes, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, plain, tokenizer_config={"pad_token": "<unk>", "eos_token": "</s>"}))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.model", b""),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"version": "1.0"}'),
        ("tokenizer.json", b"\xff"),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "y"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"5": {"text": "y"}}}'),
        ("special_tokens_map.json", b"7"),
        ("added_tokens.json", b'{"<image>": "last"}'),
    ],
)
def test_damaged_files_are_told(name: str, content: bytes, plain: bytes, tmp_path: Path) -> None:
    if name == "tokenizer.json":
        tiny_tokenizer().save_pretrained(tmp_path)
    else:
        write(tmp_path, plain)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"looked for tokenizer.model, tokenizer.json"):
        load_tokenizer(tmp_path)


TINY = tiny_tokenizer()


@given(st.text(st.characters(exclude_categories=["Cs"])) | with_tags)
def test_any_text_comes_back_from_the_tiny_tokenizer(text: str) -> None:
    ids = TINY(text).input_ids
    assert ids[0] == 1
    assert 0 not in ids or "<unk>" in text
    assert TINY.decode(ids[1:], skip_special_tokens=False) == text


def test_the_tiny_tokenizer_is_small_and_ends_with_the_image() -> None:
    assert 600 <= len(TINY) <= 1000
    assert TINY.convert_tokens_to_ids(IMAGE_TAG) == len(TINY) - 1
    assert [TINY.unk_token_id, TINY.bos_token_id, TINY.eos_token_id, TINY.pad_token_id] == [0, 1, 2, 2]
    assert sorted(TINY.get_vocab().values()) == list(range(len(TINY)))
    for tag in (*TAGS, IMAGE_TAG):
        assert TINY(tag, add_special_tokens=False).input_ids == [TINY.convert_tokens_to_ids(tag)]


def test_whole_words_are_single_ids() -> None:
    for category in COCO_PANOPTIC:
        name = display_name(category.name)
        words = re.findall(r" ?\w+|-", f" {name}")
        assert len(TINY(f" {name}", add_special_tokens=False).input_ids) == len(words), name
    question = "Is there a dog in the image?"
    assert len(TINY(question, add_special_tokens=False).input_ids) == 8
    for hundredth in range(101):
        assert len(TINY(format_box((hundredth / 100,)), add_special_tokens=False).input_ids) == 5  # type: ignore[arg-type]


def test_tiny_ids_are_always_the_same(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == TINY.get_vocab() == tiny_tokenizer().get_vocab()
    text = CHAT.prompt("(#1 dog) [0.00, 0.16, 0.29, 0.88]", "图中有几只狗？  dogs and firefighters</s>")
    assert loaded(text).input_ids == TINY(text).input_ids == tiny_tokenizer()(text).input_ids
    assert loaded.padding_side == "left"


def test_popes_questions_come_back() -> None:
    files = sorted(fixture_dir("benchmarks/pope").rglob("*.json"))
    asked = {text for file in files for text in re.findall(r'"text": "(Is there[^"]+)"', file.read_text())}
    assert asked, "no question found in POPE's files"
    for question in asked:
        ids = TINY(CHAT.prompt("", question)).input_ids
        assert question in TINY.decode(ids)
