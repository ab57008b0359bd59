"""The query decoder: queries that look at the pixel decoder's maps within their own mask so far, and the predictions.

Source: Cheng et al. 2022 (arXiv 2112.01527), section 3.2 (masked attention); Zou et al. 2022 (arXiv 2212.11270),
section 3.1 (the image query, classes compared with texts). All queries but the last stand for objects; the last one,
the image query, keeps to itself and is replaced at prediction by a mixture of the others.

Shapes: B images, Q queries, C their width, D width of class embeddings, M mask channels, K classes, one more for the
background; h and w the sides of the map looked at, H and W those of the padded input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...precision import at_least_float32
from .attention import Attention
from .config import NUM_LEVELS, DecoderConfig
from .pixel_decoder import PixelFeatures
from .position import sine_position
from .prompts import unit_vectors


@dataclass(frozen=True, kw_only=True)
class QueryPrediction:
    """What the queries say, before the first layer or after one.

    Attributes:
        logits: of the classes, background last, float32 (B, Q, K + 1).
        masks: logits, float32 (B, Q, H/4, W/4).
        embeddings: class embeddings before they are normed (B, Q, D).
    """

    logits: Tensor
    masks: Tensor
    embeddings: Tensor


@dataclass(frozen=True, kw_only=True)
class DecoderStep:
    """The decoder before its first layer or after one.

    Attributes:
        queries: their state (B, Q, C).
        prediction: made from that state.
        blocked: bool (B, Q, hw): where the next layer must not look, before rows without any place are opened; None
            after the last layer.
    """

    queries: Tensor
    prediction: QueryPrediction
    blocked: Tensor | None


@dataclass(frozen=True, kw_only=True)
class FeatureLevel:
    """A map as the queries look at it: keys and values (B, hw, C), and its sides (h, w)."""

    keys: Tensor
    values: Tensor
    size: tuple[int, int]


class QueryDecoderLayer(nn.Module):
    """Masked cross-attention, self-attention and a feed-forward network, each followed by a norm of the sum.

    Args:
        config: sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.cross_attention = Attention(width, config.num_heads)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, config.num_heads)
        self.self_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, width)
        self.ffn_norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.xavier_uniform_(self.fc2.weight)

    def forward(self, queries: Tensor, query_position: Tensor, level: FeatureLevel, blocked: Tensor) -> Tensor:
        """One layer.

        Args:
            queries: state (B, Q, C).
            query_position: added to queries, and to keys among them (Q, C).
            level: the map looked at.
            blocked: see `DecoderStep`.

        Returns:
            the new state (B, Q, C).
        """
        # a query whose mask is empty on this map looks everywhere: attention over nothing is not defined
        allowed = ~blocked | blocked.all(dim=-1, keepdim=True)
        seen = self.cross_attention(queries + query_position, level.keys, level.values, allowed[:, None])
        queries = self.cross_norm(queries + seen)
        placed = queries + query_position
        allowed = image_query_alone(queries.shape[1], queries.device)
        queries = self.self_norm(queries + self.self_attention(placed, placed, queries, allowed))
        normed: Tensor = self.ffn_norm(queries + self.fc2(F.relu(self.fc1(queries))))
        return normed


class PredictionHead(nn.Module):
    """Classes and masks from the queries' state.

    Args:
        config: sizes.
        mask_dim: channels of the mask features (M).
    """

    def __init__(self, config: DecoderConfig, mask_dim: int) -> None:
        super().__init__()
        width = config.hidden_dim
        self.norm = nn.LayerNorm(width)
        self.class_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.mask_layers = nn.ModuleList(nn.Linear(width, out) for out in (width, width, mask_dim))
        self.logit_scale = nn.Parameter(torch.ones(()))
        nn.init.trunc_normal_(self.class_projection, std=0.02)

    def forward(self, queries: Tensor, mask_features: Tensor, class_embeddings: Tensor) -> QueryPrediction:
        """Predict.

        Args:
            queries: state (B, Q, C).
            mask_features: (B, M, H/4, W/4).
            class_embeddings: unit vectors, background last (K + 1, D).
        """
        vectors = replace_image_query(self.norm(queries))
        embeddings = vectors @ self.class_projection
        masks = torch.einsum("bqm,bmhw->bqhw", self._mask_embedding(vectors), mask_features)
        return QueryPrediction(
            logits=class_logits(embeddings, class_embeddings, self.logit_scale),
            masks=at_least_float32(masks),
            embeddings=embeddings,
        )

    def _mask_embedding(self, x: Tensor) -> Tensor:
        *hidden, last = self.mask_layers
        for layer in hidden:
            x = F.relu(layer(x))
        embedding: Tensor = last(x)
        return embedding


class QueryDecoder(nn.Module):
    """Queries, their layers, and what they predict after each.

    Args:
        config: sizes.
        in_channels: of the pixel decoder's maps.
        mask_dim: channels of its mask features (M).
    """

    def __init__(self, config: DecoderConfig, in_channels: int, mask_dim: int) -> None:
        super().__init__()
        width = config.hidden_dim
        self.query_start = nn.Parameter(torch.randn(config.num_queries, width))
        self.query_position = nn.Parameter(torch.randn(config.num_queries, width))
        self.level_embedding = nn.Parameter(torch.randn(NUM_LEVELS, width))
        # the public models' widths are equal: then nothing is projected, and there are no weights
        self.input_projections = nn.ModuleList(
            nn.Conv2d(in_channels, width, 1) if in_channels != width else nn.Identity() for _ in range(NUM_LEVELS)
        )
        self.layers = nn.ModuleList(QueryDecoderLayer(config) for _ in range(config.num_layers))
        self.head = PredictionHead(config, mask_dim)

    def forward(self, features: PixelFeatures, class_embeddings: Tensor) -> Iterator[DecoderStep]:
        """The decoder's steps, L + 1 of them, one at a time: who needs the last one only need not keep the others.

        Args:
            features: of the pixel decoder.
            class_embeddings: unit vectors, background last (K + 1, D).
        """
        levels = [self._level(index, level) for index, level in enumerate(features.levels)]
        queries = self.query_start.expand(len(features.mask_features), -1, -1)
        for index, layer in enumerate(self.layers):
            level = levels[index % NUM_LEVELS]
            prediction = self.head(queries, features.mask_features, class_embeddings)
            blocked = blocked_places(prediction.masks, level.size)
            yield DecoderStep(queries=queries, prediction=prediction, blocked=blocked)
            queries = layer(queries, self.query_position, level, blocked)
        prediction = self.head(queries, features.mask_features, class_embeddings)
        yield DecoderStep(queries=queries, prediction=prediction, blocked=None)

    def _level(self, index: int, feature: Tensor) -> FeatureLevel:
        """A map (B, channels, h, w) with its level's embedding and, in the keys, its position encoding."""
        x = self.input_projections[index](feature)
        height, width = x.shape[-2:]
        position = sine_position(height, width, x.shape[1] // 2, x.device).to(x.dtype)  # (C, h, w)
        values = x.flatten(2).transpose(1, 2) + self.level_embedding[index]
        return FeatureLevel(keys=values + position.flatten(1).T, values=values, size=(height, width))


def blocked_places(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a query must not look: places of a map that its mask leaves out.

    Args:
        masks: logits, float32 (B, Q, H/4, W/4); no gradient flows back into them.
        size: sides of the map (h, w).

    Returns:
        bool (B, Q, hw), true where the resized mask's probability is below a half.
    """
    masks = at_least_float32(masks.detach())
    resized = F.interpolate(masks, size=size, mode="bicubic", antialias=True, align_corners=False)
    return resized.flatten(2) < 0


def image_query_alone(num_queries: int, device: torch.device) -> Tensor:
    """Bool (Q, Q), true where a row may look: objects at all objects, the last (image) query at itself alone."""
    is_image = torch.arange(num_queries, device=device) == num_queries - 1
    return is_image[:, None] == is_image[None, :]


def replace_image_query(vectors: Tensor) -> Tensor:
    """Replace the image query's vector by a mixture of the objects', weighted by their cosines with it.

    Args:
        vectors: after the head's norm (B, Q, C), the image query last.

    Returns:
        (B, Q, C); the objects' vectors are unchanged.
    """
    objects, image = vectors[:, :-1], vectors[:, -1:]
    # in float32, as the epsilon of the norm vanishes in half precision
    cosines = unit_vectors(at_least_float32(image)) @ unit_vectors(at_least_float32(objects)).transpose(
        1, 2
    )  # (B, 1, Q - 1)
    shares = cosines.softmax(dim=-1)
    return torch.cat([objects, shares.to(objects.dtype) @ objects], dim=1)


def class_logits(embeddings: Tensor, class_embeddings: Tensor, logit_scale: Tensor) -> Tensor:
    """Cosines with the classes, scaled.

    Args:
        embeddings: (B, Q, D).
        class_embeddings: unit vectors (K + 1, D).
        logit_scale: logarithm of the factor, a scalar.

    Returns:
        float32 (B, Q, K + 1).
    """
    vectors = unit_vectors(at_least_float32(embeddings))
    cosines = vectors @ class_embeddings.to(vectors.dtype).T
    return at_least_float32(logit_scale).exp() * at_least_float32(cosines)
