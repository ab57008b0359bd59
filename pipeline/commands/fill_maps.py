"""``maps``: fill the cache of panoptic maps ahead of evaluations and training, on all processes.

accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py maps pope_test gqa_testdev_balanced
    --conf_files configs/collavo_step2.yaml

Images are prepared as the command that will ask for their maps does, so that it finds them: at the model's size, or
for a measure of the segmenter at their own. A map that is there is not made again, so the command can be repeated at
any time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from collavo.checkpoint.examine import DescribedCheckpoint, describe_checkpoint
from collavo.checkpoint.settings import settings_for
from collavo.checkpoint.sizes import Sizes
from configs.common.words import and_more
from configs.load import ConfigError
from datasets.roots import data_roots
from datasets.types import DataError, ImageFile, ImageSource
from modeling.image import DecodedImage
from modeling.segmenters import check_segmenter
from modeling.segmenters.base import Segmenter
from modeling.segmenters.coco_format import at_own_size
from modeling.segmenters.errors import SegmenterError

from ..benchmarks import select_pipeline
from ..declaration_file import ALL
from ..images import decode_image
from ..models.map_cache import OFF, CachedSegmenter, cached_segmenter, configured_cache, keeps_maps
from ..models.resolve import collavo_checkpoint
from ..run.plan import Plan, finish_trackers, make_session, run_guarded
from ..runtime.console import Progress, say, tell, warn
from ..runtime.errors import RunError
from ..runtime.files import check_folder
from ..runtime.launch import check_environment, device_of, is_main, start_accelerator
from ..runtime.session import AgreedError, Session

if TYPE_CHECKING:
    import torch

    from datasets.declaration import Benchmark

    from ..base import BenchmarkPipeline
    from ..catalog import Catalog
    from ..config import EvalConfig

TOGETHER = 16
"""Images that are segmented at a time, and lost to a kill."""
NAMED = 20
"""Images without a map that are named at the end."""

ReadImages = Callable[[], Sequence[ImageSource]]
"""Reads which images there are; may raise a DataError."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one kind whose maps are wanted.

    Attributes:
        name: of the benchmark, or of the command that asks for the maps.
        read: reads which images there are.
        own_size: whether maps have their images' own size, for a measure of the segmenter; else the model's.
        optional: whether the others are filled where its files are missing.
    """

    name: str
    read: ReadImages
    own_size: bool = False
    optional: bool = False


@dataclass(frozen=True)
class _Sizes:
    """Of the images that a model takes, in pixels, and of the maps that it asks for."""

    image: int
    map: int


@dataclass(frozen=True)
class _Job:
    """An image whose map is wanted; ``own_size`` as in `ImageSet`."""

    image: ImageSource
    own_size: bool


@dataclass(frozen=True)
class _Counts:
    """What a process has done: maps made and found, maps evicted meanwhile, and what failed."""

    made: int
    found: int
    evicted: int
    failed: list[str]


def benchmark_images(config: EvalConfig, catalog: Catalog, names: Sequence[str]) -> list[ImageSet]:
    """Images of benchmarks, each read as an evaluation would.

    Args:
        config: resolved; ``EVAL.LIMIT`` counts.
        catalog: of the declared benchmarks.
        names: as in ``DATASETS.TEST``.

    Raises:
        ConfigError: an unknown name.
        RunError: see `pipeline.benchmarks.select_pipeline`.
    """
    chosen = catalog.select(",".join(names)) if names else []
    return [
        ImageSet(
            name=benchmark.dataset,
            read=_reader(config, benchmark),
            own_size=benchmark.measures_maps,
            optional=ALL in names and benchmark.dataset not in names,
        )
        for benchmark in chosen
    ]


def _reader(config: EvalConfig, benchmark: Benchmark) -> ReadImages:
    pipeline: BenchmarkPipeline = select_pipeline(config.PIPELINE, config.declared(benchmark))

    def read() -> list[ImageSource]:
        records, _ = pipeline.load(data_roots(config.DATASETS.ROOT, os.environ))
        asked = pipeline.part(records, config.EVAL.LIMIT, config.EVAL.SEED)
        return [record.image for record in asked if record.image is not None]

    return read


def check_fill(config: EvalConfig) -> None:
    """Check what can be known before anything is loaded.

    Raises:
        ConfigError: maps are not kept with these settings.
        SegmenterError, CheckpointError, RunError: a segmenter, checkpoint or folder that does not serve.
    """
    segmenter = config.SEGMENTER
    if described := _checkpoint(config):
        segmenter = settings_for(described.folder, config.CRAYON, config.SEGMENTER).segmenter
    if not keeps_maps(segmenter):
        key, why = "NAME", f"{segmenter.resolved().NAME}: its maps need no cache"
        if segmenter.CACHE.strip().lower() in OFF:
            key, why = "CACHE", f"{segmenter.CACHE}: there is no cache to fill"
        raise ConfigError(f"SEGMENTER.{key} {why}")
    check_segmenter(segmenter)
    cache = configured_cache(segmenter, os.environ)
    if cache is None:
        raise RunError("SEGMENTER.CACHE: this user has no home folder; name one for the maps")
    check_folder("SEGMENTER.CACHE", cache.folder)


def _checkpoint(config: EvalConfig) -> DescribedCheckpoint | None:
    """The checkpoint of CoLLaVO that says how maps are made; None where none is named, or another model answers.

    Another model asks for no maps. Only measures of the segmenter need some then, for which no checkpoint counts.

    Raises:
        CheckpointError: it is missing or unreadable, or none of CoLLaVO.
    """
    if config.MODEL.NAME != "collavo" or not config.RESUME_FROM:
        return None
    return describe_checkpoint(collavo_checkpoint(config.RESUME_FROM), fresh_crayon=True)


def make_maps(config: EvalConfig, sets: Sequence[ImageSet]) -> int:
    """Make the maps that are not there yet.

    Args:
        config: resolved.
        sets: what is to be there afterwards.

    Returns: the exit code, see `pipeline.run.plan.run_plan`; 1 where an image has no map.
    """

    def work(folders: list[Path]) -> None:
        session = _join(config, [one.name for one in sets])
        jobs = session.together(lambda: _jobs(sets, session))
        segmenter, sizes = session.together(lambda: _build(config, device_of(session.accelerator), session))
        share = jobs[session.rank :: session.world]
        counts = session.gather(_fill_share(share, segmenter, sizes, config.EVAL.WORKERS, session))
        _report(counts, segmenter, config, session)
        finish_trackers(session.accelerator)
        failed = [reason for count in counts for reason in count.failed]
        if failed:
            lines = [*failed[:NAMED], and_more(len(failed), NAMED)]
            listed = "".join(f"\n  {line}" for line in lines if line)
            raise AgreedError(f"{len(failed)} of {len(jobs)} images have no map:{listed}")

    return run_guarded(work, "interrupted; the maps so far are kept, and the same command goes on from there")


def _join(config: EvalConfig, names: Sequence[str]) -> Session:
    """Join the processes.

    Raises:
        AgreedError: the launch cannot be served.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        check_environment(os.environ)
        if is_main(os.environ):
            say(f"maps of {', '.join(names)} with {world} process{'es' if world > 1 else ''}; loading libraries ...")
        accelerator = start_accelerator(config.EVAL.TIMEOUT_HOURS, None, os.environ)
    except RunError as error:
        raise AgreedError(str(error)) from None
    plan = Plan(config=replace(config, WANDB=False), tasks=[], roots=[])  # there is nothing to track
    return make_session(plan, accelerator)


def _jobs(sets: Sequence[ImageSet], session: Session) -> list[_Job]:
    """The images of all sets, each once.

    Raises:
        DataError: files of a set that is not optional cannot be read, or those of all.
    """
    jobs: dict[object, _Job] = {}
    missing: list[str] = []
    for one in sets:
        try:
            images = one.read()
        except DataError as error:
            if not one.optional:
                raise
            missing.append(f"{one.name}: {error}")
            continue
        for image in images:
            where = image.path if isinstance(image, ImageFile) else (one.name, image.name)
            jobs.setdefault((where, one.own_size), _Job(image, one.own_size))
    if missing and len(missing) == len(sets):
        raise DataError("no dataset can be read:\n" + "\n".join(missing))
    for line in missing if session.is_main else ():
        warn(f"left out: {line}")
    return list(jobs.values())


def _build(config: EvalConfig, device: torch.device, session: Session) -> tuple[CachedSegmenter, _Sizes]:
    """The segmenter, and the sizes at which the model will ask for maps: its checkpoint's, or else the released ones.

    Raises:
        CheckpointError, SegmenterError: one is unreadable.
    """
    settings, crayon, sizes = config.SEGMENTER, config.CRAYON, Sizes()
    if described := _checkpoint(config):
        asked = settings_for(described.folder, config.CRAYON, config.SEGMENTER)
        settings, crayon, sizes = asked.segmenter, asked.crayon, described.sizes
    side, grid = sizes.image_size, sizes.image_size // sizes.vision_config.patch_size
    if described is None and session.is_main:
        why = "RESUME_FROM names no checkpoint"
        if config.MODEL.NAME != "collavo":
            why = f"MODEL.NAME {config.MODEL.NAME} asks for no maps, these are for a CoLLaVO"
        say(f"{why}: images of {side} pixels and {grid} tokens a side, as the released one's")
    segmenter = cached_segmenter(settings, device)
    if not isinstance(segmenter, CachedSegmenter):
        raise TypeError(f"{settings.NAME} is not kept")  # excluded by `check_fill`
    return segmenter, _Sizes(image=side, map=grid * crayon.map_scale)


def _fill_share(
    jobs: Sequence[_Job], segmenter: CachedSegmenter, sizes: _Sizes, workers: int, session: Session
) -> _Counts:
    """Make this process's part of the maps.

    Raises:
        RunError: they cannot be kept.
    """
    from modeling.threads import one_thread

    failed: list[str] = []
    label = "maps" if session.world == 1 else f"maps (process 0 of {session.world})"
    cache = segmenter.cache
    with (
        one_thread(device_of(session.accelerator)),
        Progress(label, len(jobs), shown=session.is_main, unit="images") as progress,
    ):
        for part in _decoded(jobs, sizes, workers):
            good = []
            for job, future in part:
                try:
                    good.append((job, future.result()))
                except DataError as error:
                    failed.append(str(error))
            for own_size in (False, True):
                images = [image for job, image in good if job.own_size == own_size]
                failed += _segment(segmenter, images, None if own_size else sizes.map)
            if cache is None or not cache.writable:
                raise RunError("maps cannot be kept, as said above; those that were kept before are whole")
            progress.advance(len(part))
    return _Counts(segmenter.made, segmenter.found, cache.evicted if cache else 0, failed)


def _segment(segmenter: Segmenter, images: Sequence[DecodedImage], side: int | None) -> list[str]:
    """Have maps made of images, (side, side) or of their own size; returns why some have none."""
    if not images:
        return []
    try:
        if side is None:
            at_own_size(segmenter, images)
        else:
            segmenter.segment(images, (side, side))
    except SegmenterError as error:
        if len(images) == 1:
            return [str(error)]
        return [reason for image in images for reason in _segment(segmenter, [image], side)]
    return []


def _decoded(jobs: Iterable[_Job], sizes: _Sizes, workers: int) -> Iterator[list[tuple[_Job, Future[DecodedImage]]]]:
    """Yield images in parts that are segmented together, decoding the next part meanwhile."""
    ahead: deque[tuple[_Job, Future[DecodedImage]]] = deque()
    rest = iter(jobs)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(ahead) < 2 * TOGETHER and (job := next(rest, None)) is not None:
                    ahead.append((job, pool.submit(_decode, job, sizes)))
                if not ahead:
                    return
                yield [ahead.popleft() for _ in range(min(TOGETHER, len(ahead)))]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(job: _Job, sizes: _Sizes) -> DecodedImage:
    return decode_image(job.image, None if job.own_size else sizes.image)


def _report(counts: Sequence[_Counts], segmenter: CachedSegmenter, config: EvalConfig, session: Session) -> None:
    """Say, on the main process, what all of them did."""
    if not session.is_main or segmenter.cache is None:
        return
    made, found, evicted = (sum(getattr(count, name) for count in counts) for name in ("made", "found", "evicted"))
    failed = sum(len(count.failed) for count in counts)
    tell(f"maps: {made} made, {found} found, {failed} images without one; {segmenter.cache.folder}\n")
    if evicted:
        warn(
            f"{evicted} maps were evicted: SEGMENTER.CACHE_SIZE {config.SEGMENTER.CACHE_SIZE:g} GB is too small for "
            "all that is kept there"
        )
