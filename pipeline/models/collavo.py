"""CoLLaVO as what answers: known by its settings and files from the start, loaded when there is something to ask."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from collavo.checkpoint.location import locate
from collavo.checkpoint.settings import ModelSettings, settings_for

from ..runtime.console import LoadingBar, duration, say, warn
from ..runtime.errors import RunError
from ..runtime.launch import is_main

if TYPE_CHECKING:
    import torch

    from collavo.checkpoint.examine import ExaminedCheckpoint
    from collavo.engine import Engine, Generation, Query, Reply
    from collavo.images import ImagePreparer, MapWatcher, PreparedImage
    from modeling.image import DecodedImage
    from modeling.segmenters.base import Segmenter
    from modeling.segmenters.errors import SegmenterError

    from ..config import EvalConfig


class CoLLaVOSource:
    """The engine that a configuration describes, see `EngineSource`.

    Args:
        config: ``MODEL``, ``LLM``, ``CRAYON``, ``SEGMENTER`` and ``WEIGHT`` count; what it leaves open is as the
            checkpoint says.
        device: where model and segmenter run.
    """

    def __init__(self, config: EvalConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._settings: ModelSettings | None = None
        self._examined: ExaminedCheckpoint | None = None
        self._segmenter: Segmenter | None = None
        self._engine: Engine | None = None
        self._weights = ""
        self._known: Future[None] | None = None
        self._loading: Future[None] | None = None
        self._stopped, self._made = threading.Event(), threading.Event()
        self._images: ImagePreparer | None = None
        self._begun, self._ready = 0.0, False

    @contextmanager
    def loading_ahead(self) -> Iterator[None]:
        """Load the engine in a thread of its own, see `LoadsAhead`.

        While a model is made, before its weights are read, the process's default dtype is that of its weights, and
        nothing may compute: `EngineAhead.prepare` waits for the end of that, and `segmenter` for that of the loading.
        """
        self._stopped.clear()
        self._made.clear()
        self._begun, self._ready = time.monotonic(), self._engine is not None
        with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            self._known, self._loading = pool.submit(self._find_out), pool.submit(self._load)
            try:
                yield
            finally:
                self._stopped.set()
                self._loading.cancel()
                self._made.set()  # or what prepares images would wait for a loading that never began
        self._known = self._loading = None
        self._stopped.clear()

    def _find_out(self) -> None:
        """Look at what is known before the weights are read: settings, checkpoint, segmenter."""
        from collavo.images import ImagePreparer

        processor, crayon = self._examine().processor, self.settings().crayon
        self._images = ImagePreparer(processor, self._build_segmenter(), crayon, self._device)

    def _wait_known(self) -> None:
        """Wait for what another thread finds out.

        Raises:
            CheckpointError, SegmenterError: see `parts`.
        """
        if self._known is not None:
            self._known.result()

    def parts(self) -> Mapping[str, Any]:
        """Identity of checkpoint, compute type, template and segmenter; the checkpoint is examined first.

        Raises:
            CheckpointError: it is unreadable, or its parts do not fit, or the configuration contradicts it.
            SegmenterError: the segmenter cannot be built.
        """
        from collavo.load_collavo import engine_identity

        self._wait_known()
        config, settings = self._config, self.settings()
        checkpoint = self._examine().described.folder
        segmenter = self._build_segmenter().fingerprint
        identity = engine_identity(config.LLM, checkpoint, weight=config.WEIGHT, segmenter=segmenter, settings=settings)
        return {**json.loads(identity), "profile": config.profile.parts()}

    def settings(self) -> ModelSettings:
        """How the checkpoint is asked; what a user should know of it is said once, on the main process.

        Raises:
            CheckpointError: it is unreadable, or the configuration contradicts it.
        """
        if self._settings is None:
            config = self._config
            self._settings = settings_for(locate(config.RESUME_FROM), config.CRAYON, config.SEGMENTER)
            if is_main(os.environ):
                for note in self._settings.notes:
                    warn(note)
        return self._settings

    def _examine(self) -> ExaminedCheckpoint:
        """Find out, once, whether the checkpoint can be loaded."""
        from collavo.checkpoint.examine import examine_checkpoint

        if self._examined is None:
            self._examined = examine_checkpoint(locate(self._config.RESUME_FROM), self.settings().template)
        return self._examined

    def weights(self) -> str:
        """What memory the model will take; "" once it is loaded, or while another thread loads it.

        The main process counts caches and activations too, of 18 questions on an image, 3 beams and 128 tokens.
        """
        if self._engine is not None or self._loading is not None:
            return ""
        return self._size()

    def _size(self) -> str:
        """The weights and what memory they need, in words; counted once."""
        if not self._weights:
            self._weights = self._describe_weights()
        return self._weights

    def _describe_weights(self) -> str:
        from collavo.load_collavo import size_in_memory

        llm = self._config.LLM
        size = size_in_memory(llm, self._examine())
        bits = f"large weights in {llm.BITS} bit, " if llm.BITS in (4, 8) else ""
        kind = "" if self._config.WEIGHT else "random weights (WEIGHT False) of the sizes in "
        said = f"loading {kind}{self._config.RESUME_FROM}: {bits}{llm.DTYPE}, {in_words(size)} for the weights"
        return f"{said} on each process{self._describe_caches(size)}" if is_main(os.environ) else said

    def _describe_caches(self, weights: int) -> str:
        from collavo.budget import free_memory
        from collavo.load_collavo import working_memory
        from collavo.search import Generation

        device, generation = self._device, Generation(num_beams=3, max_new_tokens=128)
        working = working_memory(self._config.LLM, self._examine(), device.type, generation)
        return (
            f", {in_words(working)} for caches and activations (18 questions on an image, 3 beams, 128 tokens): "
            f"{in_words(weights + working)} in all, {in_words(free_memory(device))} are free"
        )

    def engine(self) -> Engine:
        """Load it, once; the main process shows how far the weights are."""
        if self._loading is not None and not self._ready:
            self._loading.result()
            self._ready = True
            if is_main(os.environ):
                say(f"model ready after {duration(time.monotonic() - self._begun)}")
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def engine_ahead(self) -> Engine | EngineAhead:
        """See `pipeline.base.LoadsAhead`."""
        self._wait_known()
        if self._loading is None or self._loading.done() or self._images is None:
            return self.engine()
        return EngineAhead(self._images, self._device, self._made, self.engine)

    def _load(self) -> None:
        """What the other thread does with the weights."""
        try:
            self._wait_known()
            if self._engine is not None:
                return
            if is_main(os.environ):
                say(self._size())
            if self._device.type == "cuda":
                import torch

                torch.cuda.set_device(self._device)  # each thread has its own
            self._engine = self._make_engine()
        finally:
            self._made.set()

    def _make_engine(self) -> Engine:
        from collavo.load_collavo import load_engine

        config, settings, examined = self._config, self.settings(), self._examine()
        segmenter = self._build_segmenter()
        with LoadingBar(shown=is_main(os.environ)) as bar:

            def show(done: int, total: int) -> None:
                if self._stopped.is_set():
                    raise RunError("the loading of the weights was stopped: the run has ended")
                self._made.set()  # weights are put into it now
                bar.show(done, total)

            return load_engine(
                config.LLM,
                config.RESUME_FROM,
                segmenter,
                self._device,
                weight=config.WEIGHT,
                template=settings.template,
                crayon=settings.crayon,
                examined=examined,
                progress=show,
                most_questions=config.EVAL.MAX_BATCH,
                images=self._images,
            )

    def segmenter(self) -> Segmenter:
        """Build it, once. It needs no checkpoint, but where one is named it is the one that this was trained with."""
        self._wait_known()
        if self._loading is not None:
            wait([self._loading])
        return self._build_segmenter()

    def _build_segmenter(self) -> Segmenter:
        from .map_cache import cached_segmenter

        if self._segmenter is None:
            config = self.settings().segmenter if self._config.RESUME_FROM else self._config.SEGMENTER
            self._segmenter = cached_segmenter(config, self._device)
        return self._segmenter


class EngineAhead:
    """An engine whose weights are still read: it decodes and segments the first images, and waits to be asked.

    Args:
        images: prepares them; the engine goes on with it.
        device: where it does so.
        made: set once the model is made and its weights are read.
        engine: waits for it, or raises what is wrong with it.
    """

    def __init__(
        self, images: ImagePreparer, device: torch.device, made: threading.Event, engine: Callable[[], Engine]
    ) -> None:
        self._images, self._device, self._made, self._engine = images, device, made, engine

    @property
    def image_size(self) -> int:
        """See `Engine`."""
        return self._images.image_size

    @property
    def on_map(self) -> MapWatcher | None:
        """See `Engine`."""
        return self._images.on_map

    @on_map.setter
    def on_map(self, watcher: MapWatcher | None) -> None:
        self._images.on_map = watcher

    def wait(self) -> None:
        """See `pipeline.base.AwaitedAnswerer`."""
        self._engine()

    def prepare(self, images: Sequence[DecodedImage], *, features: bool = True) -> list[PreparedImage | SegmenterError]:
        """See `Engine.prepare`; without features until the engine is there."""
        self._made.wait()
        return self._images.prepare(images, features=features)

    def fixed_threads(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        from modeling.threads import one_thread

        return one_thread(self._device)

    def answer(self, queries: Sequence[Query], generation: Generation) -> list[Reply]:
        """See `Engine`."""
        return self._engine().answer(queries, generation)


def in_words(size: int) -> str:
    """A number of bytes as ``6.54 GB`` or ``0.3 MB``."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
