"""An X-Decoder in training: images, prompts and true segments in, one loss out.

Shapes: B images, H and W their padded sides, K classes, one more for the background, T prompts of a
class, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .config import XDecoderConfig
from .criterion import Criterion, Target
from .model import XDecoder
from .prompts import class_embeddings
from .training_options import XDecoderTrainingConfig


class XDecoderInTraining(nn.Module):
    """The network with its losses, as what wraps a model for several processes wants it: all in one call.

    Args:
        network: with its text encoder.
        config: of the losses.
        text_trains: whether gradients reach the text encoder.
    """

    def __init__(self, network: XDecoder, config: XDecoderTrainingConfig, *, text_trains: bool) -> None:
        super().__init__()
        self.network, self._criterion, self._text_trains = network, Criterion(config), text_trains

    def forward(
        self, pixels: Tensor, prompts: Tensor, targets: Sequence[Target], *, num_images: int, num_masks: int
    ) -> Tensor:
        """The loss of a part of a batch: those of all parts add up to the batch's.

        Args:
            pixels: normalised RGB, padded (B, 3, H, W).
            prompts: token ids, int64 (K + 1, T, L); the background's last.
            targets: one per image.
            num_images: in the whole batch.
            num_masks: in the whole batch, see `criterion.num_matched`.
        """
        with torch.set_grad_enabled(self._text_trains and torch.is_grad_enabled()):
            classes = class_embeddings(self.network.text_encoder, prompts)
        output = self.network(pixels, classes, auxiliary=True)
        losses = self._criterion(output, targets, num_images=num_images, num_masks=num_masks)
        return losses.total(self._criterion.config)


def fresh_network(config: XDecoderConfig, seed: int, logit_scale: float) -> XDecoder:
    """A network that knows nothing yet.

    Args:
        config: sizes.
        seed: of the weights.
        logit_scale: logarithm of what cosines are multiplied by.
    """
    torch.manual_seed(seed)
    network = XDecoder(config)
    nn.init.constant_(network.decoder.head.logit_scale, logit_scale)
    return network
