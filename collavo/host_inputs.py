"""Where image tokens, crayon vectors and labels of a batch stand, computed on the host.

Finding positions by value needs to know how many there are, for which a GPU would have to be waited for. Token ids that
are given on the CPU are looked at here instead, before they are moved; the numbers are the same.

Shape legend: B rows, L text tokens, T tokens with images written out, P image tokens of an image, N images, U distinct
crayon pairs, M labelled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class HostInputs:
    """A batch whose places are known.

    Attributes:
        input_ids: (B, T), image tokens written out.
        attention_mask: (B, T) or what was given with more dimensions; None where every token is real.
        image_positions: (N * P,) flat positions of image tokens.
        crayon_pairs: (2, U) distinct pairs of class and number, or None.
        crayon_index: (N * P,) which of them an image token has, or None.
        label_positions: (M,) flat positions in (B, T) of the tokens before labelled ones, or None.
        targets: (M,) the labels, or None.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    image_positions: Tensor
    crayon_pairs: Tensor | None
    crayon_index: Tensor | None
    label_positions: Tensor | None
    targets: Tensor | None

    def to(self, device: torch.device) -> HostInputs:
        """The same on a device."""
        return replace(self, **{n: t.to(device) for n, t in vars(self).items() if isinstance(t, Tensor)})


def place_inputs(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    semantic: Tensor | None,
    numbering: Tensor | None,
    *,
    image_shape: tuple[int, int],
    image_token_id: int,
    pad_token_id: int,
    ignore_index: int,
) -> HostInputs:
    """Find everything that stands in a batch.

    Args:
        input_ids: int64 (B, L) on the CPU: one image token per image, or all P of them.
        attention_mask: (B, L); or (B, 1, T, T) with ids that are written out; or None.
        labels: int64, as ``input_ids``, or None.
        semantic: int64 (N, P) on the CPU, or None.
        numbering: likewise.
        image_shape: N and P; zeros for no image.
        image_token_id: of image tokens.
        pad_token_id: fills rows on the left.
        ignore_index: label of what is not learned.

    Raises:
        ValueError: the image tokens do not fit the images.
    """
    ids = input_ids.numpy()
    mask = None if attention_mask is None else attention_mask.numpy()
    marks = None if labels is None else labels.numpy()
    images, tokens = image_shape
    if tokens > 1 and int((ids == image_token_id).sum()) == images:
        is_image = ids == image_token_id
        ids = _write_out(ids, is_image, tokens, pad_token_id)
        mask = None if mask is None else _write_out(mask, is_image, tokens, 0)
        marks = None if marks is None else _write_out(marks, is_image, tokens, ignore_index)
    places = np.flatnonzero(ids == image_token_id)
    if len(places) != images * tokens:
        raise ValueError(f"{images} images of {tokens} tokens do not fit {len(places)} image tokens in the rows")
    pairs = index = None
    if semantic is not None and numbering is not None:
        both = np.stack([semantic.numpy().ravel(), numbering.numpy().ravel()])
        pairs, index = np.unique(both, axis=1, return_inverse=True)
        index = index.reshape(-1)
    before = targets = None
    if marks is not None:
        learned = marks[:, 1:] != ignore_index
        rows, columns = np.nonzero(learned)
        before, targets = rows * marks.shape[1] + columns, marks[:, 1:][learned]
    if mask is not None and mask.ndim == 2 and mask.all():
        mask = None
    return HostInputs(
        input_ids=torch.from_numpy(ids),
        attention_mask=_tensor(mask),
        image_positions=torch.from_numpy(places),
        crayon_pairs=_tensor(pairs),
        crayon_index=_tensor(index),
        label_positions=_tensor(before),
        targets=_tensor(targets),
    )


def _tensor(values: npt.NDArray[np.generic] | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values))


def _write_out(rows: Ints, is_image: npt.NDArray[np.bool_], tokens: int, fill: int) -> Ints:
    """Repeat every image token, on the left-padded grid that all rows then need; (B, T)."""
    repeated = [np.repeat(row, np.where(image, tokens, 1)) for row, image in zip(rows, is_image, strict=True)]
    longest = max(map(len, repeated))
    return np.stack([np.concatenate([np.full(longest - len(row), fill, row.dtype), row]) for row in repeated])
