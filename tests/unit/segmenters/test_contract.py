"""What every segmenter backend must do; a new one needs a case here."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from modeling.image import DecodedImage
from modeling.segmenters import backends, build_segmenter
from modeling.segmenters.base import Segmenter
from modeling.segmenters.coco import COCO_PANOPTIC
from modeling.segmenters.errors import SegmenterError
from modeling.segmenters.options import SegmenterConfig
from tests.unit.segmenters.tiny_mask2former import save_tiny_mask2former
from tests.unit.segmenters.tiny_xdecoder import save_tiny_xdecoder

NETWORKS = sorted({*backends()} - {"none", "precomputed"})
"""Backends that look at pixels."""
SIZES = [(64, 64), (1, 90), (90, 1), (200, 40)]
pytestmark = pytest.mark.slow  # networks of all backends


def decoded_images() -> list[DecodedImage]:
    rng = np.random.default_rng(0)
    return [DecodedImage(rng.integers(0, 256, (*s, 3), np.uint8), f"p{i}.jpg") for i, s in enumerate(SIZES)]


@pytest.fixture(scope="module")
def tiny_mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask2Former of a few thousand weights, saved as any checkpoint is."""
    return save_tiny_mask2former(tmp_path_factory.mktemp("mask2former"))


@pytest.fixture(scope="module")
def tiny_xdecoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An X-Decoder of some thousand weights that keeps the embeddings of COCO panoptic's classes."""
    return save_tiny_xdecoder(tmp_path_factory.mktemp("xdecoder"))


def detectron2_weights(folder: Path) -> Path:
    """Random weights of the zoo's smallest panoptic model that find some stuff; skips without the library."""
    pytest.importorskip("detectron2", reason="detectron2 is not installed; it has to be built from its sources")
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    file = folder / "panoptic_fpn.pth"
    if not file.is_file():
        settings = model_zoo.get_config(SegmenterConfig().ZOO_CONFIG)
        settings.MODEL.DEVICE = "cpu"
        torch.manual_seed(0)
        model = build_model(settings)
        torch.nn.init.constant_(model.sem_seg_head.predictor.bias[5], 9.0)
        torch.save({"model": model.state_dict()}, file)
    return file


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what takes long to make."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def cases(
    tiny_mask2former: Path, tiny_xdecoder: Path, kept: Path, tmp_path: Path
) -> dict[str, Callable[[], SegmenterConfig]]:
    def precomputed() -> SegmenterConfig:
        images, annotations = [], []
        for number, decoded in enumerate(decoded_images()):
            stem = Path(decoded.name).stem
            ids = np.zeros(decoded.pixels.shape[:2], np.uint8)
            ids[: (len(ids) + 1) // 2] = 9
            Image.fromarray(np.stack([ids, ids * 0, ids * 0], -1)).save(tmp_path / f"{stem}.png")
            images.append({"id": number, "file_name": decoded.name})
            infos = [{"id": 9, "category_id": 1}, {"id": 77, "category_id": 187}]
            annotations.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": infos})
        categories = [{"id": c.id, "name": c.name} for c in COCO_PANOPTIC]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "panoptic.json").write_text(json.dumps(content))
        return SegmenterConfig(NAME="precomputed", PATH=str(tmp_path / "panoptic.json"), IMAGES=str(tmp_path))

    return {
        "detectron2": lambda: SegmenterConfig(NAME="detectron2", PATH=str(detectron2_weights(kept))),
        "mask2former": lambda: SegmenterConfig(PATH=str(tiny_mask2former), THRESHOLD=0.02, MASK_THRESHOLD=0.02),
        "none": lambda: SegmenterConfig(NAME="none"),
        "precomputed": precomputed,
        "xdecoder": lambda: SegmenterConfig(
            NAME="xdecoder", PATH=str(tiny_xdecoder), THRESHOLD=0.1, MASK_THRESHOLD=0.05, SHORT_SIDE=32, LONG_SIDE=96
        ),
    }


def test_every_backend_has_a_case(cases: dict[str, Callable[[], SegmenterConfig]]) -> None:
    assert sorted(cases) == backends()


@pytest.mark.parametrize("name", backends())
@pytest.mark.parametrize("size", [(35, 35), (5, 8), (1, 1)])
def test_contract(name: str, size: tuple[int, int], cases: dict[str, Callable[[], SegmenterConfig]]) -> None:
    segmenter: Segmenter = build_segmenter(cases[name]())
    maps = segmenter.segment(decoded_images(), size)
    assert len(maps) == len(SIZES)
    assert segmenter.segment([], size) == []
    for panoptic in maps:
        assert panoptic.id_map.shape == size
        assert panoptic.id_map.dtype == np.int32
        assert [s.id for s in panoptic.segments] == list(range(1, len(panoptic.segments) + 1))
        assert set(np.unique(panoptic.id_map)) - {0} == {s.id for s in panoptic.segments}
        assert all(0 <= s.category_id < 133 and 0 <= s.score <= 1 for s in panoptic.segments)
    alone = [segmenter.segment([decoded], size)[0] for decoded in reversed(decoded_images())][::-1]
    assert all(np.array_equal(a.id_map, b.id_map) for a, b in zip(maps, alone, strict=True))
    assert build_segmenter(cases[name]()).fingerprint == segmenter.fingerprint
    if name != "none":
        assert any(panoptic.segments for panoptic in maps), "maps that are all empty prove little"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("block", [1, 3])
def test_no_map_depends_on_its_company(name: str, block: int, cases: dict[str, Callable[[], SegmenterConfig]]) -> None:
    """In float32, to the last bit of the scores: for any batch, any order, and blocks that are filled up."""
    segmenter: Any = build_segmenter(cases[name]())
    segmenter.block = block
    rng = np.random.default_rng(7)
    sizes = [*SIZES, (64, 64), (40, 64), (64, 64), (64, 40)]
    images = [DecodedImage(rng.integers(0, 256, (*s, 3), np.uint8), f"i{number}.jpg") for number, s in enumerate(sizes)]
    alone = [segmenter.segment([image], (35, 35))[0] for image in images]
    for size in (2, 3, len(images)):
        order = rng.permutation(len(images)).tolist()
        for start in range(0, len(order), size):
            part = order[start : start + size]
            for index, panoptic in zip(part, segmenter.segment([images[i] for i in part], (35, 35)), strict=True):
                assert np.array_equal(panoptic.id_map, alone[index].id_map)
                assert panoptic.segments == alone[index].segments
    assert any(panoptic.segments for panoptic in alone), "maps that are all empty prove little"


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_no_colour_image_is_named(name: str, cases: dict[str, Callable[[], SegmenterConfig]]) -> None:
    segmenter = build_segmenter(cases[name]())
    for shape, dtype in (((9, 9), np.uint8), ((9, 9, 4), np.uint8), ((9, 9, 3), np.float32), ((0, 9, 3), np.uint8)):
        with pytest.raises(SegmenterError, match=r"image odd\.png.*(expected RGB pixels|an image of 0x9)"):
            segmenter.segment([DecodedImage(np.zeros(shape, dtype), "odd.png")], (5, 5))


@pytest.mark.parametrize("name", ["mask2former", "xdecoder"])
def test_scores_that_are_not_finite_are_no_empty_map(
    name: str, cases: dict[str, Callable[[], SegmenterConfig]], tmp_path: Path
) -> None:
    config = cases[name]()
    shutil.copytree(config.PATH, tmp_path / "broken")
    tensors = load_file(tmp_path / "broken" / "model.safetensors")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and "norm" in key and key.endswith("weight"):
            tensor[:] = 3e38  # finite, but not what follows
    save_file(tensors, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    segmenter = build_segmenter(replace(config, PATH=str(tmp_path / "broken")))
    with pytest.raises(SegmenterError, match=r"image p0\.jpg: the segmenter's scores are not finite"):
        segmenter.segment(decoded_images()[:1], (5, 5))


def test_fingerprint_follows_thresholds(tiny_mask2former: Path) -> None:
    made = [
        build_segmenter(SegmenterConfig(PATH=str(tiny_mask2former), THRESHOLD=t)).fingerprint
        for t in (None, 0.5, 0.6, 0.60000001)
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_fingerprint_follows_every_weight_and_the_image_preparation(tiny_mask2former: Path, tmp_path: Path) -> None:
    """One number of one tensor, wherever it stands, and the size that images are resized to; not the folder."""

    def fingerprint(folder: str, change: Callable[[Path], None] = lambda folder: None) -> str:
        shutil.copytree(tiny_mask2former, tmp_path / folder)
        change(tmp_path / folder)
        return build_segmenter(SegmenterConfig(PATH=str(tmp_path / folder))).fingerprint

    def weight(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        longest = max(tensors.values(), key=lambda tensor: tensor.numel())
        longest.view(-1)[101] += 1e-3
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    def resized(folder: Path) -> None:
        file = folder / "preprocessor_config.json"
        file.write_text(file.read_text().replace('"height": 64', '"height": 96'))

    original = build_segmenter(SegmenterConfig(PATH=str(tiny_mask2former))).fingerprint
    assert fingerprint("copy") == original
    assert len({original, fingerprint("weight", weight), fingerprint("resized", resized)}) == 3


def test_other_classes_are_refused(tiny_mask2former: Path, tmp_path: Path) -> None:
    for file in tiny_mask2former.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["80"] = "flag"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SegmenterError, match="class 80 is 'flag', not 'banner'"):
        build_segmenter(SegmenterConfig(PATH=str(tmp_path)))


def test_what_cannot_be_built_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SegmenterError, match="no 'mask2fromer'; did you mean mask2former"):
        build_segmenter(SegmenterConfig(NAME="mask2fromer"))
    with pytest.raises(SegmenterError, match="cannot be loaded"):
        build_segmenter(SegmenterConfig(PATH=str(tmp_path)))
    with pytest.raises(SegmenterError, match="cannot be read"):
        build_segmenter(SegmenterConfig(NAME="precomputed", PATH=str(tmp_path / "no.json")))


def test_precomputed_names_images_without_a_map(
    cases: dict[str, Callable[[], SegmenterConfig]], tmp_path: Path
) -> None:
    segmenter = build_segmenter(cases["precomputed"]())
    stranger = DecodedImage(np.zeros((4, 4, 3), np.uint8), "stranger.jpg")
    with pytest.raises(SegmenterError, match=r"stranger\.jpg: .*has no panoptic map"):
        segmenter.segment([stranger], (5, 5))
    (tmp_path / "p0.png").write_bytes(b"no image")
    with pytest.raises(SegmenterError, match=r"p0\.jpg: panoptic map .*p0\.png cannot be read"):
        segmenter.segment(decoded_images()[:1], (5, 5))


def test_precomputed_samples_cell_centres(cases: dict[str, Callable[[], SegmenterConfig]]) -> None:
    panoptic = build_segmenter(cases["precomputed"]()).segment(decoded_images()[:1], (4, 2))[0]
    assert panoptic.id_map.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert [(s.category_id, s.score) for s in panoptic.segments] == [(0, 1.0)]
