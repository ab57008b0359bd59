"""A stand-in for detectron2: just what is used of it, with a model that shows what it was given."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modeling.segmenters.coco import COCO_PANOPTIC

THINGS = [category.name for category in COCO_PANOPTIC if category.is_thing]
# as the library shortens them: with "-stuff", without the other suffixes
STUFF = ["things"] + [
    category.name.replace("-other", "").replace("-merged", "") for category in COCO_PANOPTIC if not category.is_thing
]


class Model(nn.Module):
    """Cuts an image into a person (left), the class 'things' (middle), sky (right), and a cup in its upper left pixel.

    All are found by the brightness that the caller put there; nothing else of an image matters.
    """

    def __init__(self, settings: Any) -> None:
        super().__init__()
        self.settings = settings
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1), persistent=False)
        self.batches: list[list[dict[str, Any]]] = []

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert not self.training
        assert len({tuple(item["image"].shape) for item in batch}) == 1
        self.batches.append(batch)
        return [{"panoptic_seg": self._panoptic(item)} for item in batch]

    def _panoptic(self, item: dict[str, Any]) -> tuple[Tensor, list[dict[str, Any]]]:
        height, width = item["height"], item["width"]
        columns = torch.arange(width) * 3 // width
        ids = (columns + 2).expand(height, width).clone().int()
        ids[0, 0] = 1
        return ids, [
            {"id": 1, "isthing": True, "category_id": THINGS.index("cup"), "score": 0.75, "instance_id": 3},
            {"id": 2, "isthing": True, "category_id": 0, "score": 0.5, "instance_id": 1},
            {"id": 3, "isthing": False, "category_id": 0, "area": 9},
            {"id": 4, "isthing": False, "category_id": STUFF.index("sky"), "area": 9},
        ]


class ResizeShortestEdge:
    """The library's rule, written again."""

    def __init__(self, short: list[int], longest: int) -> None:
        self.short, self.longest = short[0], longest

    def get_transform(self, image: np.ndarray[Any, Any]) -> Any:
        sides = np.array(image.shape[:2]) * self.short / min(image.shape[:2])
        sides = sides * min(1, self.longest / max(sides))
        height, width = (int(side + 0.5) for side in sides)
        return SimpleNamespace(apply_image=lambda pixels: np.asarray(Image.fromarray(pixels).resize((width, height))))


def settings(name: str) -> Any:
    panoptic = name.startswith("COCO-Panoptic")
    if not panoptic and not name.startswith("COCO-Detection"):
        raise RuntimeError(f"{name} not available in Model Zoo!")
    return SimpleNamespace(
        MODEL=SimpleNamespace(
            META_ARCHITECTURE="PanopticFPN" if panoptic else "GeneralizedRCNN",
            DEVICE="cuda",
            ROI_HEADS=SimpleNamespace(SCORE_THRESH_TEST=0.05),
            PANOPTIC_FPN=SimpleNamespace(
                COMBINE=SimpleNamespace(INSTANCES_CONFIDENCE_THRESH=0.5, OVERLAP_THRESH=0.5),
            ),
        ),
        DATASETS=SimpleNamespace(TEST=("coco_2017_val_panoptic_separated",)),
        INPUT=SimpleNamespace(FORMAT="BGR", MIN_SIZE_TEST=24, MAX_SIZE_TEST=40),
    )


def install(monkeypatch: pytest.MonkeyPatch, things: list[str] = THINGS, stuff: list[str] = STUFF) -> list[Model]:
    """Put the stand-in where the library is looked for; the models that it will build."""
    built: list[Model] = []

    def build_model(given: Any) -> Model:
        built.append(Model(given).train())
        return built[-1]

    catalogue = {"coco_2017_val_panoptic_separated": SimpleNamespace(thing_classes=things, stuff_classes=stuff)}
    parts: dict[str, dict[str, Any]] = {
        "detectron2": {"model_zoo": SimpleNamespace(get_config=settings)},
        "detectron2.data": {"MetadataCatalog": catalogue},
        "detectron2.data.transforms": {"ResizeShortestEdge": ResizeShortestEdge},
        "detectron2.modeling": {"build_model": build_model},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return built
