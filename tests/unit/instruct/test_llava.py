"""Conversations as LLaVA and ShareGPT4V release them, odd records, and images under other suffixes or missing."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collavo.template import CHAT
from datasets.instruct.llava import ImageBelow, read_conversations
from datasets.instruct.types import MissingImageRecord, Sample, Turn, gather_samples
from datasets.types import BadRecord, DataError, ImageFile


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def record(*texts: str, image: Any = "coco/train2017/000000000009.jpg", **more: Any) -> dict[str, Any]:
    found = {"id": "000000000009", "image": image, "conversations": said(*texts), **more}
    return {key: value for key, value in found.items() if value is not ...}


def read(tmp_path: Path, items: list[Any], *roots: Path, check: bool = False) -> list[Sample | BadRecord]:
    path = tmp_path / "llava_v1_5_mix665k.json"
    path.write_text(json.dumps(items))
    return list(read_conversations(path, roots or (tmp_path,), check))


def one(tmp_path: Path, item: Any) -> Sample | BadRecord:
    (found,) = read(tmp_path, [item])
    return found


@pytest.mark.parametrize(
    ("first", "question"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("What is it?", "What is it?"),
        ("<image>\n What  is\nit?\nAnswer briefly.\n", "What  is\nit?\nAnswer briefly.\n"),
        ("See <image> here.", "See here."),
    ],
)
def test_the_tag_is_taken_out_of_the_first_question(first: str, question: str, tmp_path: Path) -> None:
    sample = one(tmp_path, record(first, "A dog.", "Why?", " So.\n"))
    assert isinstance(sample, Sample)
    assert sample.turns == (Turn(question=question, answer="A dog."), Turn(question="Why?", answer=" So.\n"))
    assert sample.with_objects
    assert sample.image == ImageBelow((tmp_path,), "coco/train2017/000000000009.jpg")
    assert sample.source == "llava_v1_5_mix665k.json"


@pytest.mark.parametrize("image", [..., None])
def test_text_only_records_have_no_image(image: Any, tmp_path: Path) -> None:
    sample = one(tmp_path, record(" Hello", "Hi", image=image, id="wgByO4Y_0", model=""))
    assert isinstance(sample, Sample)
    assert (sample.image, sample.with_objects) == (None, False)
    assert sample.turns == (Turn(question=" Hello", answer="Hi"),)


def test_repeated_and_numeric_ids_are_as_released(tmp_path: Path) -> None:
    items = [record("<image>\na?", "b"), record("<image>\nc?", "d"), record("<image>\ne?", "f", id=2331)]
    samples = read(tmp_path, items)
    assert [sample.id for sample in samples if isinstance(sample, Sample)] == [
        "000000000009@0",
        "000000000009@1",
        "2331@2",
    ]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (record("a", "b", conversations=said("a", "b")[::-1]), "in pairs, got 1 messages"),
        (record("a", "b", conversations=[*said("a", "b")[1:] * 2]), "message 1: expected 'human' to speak, got 'gpt'"),
        (
            record("a", "b", conversations=[{"from": "gpt", "value": "<image>"}, *said("a", "b")]),
            "first message of 'gpt'",
        ),
        (record("a", "b", conversations=said("a", "b")[:1] * 2), "message 1: expected 'gpt' to speak, got 'human'"),
        (record("a", "b", "c"), "in pairs, got 3 messages"),
        (record(), "in pairs, got 0 messages"),
        (record("a", ""), "message 1 is empty"),
        (record("a", " \n"), "message 1 is empty"),
        (record("<image>\n", "b"), "message 0 is empty"),
        (record("<image>", "b", "", "d"), "message 0 is empty"),
        (record("a", "b", conversations=[*said("a", "b"), {"from": "system", "value": "x"}]), "got 'system'"),
        (record("a", "b", conversations=[{"from": "system", "value": "<image>"}, *said("a", "b")]), "system message"),
        (record("a", "b", conversations=[{"from": "tool", "value": "x"}, *said("a")]), "'tool' is none of human"),
        (record("a", "b", conversations=[{"from": "human"}, *said("a")]), "lacks 'value'; it has: from"),
        (
            record("a", "b", conversations=[{"from": "human", "value": 3}, *said("a")]),
            "'value' should be a text, got 3",
        ),
        (record("a", "b", conversations=["a", "b"]), "expected an object with 'from', got str"),
        (record("a", "b", conversations="ab"), "'conversations' should be a list"),
        (record("a", "b", conversations=...), "lacks 'conversations'; it has: id, image"),
        (record("a", "b", id=["x"]), "'id' should be a text or a whole number"),
        (record("a", "b", id=True), "'id' should be a text or a whole number"),
        (record("a", "b", image=["1.jpg", "2.jpg"]), "'image' lists 2 images, a conversation can have one"),
        (record("a", "b", image=7), "'image' should be a text, got 7"),
        (record("a", "b", image=[7]), "'image' should be a text, got 7"),
        (record("a", "b", images=["2.jpg"]), "lists 2 images"),
        (record("a", "b", image="https://host/1.jpg"), "'image' is an address, 'https://host/1.jpg'; download it"),
        (record("a", "b", image=..., video="1.mp4"), "'video' cannot be trained on"),
        (record("a", "b", image=""), "should be the path of an image"),
        (record("a", "b", image="."), "should be the path of an image"),
        (record("a", "b", image="../1.jpg"), "expected the name of an image below"),
        (record("a", "b", image="/etc/../1.jpg"), "expected the name of an image below"),
        (record("<image>\na", "b", image=...), "message 0: <image> may stand once"),
        (record("<image>\na <image>", "b"), "message 0: <image> may stand once"),
        (record("a", "b", "<image>\nc", "d"), "message 2: <image> may stand once"),
        (record("a", "see <image>"), "message 1: <image> may stand once"),
        (record("a", "\ud800"), "'value' holds half of a character"),
        ("text", "expected an object with 'conversations', got str"),
        (None, "expected an object"),
    ],
)
def test_odd_records_are_reported_and_left_out(item: Any, reason: str, tmp_path: Path) -> None:
    good = record("a", "b")
    first, bad, last = read(tmp_path, [good, item, good])
    assert isinstance(bad, BadRecord)
    assert not isinstance(bad, MissingImageRecord)
    assert bad.where == f"{tmp_path / 'llava_v1_5_mix665k.json'}, record 1"
    assert reason in bad.reason
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)


@given(
    st.lists(
        st.recursive(
            st.sampled_from(
                ["id", "image", "conversations", "from", "value", "human", "gpt", "<image>", "a.jpg", "", 1]
            )
            | st.none()
            | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["id", "image", "conversations", "from", "value"]) | st.text(max_size=2), inner
                )
            ),
            max_leaves=10,
        ),
        max_size=5,
    )
)
def test_every_record_gives_a_sample_or_a_reason(tmp_path_factory: pytest.TempPathFactory, items: list[Any]) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    found = read(folder, items, check=True)
    assert len(found) == len(items)


def test_images_are_searched_under_all_roots_and_suffixes(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    names = [f"ocr_vqa/images/{stem}.jpg" for stem in ("exact", "gif", "png", "none")]
    for root, file in ((there, "exact.jpg"), (here, "exact.png"), (here, "gif.gif"), (there, "png.png")):
        (root / "ocr_vqa/images").mkdir(parents=True, exist_ok=True)
        (root / "ocr_vqa/images" / file).write_bytes(file.encode())
    items = [record("<image>\na", "b", image=name) for name in names] + [record("a", "b", image=...), "bad"]
    gathered = gather_samples(read(tmp_path, items, here, there, check=True))
    wanted = [there / "ocr_vqa/images/exact.jpg", here / "ocr_vqa/images/gif.gif", there / "ocr_vqa/images/png.png"]
    assert [sample.image for sample in gathered.samples] == [
        *map(ImageFile, wanted, names),
        None,
    ]
    missing, malformed = gathered.bad
    assert isinstance(missing, MissingImageRecord)
    assert missing.where.endswith("record 3")
    for place in (here / names[3], there / names[3], ".png"):
        assert str(place) in missing.reason
    assert not isinstance(malformed, MissingImageRecord)
    assert (gathered.num_missing, gathered.num_renamed) == (1, 2)
    assert gathered.summary() == (
        "4 samples; 1 malformed records skipped; 1 skipped, their images are missing; "
        "2 images found under another suffix"
    )


def test_unchecked_images_are_searched_when_they_are_read(tmp_path: Path) -> None:
    sample = one(tmp_path, record("<image>\na", "b", image="a/b.jpg"))
    assert isinstance(sample, Sample)
    assert sample.image is not None
    with pytest.raises(FileNotFoundError, match=r"b.jpg, also as .*\.gif"):
        sample.image.read()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.gif").write_bytes(b"gif")
    assert sample.image.read() == b"gif"
    (tmp_path / "a/b.jpg").write_bytes(b"jpg")
    assert (sample.image.read(), sample.image.name) == (b"jpg", "a/b.jpg")


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    one_record = json.dumps(record("a", "b"), indent=1).encode()
    for content, message in (
        (b'{"a": []}', "a JSON object that is no conversation; a list of conversations is needed, or JSON lines"),
        (one_record, "a JSON object that is no conversation"),
        (json.dumps([record("a", "b")]).encode("utf-16"), "is in UTF-16; save it in UTF-8"),
        (b"hello", r"expected \[, got h"),
    ):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(DataError, match=message):
            gather_samples(read_conversations(tmp_path / "a.json", [tmp_path], False))


def test_images_need_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record("a", "b")]))
    with pytest.raises(DataError, match="no folder of images is given"):
        gather_samples(read_conversations(tmp_path / "a.json", [], False))


def test_a_sample_needs_turns_and_a_image_for_its_objects() -> None:
    turn = Turn(question="a", answer="b")
    with pytest.raises(ValueError, match="sample x of y has no turn"):
        Sample(id="x", image=None, turns=(), source="y", with_objects=False)
    with pytest.raises(ValueError, match="sample x of y has no image"):
        Sample(id="x", image=None, turns=(turn,), source="y", with_objects=True)


def chat(*contents: Any, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)], **more}


def with_first(item: dict[str, Any], **more: Any) -> dict[str, Any]:
    """With more in the first message."""
    first, *others = item["messages"]
    return {**item, "messages": [{**first, **more}, *others]}


def answered(**more: Any) -> dict[str, Any]:
    """With more in the answer."""
    return {"messages": [*chat("a")["messages"], {"role": "assistant", "content": "b", **more}]}


NOT_WHOLE: tuple[tuple[str, object], ...] = (("weight", 0), ("weight", 0.5), ("loss", False), ("train", False))
"""What says that an answer is not learned like others."""


@pytest.mark.parametrize("more", [{"weight": 1}, {"loss": True}, {"train": None}, {"tool_calls": []}])
def test_an_answer_that_is_learned_like_others_is_taken(more: dict[str, Any], tmp_path: Path) -> None:
    assert isinstance(one(tmp_path, answered(**more)), Sample)


@pytest.mark.parametrize(
    ("item", "image", "question"),
    [
        (chat("<image>What?", "A dog.", images=["a.jpg"]), "a.jpg", "What?"),
        (chat("What?", "A dog.", images=[{"path": "a.jpg", "bytes": None}]), "a.jpg", "What?"),
        (chat([{"type": "image"}, {"type": "text", "text": "What?"}], "A dog.", images=["a.jpg"]), "a.jpg", "What?"),
        (chat([{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "What?"}], "A dog."), "a.jpg", "What?"),
        (
            chat([{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "a.jpg"}}], "A dog."),
            "a.jpg",
            "What?",
        ),
        (with_first(chat("What?", "A dog."), images=["a.jpg"]), "a.jpg", "What?"),
        (with_first(chat("<image> What?", "A dog."), image="a.jpg"), "a.jpg", "What?"),
        (with_first(chat("What?", "A dog."), images=[]), None, "What?"),
        (chat("What?", [{"type": "text", "text": "A dog."}]), None, "What?"),
        (chat("What?", "A dog.", images=[]), None, "What?"),
        (chat([{"type": "image", "image": "a.jpg"}, "What?"], "A dog.", images=["a.jpg"]), "a.jpg", "What?"),
        (with_first(chat([{"type": "image", "path": "a.jpg"}, "What?"], "A dog."), image="a.jpg"), "a.jpg", "What?"),
        (with_first(chat("What?", "A dog.", images=["a.jpg"]), image="a.jpg", image_path="/x/a.jpg"), "a.jpg", "What?"),
        (chat([{"type": "text", "text": "What?", "image": None, "annotations": [1]}], "A dog."), None, "What?"),
        (chat("a.jpg", "A dog.", id="a.jpg"), None, "a.jpg"),
        (record("What?", "A dog.", image=["a.jpg"]), "a.jpg", "What?"),
        (record("What?", "A dog.", image="file:///data/a.jpg"), "data/a.jpg", "What?"),
        (
            {"conversations": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A dog."}]},
            None,
            "What?",
        ),
        (record(conversations=[{"from": "gpt", "value": "Hello"}, *said("What?", "A dog.")], image=...), None, "What?"),
    ],
)
def test_forms_of_chat_models(item: Any, image: str | None, question: str, tmp_path: Path) -> None:
    sample = one(tmp_path, item)
    assert isinstance(sample, Sample), sample
    assert (sample.image and sample.image.name) == image
    assert sample.turns == (Turn(question=question, answer="A dog."),)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (chat([{"type": "image"}, {"type": "text", "text": "a"}], "b"), "message 0: <image> may stand once"),
        (chat([{"type": "image"}, {"type": "image"}], "b", images=["1.jpg", "2.jpg"]), "'images' lists 2 images"),
        (chat([{"type": "video", "video": "a.mp4"}], "b"), "a part of type 'video' cannot be trained on"),
        (chat([{"type": "image", "image": {"x": 1}}], "b"), "an image part names no file"),
        (chat("a", ""), "message 1 is empty"),
        (chat("a", None), "'content' should be a text"),
        (chat("a"), "in pairs, got 1 messages"),
        ({"messages": "a"}, "'messages' should be a list"),
        (chat("a", "b", image_path="a.jpg"), "'image_path' is not read, and there is no 'image'"),
        (record("a", "b", image=None, img=["a.jpg"]), "'img' is not read, and there is no 'image'"),
        (with_first(chat("a", "b"), images=["1.jpg", "2.jpg"]), "'images' lists 2 images"),
        (with_first(chat("a", "b", images=["1.jpg"]), image="2.jpg"), "'images' lists 2 images"),
        (
            chat("a", "b", "c", "d")
            | {
                "messages": [
                    *chat("a", "b")["messages"],
                    {"role": "user", "content": "c", "images": ["a.jpg"]},
                    {"role": "assistant", "content": "d"},
                ]
            },
            "message 2: <image> may stand once",
        ),
        (record("a", "b") | chat("c", "d"), "has 'conversations' and other 'messages'"),
        (chat("a", "b", file="1.JPG"), "'file' is not read, and there is no 'image'"),
        (chat("a", "b", media=[{"path": "1"}]), "'media' is not read, and there is no 'image'"),
        (with_first(chat("a", "b"), image_path="1.jpg"), "message 0: 'image_path' is not read"),
        (with_first(chat("a", "b"), path=["1.png"]), "message 0: 'path' is not read"),
        (with_first(chat("a", "b", images=["1.jpg"]), video="1.mp4"), "message 0: 'video' cannot be trained on"),
        (with_first(chat([{"type": "image", "image": "1.jpg"}, "a"], "b"), image="2.jpg"), "lists 2 images"),
        (chat([{"type": "image", "source": {"data": "x"}}, "a"], "b", images=["1.jpg"]), "'source' of a part of type"),
        (chat([{"type": "image", "image": "1.jpg", "text": "a"}, "a"], "b"), "'text' of a part of type 'image'"),
        (chat([{"type": "text", "text": "a", "image": "1.jpg"}], "b"), "'image' of a part of type 'text'"),
        *((answered(**{key: value}), f"message 1: '{key}' is {value}") for key, value in NOT_WHOLE),
        (answered(tool_calls=[{"id": "x"}]), "message 1: 'tool_calls' is not read"),
        (answered(reasoning_content="x"), "message 1: 'reasoning_content' is not read"),
        ({"system": "x", "messages": [{"role": "system", "content": "y"}]}, "the record has a 'system' already"),
        (chat("a", "b", system=["x"]), "'system' should be a text"),
    ],
)
def test_odd_messages_are_refused(item: Any, reason: str, tmp_path: Path) -> None:
    bad = one(tmp_path, item)
    assert isinstance(bad, BadRecord) and reason in bad.reason, bad


def test_a_system_message_takes_the_place_of_the_templates_own(tmp_path: Path) -> None:
    sample = one(tmp_path, {"messages": [{"role": "system", "content": "Be brief."}, *chat("a", "b")["messages"]]})
    assert isinstance(sample, Sample) and (sample.system, sample.id) == ("Be brief.", "0")
    assert CHAT.prompt("", "a", system=sample.system).startswith("Be brief. <image> ")
    for item in (record("a", "b", system="Be brief."), chat("a", "b", system=" Be brief.\n")):
        beside = one(tmp_path, item)
        assert isinstance(beside, Sample) and beside.system == "Be brief." and beside.turns == sample.turns
    unset = one(tmp_path, record("a", "b", system=""))
    assert isinstance(unset, Sample) and unset.system == ""


def test_lines_and_lists_give_the_same(tmp_path: Path) -> None:
    items = [record("a", "b"), chat("c", "d"), record("e", "f", id=...)]
    (tmp_path / "a.json").write_text(json.dumps(items))
    for name in ("a.jsonl", "lines.json"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, items)) + "\n\n")
        both = [list(read_conversations(tmp_path / file, [tmp_path], False)) for file in ("a.json", name)]
        assert [(s.id, s.turns) for s in both[0]] == [(s.id, s.turns) for s in both[1]]  # type: ignore[union-attr]


def test_a_line_that_is_no_json_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record("a", "b")) + "\n{\n" + json.dumps(record("c", "d")))
    first, bad, last = read_conversations(tmp_path / "a.jsonl", [tmp_path], False)
    assert isinstance(first, Sample) and isinstance(last, Sample) and isinstance(bad, BadRecord)
    assert bad.where == f"{tmp_path / 'a.jsonl'}, line 2"


def test_images_may_have_absolute_paths_or_stand_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpg")
    data = "data:image/png;base64," + base64.b64encode(b"png").decode()
    found = read(tmp_path, [record("a", "b", image=str(tmp_path / "a.jpg")), record("a", "b", image=data)], check=True)
    assert [one.image.read() for one in found if isinstance(one, Sample) and one.image] == [b"jpg", b"png"]
    missing = read(tmp_path, [record("a", "b", image="/nowhere/a.jpg")], check=True)[0]
    assert isinstance(missing, MissingImageRecord) and "/nowhere/a.jpg" in missing.reason
