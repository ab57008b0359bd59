"""detectron2 behind the segmenter interface, with a stand-in for the library; the contract test has the real one."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modeling.image import DecodedImage
from modeling.segmenters import build_segmenter
from modeling.segmenters.base import Segment
from modeling.segmenters.coco import COCO_PANOPTIC, INDEX_BY_NAME
from modeling.segmenters.detectron2 import Detectron2Segmenter
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from tests.unit.segmenters.fake_detectron2 import STUFF, THINGS, Model, install

PERSON, CUP, SKY = (INDEX_BY_NAME[name] for name in ("person", "cup", "sky-other-merged"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """As the zoo has them: pickled by the oldest protocol that arrays know, with what newer versions do not keep."""
    arrays = {"scale": np.ones(2, np.float32), "pixel_mean": np.zeros((3, 1, 1)), "a.cell_anchors.0": np.ones(4)}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo"}, protocol=2))
    return tmp_path / "model.pkl"


def built(path: Path, **more: Any) -> Detectron2Segmenter:
    segmenter = build_segmenter(SegmenterConfig(NAME="detectron2", PATH=str(path), **more))
    assert isinstance(segmenter, Detectron2Segmenter)
    return segmenter


def image(height: int, width: int, name: str = "p.jpg") -> DecodedImage:
    return DecodedImage(np.full((height, width, 3), (10, 20, 30), np.uint8), name)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    return install(monkeypatch)


def test_segments_are_ours_and_vanished_ones_are_left_out(weights: Path, models: list[Model]) -> None:
    segmenter = built(weights)
    whole = segmenter.segment([image(6, 9)], (6, 9))[0]
    assert whole.segments == (
        Segment(id=1, category_id=CUP, score=0.75),
        Segment(id=2, category_id=PERSON, score=0.5),
        Segment(id=3, category_id=SKY, score=1.0),
    )
    assert whole.id_map.dtype == np.int32
    assert whole.id_map.tolist() == [[1, 2, 2, 0, 0, 0, 3, 3, 3]] + [[2, 2, 2, 0, 0, 0, 3, 3, 3]] * 5
    small = segmenter.segment([image(6, 9)], (2, 3))[0]  # no cell's middle is the cup's pixel
    assert small.id_map.tolist() == [[1, 0, 2], [1, 0, 2]]
    assert [segment.category_id for segment in small.segments] == [PERSON, SKY]


def test_every_class_is_found_by_its_name(weights: Path, models: list[Model]) -> None:
    segmenter = built(weights)
    shown = [COCO_PANOPTIC[number].name for number in segmenter._things if number is not None]
    assert shown == THINGS
    assert segmenter._stuff[0] is None
    assert list(segmenter._stuff[1:]) == list(range(80, 133))


def test_images_of_one_prepared_size_share_a_forward(weights: Path, models: list[Model]) -> None:
    segmenter = built(weights, BATCH_SIZE=2)
    assert segmenter.block == 1  # on a CPU
    segmenter.block = 2
    sizes = [(12, 18), (18, 12), (24, 36), (48, 72), (1, 90)]  # 24 x 36, 36 x 24, 24 x 36, 24 x 36, 0.44 x 40
    with pytest.raises(SegmenterError, match=r"image thin\.png, \(1, 90, 3\), cannot be resized"):
        segmenter.segment([image(*size, name="thin.png") for size in sizes], (4, 4))
    assert len(segmenter.segment([image(*size) for size in sizes[:4]], (4, 4))) == 4
    assert [[tuple(item["image"].shape) for item in batch] for batch in models[0].batches] == [
        [(3, 24, 36)] * 2,
        [(3, 24, 36)] * 2,  # filled up
        [(3, 36, 24)] * 2,
    ]
    first = models[0].batches[0][0]
    assert (first["height"], first["width"]) == (12, 18)
    assert first["image"].dtype == torch.float32
    assert first["image"][:, 0, 0].tolist() == [30, 20, 10]  # blue first


def test_settings_reach_the_library_and_the_fingerprint(weights: Path, models: list[Model]) -> None:
    prints = [built(weights, **more).fingerprint for more in ({}, {"THRESHOLD": 0.03}, {"MASK_THRESHOLD": 0.9})]
    assert len(set(prints)) == 3
    assert built(weights, THRESHOLD=0.5, MASK_THRESHOLD=0.5, BATCH_SIZE=1).fingerprint == prints[0]
    found = [
        (combine.INSTANCES_CONFIDENCE_THRESH, combine.OVERLAP_THRESH, model.settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
        for model in models[:3]
        for combine in [model.settings.MODEL.PANOPTIC_FPN.COMBINE]
    ]
    assert found == [(0.5, 0.5, 0.05), (0.03, 0.5, 0.03), (0.5, pytest.approx(0.1), 0.05)]
    assert models[0].settings.MODEL.DEVICE == "cpu"
    other = built(weights, ZOO_CONFIG="COCO-PanopticSegmentation/panoptic_fpn_R_101_3x.yaml")
    assert other.fingerprint not in prints


@pytest.mark.parametrize("absent", ["detectron2", "detectron2.modeling"])
def test_a_missing_library_is_explained(absent: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(SegmenterError, match="cannot be imported .* setuptools below 80 .* source repository"):
        built(weights)


@pytest.mark.parametrize(
    ("things", "stuff", "message"),
    [
        ([*THINGS[:-1], "rider"], STUFF, "'rider' unknown"),
        (THINGS, ["things", "sidewalk", "pole", "a", "b", "c"], "'sidewalk', 'pole', 'a', 'b' and 1 more unknown"),
        (THINGS, [], "things or stuff missing"),
    ],
)
def test_classes_of_other_data_are_refused(
    things: list[str], stuff: list[str], message: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, things, stuff)
    with pytest.raises(SegmenterError, match=f"are not those of COCO panoptic: {message}"):
        built(weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("COCO-Panoptic/../../x.yaml", "is no name of detectron2's model zoo"),
        ("/etc/x.yaml", "is no name of detectron2's model zoo"),
        ("COCO-PanopticSegmentation/x.py", "is no name of detectron2's model zoo"),
        ("Nothing/x.yaml", "model zoo has no 'Nothing/x.yaml'; name a panoptic one, e.g. COCO-PanopticSegmentation"),
        ("COCO-Detection/x.yaml", "is a GeneralizedRCNN for BGR; name a panoptic one"),
    ],
)
def test_other_models_are_refused(name: str, message: str, weights: Path, models: list[Model]) -> None:
    with pytest.raises(SegmenterError, match=message):
        built(weights, ZOO_CONFIG=name)


class Harmful:
    """Runs a command when it is unpickled by a reader that lets it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.trace)!r}, 'w')",)


def test_weights_of_every_kind_are_read_and_run_nothing(weights: Path, models: list[Model], tmp_path: Path) -> None:
    tensors = {"scale": torch.tensor([2.0, 3.0])}
    torch.save({"model": tensors, "iteration": 5}, tmp_path / "model_final.pth")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "new.pkl").write_bytes(pickle.dumps({"model": {"scale": np.array([2, 3], np.float32)}}))
    for name in ("model_final.pth", "model.safetensors", "new.pkl"):
        built(tmp_path / name)
        assert models[-1].scale.tolist() == [2, 3]
    for name, content in (
        ("a.pkl", pickle.dumps({"model": {"scale": Harmful(tmp_path / "trace")}})),
        ("b.pkl", pickle.dumps(Harmful(tmp_path / "trace"), protocol=2)),
        ("c.pkl", weights.read_bytes()[:-40]),
        ("d.pkl", b"junk"),
        ("e.pkl", pickle.dumps([1, 2])),
        ("f.pkl", pickle.dumps({"model": {"scale": np.array(["x"], object)}})),
        ("g.pth", b"junk"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SegmenterError, match=f"{name} cannot be read as weights"):
            built(tmp_path / name)
    torch.save({"model": Harmful(tmp_path / "trace")}, tmp_path / "h.pth")
    with pytest.raises(SegmenterError, match="cannot be read as weights"):
        built(tmp_path / "h.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "scale is missing"),
        ({"scale": np.ones(2), "surprise": np.ones(1)}, "surprise is unknown"),
        ({"scale": np.ones(3)}, r"has other shapes than SEGMENTER.ZOO_CONFIG .*scale"),
    ],
)
def test_weights_of_another_model_are_refused(
    arrays: dict[str, Any], message: str, models: list[Model], tmp_path: Path
) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(SegmenterError, match=message):
        built(tmp_path / "x.pkl")
    with pytest.raises(SegmenterError, match="is no file; detectron2 takes the weights of SEGMENTER.ZOO_CONFIG"):
        built(tmp_path / "none.pkl")


def test_scores_that_are_not_finite_are_no_empty_map(
    weights: Path, models: list[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Model.forward

    def broken(self: Model, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**output, "sem_seg": torch.full((2, 6, 9), float("nan"))} for output in forward(self, batch)]

    monkeypatch.setattr(Model, "forward", broken)
    with pytest.raises(SegmenterError, match=r"image p\.jpg: the segmenter's scores are not finite"):
        built(weights).segment([image(6, 9)], (6, 9))
