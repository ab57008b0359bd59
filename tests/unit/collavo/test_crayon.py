"""Crayon prompts of any panoptic map: numbers, boxes and what is left out, against a pixel-by-pixel count."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collavo.crayon import MAX_INSTANCES, CrayonPrompt, crayon_prompt, format_box, names_only, object_list
from modeling.segmenters.base import PanopticMap, Segment
from modeling.segmenters.coco import COCO_PANOPTIC, INDEX_BY_NAME, NUM_CLASSES, display_name

GRID = 7


def segment(number: int, category_id: int = 0) -> Segment:
    return Segment(id=number, category_id=category_id, score=0.9)


@st.composite
def panoptic_maps(draw: st.DrawFn) -> PanopticMap:
    """Maps with background, ids that nothing lists, listed ids without a pixel, lists in any order."""
    id_map = draw(arrays(np.int32, (GRID, GRID), elements=st.integers(-1, 45)))
    ids = draw(st.lists(st.integers(1, 50), unique=True, max_size=45))
    few_classes = st.sampled_from([0, 0, 0, 17, 119, NUM_CLASSES - 1])
    return PanopticMap(id_map, tuple(segment(number, draw(few_classes)) for number in ids))


def counted_by_hand(
    panoptic: PanopticMap,
) -> tuple[list[list[tuple[int, int]]], list[tuple[int, str, int, list[float]]]]:
    """Rows of both tables per pixel, and the objects, with loops and no arrays."""
    pixels = {(y, x): int(panoptic.id_map[y, x]) for y in range(GRID) for x in range(GRID)}
    rows, objects = [[(0, 0)] * GRID for _ in range(GRID)], []
    counts: Counter[int] = Counter()
    for item in panoptic.segments:
        own = [position for position, number in pixels.items() if number == item.id]
        if not own:
            continue
        counts[item.category_id] += 1
        number = counts[item.category_id]
        for y, x in own:
            rows[y][x] = (item.category_id + 1, number if number <= 20 else 0)
        ys, xs = [y for y, _ in own], [x for _, x in own]
        box = [min(xs) / GRID, min(ys) / GRID, (max(xs) + 1) / GRID, (max(ys) + 1) / GRID]
        objects.append((item.id, display_name(COCO_PANOPTIC[item.category_id].name), number, box))
    return rows, objects


@given(panoptic_maps())
def test_maps_and_objects_equal_a_count_by_hand(panoptic: PanopticMap) -> None:
    prompt = crayon_prompt(panoptic, GRID)
    rows, objects = counted_by_hand(panoptic)
    ours = [list(zip(*pair, strict=True)) for pair in zip(prompt.semantic, prompt.numbering, strict=True)]
    assert ours == rows
    assert [(o.segment_id, o.category, o.number, list(o.box)) for o in prompt.objects] == objects
    assert prompt.semantic.dtype == prompt.numbering.dtype == np.int64


@given(panoptic_maps())
def test_map_and_text_give_an_object_the_same_number(panoptic: PanopticMap) -> None:
    prompt = crayon_prompt(panoptic, GRID)
    for item in prompt.objects:
        pixels = panoptic.id_map == item.segment_id
        assert set(prompt.numbering[pixels].tolist()) == {item.number if item.number <= MAX_INSTANCES else 0}
        names = {display_name(COCO_PANOPTIC[row - 1].name) for row in prompt.semantic[pixels].tolist()}
        assert names == {item.category}


@given(panoptic_maps(), st.randoms())
def test_other_names_for_the_ids_change_nothing(panoptic: PanopticMap, random) -> None:  # type: ignore[no-untyped-def]
    names = list(range(1, 51))
    random.shuffle(names)
    renamed = np.array([0, *names])[np.maximum(panoptic.id_map, 0)]
    segments = tuple(segment(names[item.id - 1], item.category_id) for item in panoptic.segments)
    ours, theirs = crayon_prompt(PanopticMap(renamed, segments), GRID), crayon_prompt(panoptic, GRID)
    assert np.array_equal(ours.semantic, theirs.semantic)
    assert np.array_equal(ours.numbering, theirs.numbering)
    assert object_list(ours.objects) == object_list(theirs.objects)


@given(panoptic_maps(), st.randoms())
def test_another_order_of_the_list_changes_numbers_only(panoptic: PanopticMap, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(panoptic.segments)
    random.shuffle(shuffled)
    ours, theirs = crayon_prompt(PanopticMap(panoptic.id_map, tuple(shuffled)), GRID), crayon_prompt(panoptic, GRID)
    assert np.array_equal(ours.semantic, theirs.semantic)
    assert {(o.segment_id, o.category, o.box) for o in ours.objects} == {
        (o.segment_id, o.category, o.box) for o in theirs.objects
    }
    assert Counter((o.category, o.number) for o in ours.objects) == Counter(
        (o.category, o.number) for o in theirs.objects
    )


def test_the_first_instance_without_a_row_is_the_21st() -> None:
    id_map = np.arange(25, dtype=np.int32).reshape(5, 5)
    prompt = crayon_prompt(PanopticMap(id_map, tuple(segment(number) for number in range(1, 25))), 5)
    assert prompt.numbering.flatten().tolist() == [0, *range(1, 21), 0, 0, 0, 0]
    assert prompt.semantic.flatten().tolist() == [0, *[1] * 24]
    assert [item.number for item in prompt.objects] == list(range(1, 25))
    assert "(#24 person)" in object_list(prompt.objects)


def test_a_vanished_segment_takes_no_number_and_an_unlisted_id_is_unknown() -> None:
    id_map = np.array([[1, 1], [3, 9]], np.int32)
    prompt = crayon_prompt(PanopticMap(id_map, (segment(1), segment(2), segment(3))), 2)
    assert prompt.numbering.tolist() == [[1, 1], [2, 0]]
    assert prompt.semantic.tolist() == [[1, 1], [1, 0]]
    assert names_only(prompt.objects) == "#1 person, #2 person"


@pytest.mark.parametrize("segments", [(), (segment(4), segment(5))])
def test_a_map_of_which_nothing_is_listed_is_an_empty_prompt(segments: tuple[Segment, ...]) -> None:
    prompt = crayon_prompt(PanopticMap(np.full((2, 2), 7, np.int32), segments), 2)
    empty = CrayonPrompt.empty(2)
    assert np.array_equal(prompt.semantic, empty.semantic)
    assert np.array_equal(prompt.numbering, empty.numbering)
    assert prompt.objects == empty.objects == ()
    assert object_list(prompt.objects) == ""


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ((segment(1), segment(8, NUM_CLASSES)), "segment 8: class 133 is outside 0..132"),
        ((segment(1), segment(8, -1)), "segment 8: class -1 "),
        ((segment(3), segment(3, 5)), "segment 3: ids .* listed once"),
        ((segment(0),), "segment 0: ids count from 1"),
    ],
)
def test_impossible_segments_are_named(segments: tuple[Segment, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crayon_prompt(PanopticMap(np.ones((2, 2), np.int32), segments), 2)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (16,), (4, 4, 1)])
def test_a_map_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"panoptic map is .* image tokens are \(4, 4\)"):
        crayon_prompt(PanopticMap(np.zeros(shape, np.int32), ()), 4)


def test_objects_in_words() -> None:
    id_map = np.zeros((35, 35), np.int32)
    id_map[5:31, :10], id_map[:12, 20:] = 1, 2
    segments = (segment(1), segment(2, INDEX_BY_NAME["sky-other-merged"]))
    objects = crayon_prompt(PanopticMap(id_map, segments), 35).objects
    assert object_list(objects) == "(#1 person) [0.00, 0.14, 0.29, 0.89], (#1 sky) [0.57, 0.00, 1.00, 0.34]"
    assert names_only(objects) == "#1 person, #1 sky"
    assert format_box((0, 0.005, 0.9949, 1)) == "[0.00, 0.01, 0.99, 1.00]"


def test_the_map_that_came_in_stays_as_it_was() -> None:
    id_map = np.array([[1, -1], [0, 9]], np.int32)
    crayon_prompt(PanopticMap(id_map, (segment(1),)), 2)
    assert id_map.tolist() == [[1, -1], [0, 9]]


def test_a_finer_map_keeps_small_things() -> None:
    """A thing that fills 15 % of a token takes it; grounds share what is left by area; boxes keep their precision."""
    grass, dog = INDEX_BY_NAME["grass-merged"], INDEX_BY_NAME["dog"]
    id_map = np.full((40, 40), 1, np.int32)  # 2 tokens a side, of 20 x 20 pixels
    id_map[:6, :10] = 2  # 60 of 400 pixels: just enough
    id_map[:20, 25:30] = 3  # 100 of 400
    id_map[20:, 20:27] = 4  # 140 of 400, a ground: less than the first one
    segments = (segment(1, grass), segment(2, dog), segment(3, dog), segment(4, INDEX_BY_NAME["sand"]))
    found = crayon_prompt(PanopticMap(id_map, segments), 2)
    assert found.semantic.tolist() == [[dog + 1, dog + 1], [grass + 1, grass + 1]]
    assert found.numbering.tolist() == [[1, 2], [1, 1]]
    assert [(item.category, item.box) for item in found.objects] == [
        ("grass", (0, 0, 1, 1)),
        ("dog", (0, 0, 0.25, 0.15)),
        ("dog", (0.625, 0, 0.75, 0.5)),
    ]
    id_map[0, 0] = 1  # one pixel less
    assert crayon_prompt(PanopticMap(id_map, segments), 2).semantic[0, 0] == grass + 1
