"""What the first CoLLaVO release, and projects built on its code, call things: keys that mean nothing here, classes.

Its ``collavo_eval.yaml`` came from X-Decoder's training code, and most of it was read by nothing. Such keys are no
mistakes here: they are named once, with what does their work. Source: ByungKwanLee/CoLLaVO at fb419fad, and MoAI's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from configs.load import DeadKey

_NOTHING = ""
_KEYS: Mapping[str, str] = {
    "OPTIMIZER": "TRAIN",
    "SOLVER": "TRAIN",
    "LR_SCHEDULER_PARAMS": "TRAIN",
    "GRADIENT_ACCUMULATE_STEP": "TRAIN.BATCH_SIZE",
    "GRAD_CUM": "TRAIN.BATCH_SIZE",
    "LOG_EVERY": "TRAIN.LOG_EVERY",
    "EVAL_AT_START": "TRAIN.EVAL_EVERY",
    "EVAL_PER_UPDATE_NUM": "TRAIN.EVAL_EVERY",
    "RESET_DATA_LOADER": "RESUME",
    "LLM.LOAD_LLM": "WEIGHT",
    "LLM.GRAD_CKPT": "TRAIN.GRADIENT_CHECKPOINTING",
    "LLM.LORA": "TRAIN.STAGE and LORA",
    "LLM.TEMPERATURE": _NOTHING,
    "FP16": "LLM.DTYPE",
    "ATTENTION_ARCH": "the checkpoint's config.json",
    "STROKE_SAMPLER": _NOTHING,
    "INPUT": "the checkpoint's config.json",
    "DATALOADER": "EVAL.WORKERS and TRAIN.WORKERS",
    "DATASETS.TRAIN": "DATA",
    "DATASETS.SIZE_DIVISIBILITY": _NOTHING,
    "DATASETS.PROPOSAL_FILES_TRAIN": _NOTHING,
    "DATASETS.PROPOSAL_FILES_TEST": _NOTHING,
    "DATASETS.CLASS_CONCAT": _NOTHING,
    "SHAREGPT": "DATA.CONVERSATIONS",
    "SHAREGPT4V": "DATA.CONVERSATIONS",
    "INSTP": "DATA.CONVERSATIONS",
    "COCO": "DATA.PANOPTIC",
    "VLP": _NOTHING,
    "REF": "REFCOCO",
    "TEMPERATURE": _NOTHING,
    "TOP_P": _NOTHING,
    "VERBOSE": _NOTHING,
    "CUDA": _NOTHING,
    "PORT": "accelerate's --main_process_port",
    "FIND_UNUSED_PARAMETERS": _NOTHING,
    "LANGUAGE_CACHE": _NOTHING,
    "TRAINER": "TRAIN.STAGE",
    "BASENAME": "NAME",
    "base_path": _NOTHING,
}
_OF_MODEL = (
    *("BACKBONE", "DECODER", "DIM_PROJ", "ENCODER", "HEAD", "KEYPOINT_ON", "LOAD_PROPOSALS", "MASK_ON", "TEXT"),
    *("META_ARCHITECTURE", "PIXEL_MEAN", "PIXEL_STD", "PRETRAINED", "SEM_SEG_HEAD", "WEIGHTS"),
)
"""Keys below ``MODEL`` that describe X-Decoder."""
_OF_BENCHMARKS: Mapping[str, str] = {
    "INPUT": "the checkpoint's config.json",
    "DATALOADER": "EVAL.WORKERS",
    "DATASET": "the benchmark's declaration",
    "TRAIN": "DATA",
    **{f"TEST.{name}": "the search, which draws nothing" for name in ("TEMPERATURE", "TOP_P", "DO_SAMPLE")},
    **{
        f"TEST.{name}": _NOTHING
        for name in ("NAME", "IOU_TYPE", "USE_MULTISCALE", "MODEL_FILE", "AUG", "DETECTIONS_PER_IMAGE")
    },
}
_UNREAD = ("NUM_BEAMS", "MAX_NEW_TOKENS")
"""Keys that the release's files set and its pipelines did not read; they had the paper's numbers in their code."""
_SIGNS = {"TEMPERATURE", "TOP_P"}
"""Keys next to those, which only files of the release have."""

CLASSES: Mapping[str, str] = {"HallusionBenchPipeline": "CoLLaVOHallusionPipeline"}
"""Pipeline classes of the release that have another name here."""
COMMON_CLASSES = ("CoLLaVOPipeline", "MoAIPipeline")
"""Classes that its files name where no benchmark is chosen yet; here the dataset decides."""
OTHER_SPLITS: Mapping[str, str] = {
    "mmbench_test": "mmbench",
    "mmbench_test_cn": "mmbench_cn",
    "qbench_test": "qbench_dev",
    "mathvista_test": "mathvista_testmini",
}
"""Datasets that the release could ask but not score, and those with public answers."""


def dead_key(key: str, beside: Collection[str], sections: Collection[str]) -> DeadKey | None:
    """Recognise a key of the release that means nothing here.

    Args:
        key: dotted.
        beside: names in the same section of a file; empty for an override.
        sections: of the benchmarks.
    """
    parts = key.split(".")
    if parts[0] == "MODEL" and parts[1:2] and parts[1] in _OF_MODEL:
        return DeadKey(name=key, instead="the checkpoint's config.json, and SEGMENTER")
    for length in range(1, len(parts) + 1):
        start = ".".join(parts[:length])
        if start in _KEYS and start not in sections:
            return DeadKey(name=key, instead=_KEYS[start])
    if parts[0] not in sections:
        return None
    for length in range(2, len(parts) + 1):
        rest = ".".join(parts[1:length])
        if rest in _OF_BENCHMARKS:
            return DeadKey(name=f"<benchmark>.{rest}", instead=_OF_BENCHMARKS[rest])
    if parts[1:-1] == ["TEST"] and parts[-1] in _UNREAD and _SIGNS & set(beside):
        return DeadKey(
            name=f"<benchmark>.TEST.{parts[-1]} (next to TEMPERATURE)",
            instead="the benchmark's declaration, or the same key among --overrides",
        )
    return None


def dead_keys_line(place: str, dead: Iterable[DeadKey]) -> str:
    """One line on the dead keys of a file.

    Args:
        place: the file.
        dead: what it sets; keys of several benchmarks are named once.
    """
    by_instead: dict[str, list[str]] = {}
    for name, instead in dict.fromkeys((d.name, d.instead) for d in dead):
        by_instead.setdefault(instead, []).append(name)
    nothing = by_instead.pop(_NOTHING, [])
    words = [f"{', '.join(names)} (see {instead})" for instead, names in by_instead.items()]
    if nothing:
        words.append(f"{', '.join(nothing)} (nothing takes their place)")
    return f"{place}: keys of the released code that do nothing here: {'; '.join(words)}"


def dead_key_notes(dead: Mapping[str, Sequence[DeadKey]]) -> tuple[str, ...]:
    """See `dead_keys_line`; one line a file."""
    return tuple(dead_keys_line(place, found) for place, found in dead.items())
