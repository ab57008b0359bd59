"""Images ahead of the questions about them: decoded by some threads, prepared by another, while the engine answers.

What an engine prepares (segments, encodes) together is whatever has been decoded by then; nothing may depend on it.
What is wrong with one image is an error of the questions about it. At no time are more images held than the next few
batches need.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from configs.common.memory_errors import is_out_of_memory
from datasets.types import ImageSource
from modeling.image import DecodedImage
from modeling.segmenters.errors import SegmenterError

from ..base import Answerer, ImageReader
from ..images import decode_image
from .questions import Question

if TYPE_CHECKING:
    from collavo.images import PreparedImage

Ready: TypeAlias = "Future[DecodedImage | PreparedImage]"
"""An image that is on its way; its result raises what is wrong with it."""

AHEAD = 8
"""Images that are on their way besides those of the batch that is being answered, if batches are small."""
LONGEST = 64
"""Batches that this may reach over, where many questions have one image or none."""
TOGETHER = 16
"""Most images that are prepared at a time."""
ENCODED = 32
"""Images whose features may be held on the device; those of others are computed when they are asked about."""


@runtime_checkable
class PreparesImages(Protocol):
    """An engine that can work on images ahead of the questions about them, in another thread; see `Engine`."""

    def prepare(self, images: Sequence[DecodedImage], *, features: bool = True) -> list[PreparedImage | SegmenterError]:
        """Prepare images together; the error of an image that cannot be asked about."""

    def fixed_threads(self) -> AbstractContextManager[None]:
        """What is to be entered before several threads compute."""


class ImagesAhead:
    """Decodes and prepares the images of a process's batches; a context, with its threads.

    Args:
        answerer: says at which size it takes images, and prepares them if it can.
        workers: threads that decode, and how many batches they are ahead at least.
    """

    def __init__(self, answerer: Answerer, workers: int) -> None:
        self._read, self._workers = _reader(answerer), max(1, workers)
        self._engine = answerer if isinstance(answerer, PreparesImages) else None
        self._context = ExitStack()
        self._held: dict[str, Ready] = {}

    def __enter__(self) -> ImagesAhead:
        """Start the threads."""
        if self._engine is not None:
            self._context.enter_context(self._engine.fixed_threads())
            self._preparation = _Preparation(self._engine)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the threads; after an error without waiting for what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._engine is not None:
            self._preparation.close(wait=error is None)
        self._held.clear()
        self._context.close()

    def batches(self, todo: Iterable[list[Question]]) -> Iterator[tuple[list[Question], Mapping[str, Ready]]]:
        """Yield batches with their images by name, and work on those of the next ones meanwhile.

        An image is decoded and prepared once for all batches within reach, and let go when none needs it any more.

        Args:
            todo: drawn from as far ahead as `AHEAD`, `LONGEST` and the number of workers say.
        """
        window: deque[list[Question]] = deque()
        rest = iter(todo)
        while True:
            while self._reaches_further(window) and (batch := next(rest, None)) is not None:
                window.append(batch)
                for source in _sources([batch]):
                    if source.name not in self._held:
                        self._held[source.name] = self._begin(source)
            if not window:
                return
            batch = window.popleft()
            yield batch, self._held
            needed = {source.name for source in _sources([batch, *window])}
            self._held = {name: ready for name, ready in self._held.items() if name in needed}

    def _reaches_further(self, window: Sequence[list[Question]]) -> bool:
        if len(window) <= self._workers:
            return True
        if self._engine is None or len(window) > LONGEST:
            return False
        return len({s.name for s in _sources(window)} - {s.name for s in _sources([window[0]])}) < AHEAD

    def _begin(self, source: ImageSource) -> Ready:
        decoded: Future[DecodedImage] = self._pool.submit(self._read, source)
        if self._engine is None:
            return decoded  # type: ignore[return-value]  # futures are only read here
        return self._preparation.submit(decoded, features=len(self._held) < ENCODED)


@dataclass(frozen=True)
class _Waiting:
    """An image that is to be prepared."""

    decoded: Future[DecodedImage]
    features: bool
    ready: Ready = field(default_factory=Future)

    def settle(self, result: DecodedImage | PreparedImage | BaseException) -> None:
        if isinstance(result, BaseException):
            self.ready.set_exception(result)
        else:
            self.ready.set_result(result)


class _Preparation:
    """The thread that prepares images, those together that have been decoded.

    Args:
        engine: prepares them.
    """

    def __init__(self, engine: PreparesImages) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()

    def submit(self, decoded: Future[DecodedImage], *, features: bool) -> Ready:
        """Have an image prepared as soon as it is decoded."""
        item = _Waiting(decoded, features)
        with self._lock:
            self._waiting.append(item)
        self._pool.submit(self._work)  # as many calls as images; those that find none left do nothing
        return item.ready

    def close(self, *, wait: bool) -> None:
        """End the thread."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _work(self) -> None:
        good: list[tuple[_Waiting, DecodedImage]] = []
        for item in self._together():
            try:
                good.append((item, item.decoded.result()))
            except BaseException as error:  # noqa: BLE001 - raised again for whoever asks about this image
                item.settle(error)
        if not good:
            return
        try:
            results = self._engine.prepare([image for _, image in good], features=good[0][0].features)
        except BaseException as error:  # noqa: BLE001 - raised again for whoever asks about one of these images
            for item, image in good:
                # where memory is short now, the engine prepares it when its turn has come
                item.settle(image if is_out_of_memory(error) else error)
            return
        for (item, _), result in zip(good, results, strict=True):
            item.settle(result)

    def _together(self) -> list[_Waiting]:
        """The image that has waited for longest, once it is decoded, and those after it that are decoded as well."""
        with self._lock:
            if not self._waiting:
                return []
            found = [self._waiting.popleft()]
        found[0].decoded.exception()  # waits
        with self._lock:
            while self._waiting and len(found) < TOGETHER and self._goes_with(found[0], self._waiting[0]):
                found.append(self._waiting.popleft())
        return found

    @staticmethod
    def _goes_with(first: _Waiting, other: _Waiting) -> bool:
        return other.decoded.done() and other.features == first.features


def _sources(batches: Iterable[list[Question]]) -> list[ImageSource]:
    return [question.image for batch in batches for question in batch if question.image is not None]


def _reader(answerer: Answerer) -> Callable[[ImageSource], DecodedImage]:
    """How an engine's images are read."""
    if isinstance(answerer, ImageReader):
        return answerer.read_image
    size = answerer.image_size
    return lambda source: _decode(source, size)


def _decode(source: ImageSource, size: int | None) -> DecodedImage:
    """Decode an image, and compute its key here, where nobody waits for it."""
    image = decode_image(source, size)
    _ = image.key
    return image
