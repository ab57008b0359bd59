"""Mask2Former's post-processing, against recorded results of the library version that the release used."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file

import modeling.segmenters.mask2former as mask2former
from modeling.segmenters.coco import COCO_PANOPTIC
from tests.fixtures import fixture_dir


def segmenter(threshold: float, mask_threshold: float) -> mask2former.Mask2FormerSegmenter:
    """Our class around the library's processor; no network is needed to post-process."""
    pillow, plain = "Mask2FormerImageProcessorPil", "Mask2FormerImageProcessor"
    kind = getattr(transformers, pillow if hasattr(transformers, pillow) else plain)
    labels = {index: category.name for index, category in enumerate(COCO_PANOPTIC)}
    model = SimpleNamespace(config=SimpleNamespace(id2label=labels))
    return mask2former.Mask2FormerSegmenter(model, kind(), threshold, mask_threshold, "golden")


def test_maps_and_segments_equal_the_recorded_ones() -> None:
    folder = fixture_dir("xdecoder")
    tensors = load_file(folder / "mask2former_postprocess.safetensors")
    cases: list[dict[str, Any]] = json.loads((folder / "mask2former_postprocess.json").read_text())
    compared = 0
    for case in cases:
        if case["label_ids_to_fuse"] or case["overlap_mask_area_threshold"] != 0.8:
            continue
        row = case["row"]
        outputs = SimpleNamespace(
            class_queries_logits=tensors[case["logits"]][row : row + 1],
            masks_queries_logits=tensors["masks_queries_logits"][row : row + 1],
        )
        ours = segmenter(case["threshold"], case["mask_threshold"]).post_process(outputs, tuple(case["target_size"]))[0]
        golden = tensors[case["key"]].numpy().astype(int)
        infos = [s for s in case["segments_info"] if (golden == s["id"]).any()]
        assert [s.category_id for s in ours.segments] == [s["label_id"] for s in infos], case["key"]
        assert [s.score for s in ours.segments] == pytest.approx([s["score"] for s in infos], abs=2e-6)
        for segment, info in zip(ours.segments, infos, strict=True):
            assert np.array_equal(ours.id_map == segment.id, golden == info["id"]), case["key"]
        assert (ours.id_map > 0).sum() == sum(int((golden == s["id"]).sum()) for s in infos)
        compared += 1
    assert compared >= 4
