"""Floating-point operations of an X-Decoder's update, counted by torch's counter on tensors without storage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling.segmenters.xdecoder.config import XDecoderConfig
from modeling.segmenters.xdecoder.model import XDecoder


@dataclass(frozen=True, kw_only=True)
class SegmenterCost:
    """Multiply-adds, forwards and backwards, counted as two operations each.

    Attributes:
        image: of an image in the network.
        text: of all prompts in the text encoder; an update counts them once, though each microbatch encodes them.
    """

    image: int
    text: int

    @classmethod
    def of_network(
        cls, config: XDecoderConfig, side: int, prompts: tuple[int, int], *, text_trains: bool
    ) -> SegmenterCost:
        """Count a network.

        Args:
            config: its sizes.
            side: of the square images, in pixels.
            prompts: how many an update encodes, and how many tokens the longest has.
            text_trains: whether gradients reach the text encoder.
        """
        with torch.device("meta"):
            network = XDecoder(config)
            with FlopCounterMode(display=False) as text, torch.set_grad_enabled(text_trains):
                encoder = network.text_encoder
                states = encoder.states(torch.zeros(prompts, dtype=torch.int64))[-1]
                vectors = states[:, 0] @ encoder.projection  # whichever token it is that ends the prompt
                if text_trains:
                    vectors.sum().backward()  # type: ignore[no-untyped-call]
            with FlopCounterMode(display=False) as image:
                classes = torch.zeros(vectors.shape, requires_grad=text_trains)
                output = network(torch.zeros(1, 3, side, side), classes, auxiliary=True)
                layers = (output, *output.auxiliary)
                outputs = [part.sum() for layer in layers for part in (layer.logits, layer.masks)]
                torch.stack(outputs).sum().backward()  # type: ignore[no-untyped-call]
        return cls(image=image.get_total_flops(), text=text.get_total_flops())

    def of(self, num_images: int) -> int:
        """Of an update on so many images."""
        return self.text + num_images * self.image
