"""The data of stage ``segmenter``: images with their segments, resized, cropped, mirrored, as batches.

Shape legend: B images, S their side, K classes, T prompts of a class, L positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from datasets.instruct.order import DataOrder, share
from datasets.instruct.segments import SegmentedImage, segment_map
from datasets.types import DataError
from modeling.segmenters.xdecoder.config import XDecoderConfig
from modeling.segmenters.xdecoder.criterion import Target, num_matched
from modeling.segmenters.xdecoder.preprocess import normalise_and_pad
from modeling.segmenters.xdecoder.training_options import XDecoderTrainingConfig
from pipeline.images import decode_image
from pipeline.runtime.console import warn

from ..config import LoopConfig
from ..loop import BatchShare, BatchTotals, Tally
from .loader import prepared_ahead

ADAPTER = "segmenter"
SOURCE = "panoptic"
_IMAGE, _PROMPTS, _POINTS = range(3)
"""Set the draws of one purpose apart from those of another."""


def augmented(
    pixels: npt.NDArray[np.uint8],
    numbers: npt.NDArray[np.int32],
    settings: XDecoderTrainingConfig,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Resize, cut out, and mirror an image; what is smaller than the square stays so, and is filled up later.

    Args:
        pixels: RGB, uint8 (height, width, 3).
        numbers: of the segments, int32 (height, width).
        settings: ``SIDE``, ``SCALE`` and ``FLIP`` count.
        rng: source of chance.
    """
    side = settings.SIDE
    factor = rng.uniform(settings.SCALE[0], settings.SCALE[1]) if settings.SCALE else 1.0
    height, width = pixels.shape[:2]
    ratio = factor * side / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    numbers = np.asarray(Image.fromarray(numbers).resize(size, Image.Resampling.NEAREST))
    top, left = (int(rng.integers(max(0, length - side) + 1)) for length in pixels.shape[:2])
    window = np.s_[top : top + side, left : left + side]
    pixels, numbers = pixels[window], numbers[window]
    if settings.FLIP and rng.random() < 0.5:
        pixels, numbers = pixels[:, ::-1], numbers[:, ::-1]
    return pixels, numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationBatch:
    """Images that run through the model at a time; see `trainer.loop.Microbatch`.

    Attributes:
        ids: of the images; none for a microbatch that teaches nothing.
        pixels: float32 (B, 3, S, S).
        prompts: token ids, int64 (K + 1, 1, L).
        targets: one per image.
        num_labels: segments that find a query.
    """

    ids: tuple[str, ...]
    pixels: Tensor
    prompts: Tensor
    targets: Sequence[Target]
    num_labels: int
    num_tokens: int = 0

    @property
    def num_images(self) -> int:
        """Of the samples."""
        return len(self.ids)

    def to(self, device: torch.device) -> SegmentationBatch:
        """The same on a device."""
        targets = [target.to(device) for target in self.targets]
        return replace(self, pixels=self.pixels.to(device), prompts=self.prompts.to(device), targets=targets)

    @property
    def tallies(self) -> Mapping[str, Tally]:
        """See `trainer.loop.Microbatch.tallies`."""
        samples = len(self.ids)
        return {SOURCE: Tally(samples=samples, labels=self.num_labels, images=samples)} if samples else {}

    def losses(self, model: nn.Module, totals: BatchTotals) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `trainer.loop.Microbatch.losses`."""
        numbers = {"num_images": max(1, totals.samples), "num_masks": totals.labels}
        loss: Tensor = model(self.pixels, self.prompts, self.targets, **numbers)
        if not self.ids:
            loss = 0.0 * loss
        return loss, {SOURCE: loss}


class SegmentationData:
    """See `trainer.loop.TrainingData`.

    Args:
        images: at least one.
        classes: the file's number of a class -> ours.
        prompts: token ids of all templates, int64 (K + 1, T, L).
        network: sizes of the model.
        settings: how images are resized, cut and mirrored.
        train: the section ``TRAIN``: sizes of a batch, ``SEED`` and ``WORKERS`` count.
    """

    def __init__(
        self,
        images: Sequence[SegmentedImage],
        classes: Mapping[int, int],
        prompts: Tensor,
        network: XDecoderConfig,
        settings: XDecoderTrainingConfig,
        train: LoopConfig,
    ) -> None:
        self._images, self._classes, self._prompts, self._network = images, classes, prompts, network
        self._settings, self._train = settings, train
        lengths = np.ones(len(images), np.int64)
        self._order = DataOrder(lengths=lengths, batch_size=train.BATCH_SIZE_TOTAL, seed=train.SEED, chunk_batches=1)

    @property
    def num_samples(self) -> int:
        """Images."""
        return len(self._images)

    def adapter(self, step: int) -> str:
        """See `TrainingData.adapter`."""
        return ADAPTER

    @property
    def sources(self) -> tuple[str, ...]:
        """See `TrainingData.sources`."""
        return (SOURCE,)

    def passes(self, step: int) -> dict[str, float]:
        """See `TrainingData.passes`."""
        return {SOURCE: step * self._order.batch_size / len(self._images)}

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[BatchShare]:
        """See `TrainingData.batches`."""
        return prepared_ahead(lambda step: self._prepare(step, rank, world), range(start, stop), self._train.WORKERS)

    def _prepare(self, step: int, rank: int, world: int) -> BatchShare:
        """A process's share of a step; where nothing of it is usable, a microbatch that teaches nothing."""
        made, skipped = [], []
        for index in share(self._order.batch(step), rank, world):
            try:
                made.append(self._example(int(index), step))
            except DataError as error:
                skipped.append(str(error))
                warn(f"update {step + 1}: an image is skipped: {error}")
        prompts = self._drawn(step)
        size = self._train.BATCH_SIZE
        microbatches = [made[i : i + size] for i in range(0, len(made), size)]
        return BatchShare(
            [self._collate(microbatch, prompts) for microbatch in microbatches] or [self._idle(prompts)], skipped
        )

    def _drawn(self, step: int) -> Tensor:
        """One prompt for each class, int64 (K + 1, 1, L); the same on every process."""
        classes, templates = self._prompts.shape[:2]
        drawn = torch.from_numpy(
            np.random.default_rng([self._train.SEED, _PROMPTS, step]).integers(templates, size=classes)
        )
        return self._prompts[torch.arange(classes), drawn][:, None]

    def _example(self, index: int, step: int) -> tuple[str, npt.NDArray[np.uint8], Target]:
        """An image as it is shown.

        Raises:
            DataError: it is unreadable, or its map is, or they are of different sizes.
        """
        image = self._images[index]
        pixels = decode_image(image.image, None).pixels
        numbers, classes = segment_map(image)
        if numbers.shape != pixels.shape[:2]:
            raise DataError(
                f"image {image.image.name} is of {pixels.shape[1]} x {pixels.shape[0]} pixels, its map "
                f"{image.map} of {numbers.shape[1]} x {numbers.shape[0]}"
            )
        rng = np.random.default_rng([self._train.SEED, _IMAGE, step, index])
        pixels, numbers = augmented(pixels, numbers, self._settings, rng)
        seed = int(np.random.default_rng([self._train.SEED, _POINTS, step, index]).integers(2**62))
        return image.image.name, pixels, self._target(numbers, classes, seed)

    def _target(self, numbers: npt.NDArray[np.int32], classes: Sequence[int], seed: int) -> Target:
        """What is in a square: segments that lie outside of it are gone."""
        side = self._settings.SIDE
        square = np.zeros((side, side), np.int32)
        shown = np.unique(numbers[numbers > 0])
        renumbered = np.zeros(len(classes) + 1, np.int32)
        renumbered[shown] = np.arange(1, len(shown) + 1)
        square[: numbers.shape[0], : numbers.shape[1]] = renumbered[numbers]
        labels = [self._classes[classes[number - 1]] for number in shown]
        return Target(labels=torch.tensor(labels, dtype=torch.int64), map=torch.from_numpy(square), seed=seed)

    def _collate(
        self, examples: Sequence[tuple[str, npt.NDArray[np.uint8], Target]], prompts: Tensor
    ) -> SegmentationBatch:
        network, side = self._network, self._settings.SIDE
        names, images, targets = zip(*examples, strict=True)
        counts = [len(target.labels) for target in targets]
        return SegmentationBatch(
            ids=names,
            pixels=normalise_and_pad(images, network.pixel_mean, network.pixel_std, (side, side)),
            prompts=prompts,
            targets=targets,
            num_labels=num_matched(counts, network.decoder.num_queries - 1),
        )

    def _idle(self, prompts: Tensor) -> SegmentationBatch:
        """An image without anything in it, so that a process takes part in the update all the same."""
        side = self._settings.SIDE
        nothing = self._target(np.zeros((1, 1), np.int32), (), 0)
        return SegmentationBatch(
            ids=(), pixels=torch.zeros(1, 3, side, side), prompts=prompts, targets=[nothing], num_labels=0
        )
