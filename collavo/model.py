"""CoLLaVO: vision tower, projector, crayon prompt and decoder, joined.

Source: CoLLaVO (arXiv 2402.11248), figure 3 and section 3; where the paper adds the crayon prompt to the image features
of every layer, the released weights bring it in through low-rank pairs of the decoder's linears, and so do we.

Shape legend: B rows, L text tokens, T merged tokens, P image tokens of an image, N images, D decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from modeling.internlm2 import CACHE, InternLM2Decoder
from modeling.plora import ImageTokens
from modeling.precision import at_least_float32
from modeling.shared_prefix import SharedPrefixCache
from modeling.vit import VisionTower

from .config import CoLLaVOConfig
from .host_inputs import HostInputs, place_inputs
from .training_inputs import IGNORE_INDEX

IMAGE_INPUTS = ("pixel_values", "image_features", "semantic", "numbering")


def make_projector(in_features: int, out_features: int) -> nn.Sequential:
    """Two-layer MLP with GELU between, as for image features and for the crayon prompt."""
    return nn.Sequential(nn.Linear(in_features, out_features), nn.GELU(), nn.Linear(out_features, out_features))


class CrayonEmbedding(nn.Module):
    """Semantic and numbering queries, summed per image token and projected to the decoder's width."""

    def __init__(self, config: CoLLaVOConfig) -> None:
        super().__init__()
        self.semantic = nn.Embedding(config.semantic_rows, config.crayon_width)
        self.numbering = nn.Embedding(config.numbering_rows, config.crayon_width)
        self.projector = make_projector(config.crayon_width, config.text.hidden_size)

    def forward(self, semantic: Tensor, numbering: Tensor) -> tuple[Tensor, Tensor]:
        """Look up the crayon vectors, once per distinct (class, number) pair.

        Args:
            semantic: int64, any shape: class + 1, 0 = unknown.
            numbering: int64, same shape: number in the class, 0 = unknown.
        Returns: the distinct vectors (U, D), and for every token the row that is its own, int64 in the input's shape.
        """
        rows = self.numbering.num_embeddings
        distinct, index = torch.unique(semantic * rows + numbering, return_inverse=True)
        return self.vectors(distinct // rows, distinct % rows), index

    def vectors(self, semantic: Tensor, numbering: Tensor) -> Tensor:
        """Crayon vectors (..., D) of (class, number) pairs, int64 of any shape."""
        return self.projector(self.semantic(semantic) + self.numbering(numbering))  # type: ignore[no-any-return]


class CoLLaVOForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """The model that answers: images, panoptic indices and text in, logits out.

    Batches may mix rows with an image and rows without. A row has at most one, or several whose image tokens are all
    written out; ``attention_mask`` (B, 1, T, T) then says what sees what.
    """

    config_class = CoLLaVOConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["DecoderLayer", "VisionBlock"]

    def __init__(self, config: CoLLaVOConfig) -> None:
        super().__init__(config)
        self.vision_tower = VisionTower(config.vision)
        self.projector = make_projector(config.vision.hidden_size, config.text.hidden_size)
        self.crayon = CrayonEmbedding(config)
        self.language_model = InternLM2Decoder(config.text)
        self.output = nn.Linear(config.text.hidden_size, config.text.vocab_size, bias=False)
        self.post_init()

    def is_custom_code(self) -> bool:
        """See `InternLM2Decoder.is_custom_code`."""
        return False

    def _init_weights(self, module: nn.Module) -> None:
        """Fresh queries, and an MLP that keeps their size.

        The low-rank pairs that the vectors pass on their way start at zero: queries as small as a language model's
        weights would hardly reach them, and training would begin with many updates that change nothing.
        """
        super()._init_weights(module)
        if isinstance(module, CrayonEmbedding):
            for table in (module.semantic, module.numbering):
                init.normal_(table.weight)
            for weight in (p for p in module.projector.parameters() if p.dim() > 1):
                init.normal_(weight, std=weight.shape[1] ** -0.5)

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's embedding table."""
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's embedding table."""
        self.language_model.embed_tokens = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module:
        """The output layer."""
        return self.output

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output layer."""
        self.output = cast(nn.Linear, new_embeddings)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Vision features in the decoder's width.

        Args:
            pixel_values: normalised, (N, 3, H, W).
        Returns: (N, P, D).
        """
        return self.projector(self.vision_tower(pixel_values))  # type: ignore[no-any-return]

    def embed_prompt(
        self,
        ids: Sequence[int],
        image_features: Tensor | None,
        semantic: npt.NDArray[np.int64] | None,
        numbering: npt.NDArray[np.int64] | None,
    ) -> tuple[Tensor, ImageTokens | None]:
        """Embeddings of one prompt, and its image tokens, for `forward`; nothing is read back from the device.

        Args:
            ids: of the text, with one image token where the image belongs.
            image_features: (1, P, D) from `encode_images`, or None for a text without an image.
            semantic: P class indices as in `forward`, on the host, in any shape; None for no crayon prompt.
            numbering: likewise.
        Returns: embeddings (1, T, D), T counting P tokens for the image; and which of them are the image's.

        Raises:
            ValueError: an image without an image token, or the other way round.
        """
        device, token = self.device, self.config.image_token_id
        if (image_features is not None) != (token in ids):
            raise ValueError("an image needs one image token in the text, and a text without one has none")
        embeds = self.get_input_embeddings()(torch.tensor(ids, device=device))
        if image_features is None:
            return embeds[None], None
        at, features = list(ids).index(token), image_features[0].to(embeds.dtype)
        embeds = torch.cat([embeds[:at], features, embeds[at + 1 :]])
        positions = torch.arange(at, at + len(features), device=device)
        if semantic is None or numbering is None or self.config.crayon_queries == "none":
            return embeds[None], ImageTokens(positions)
        if self.config.crayon_queries == "semantic":
            numbering = np.zeros_like(numbering)
        pairs = np.stack([semantic.ravel(), numbering.ravel()])  # (2, P)
        distinct, index = np.unique(pairs, axis=1, return_inverse=True)
        on_device = torch.from_numpy(distinct).to(device)
        crayon = self.crayon.vectors(on_device[0], on_device[1])
        return embeds[None], ImageTokens(positions, crayon, torch.from_numpy(index.reshape(-1)).to(device))

    def expand_image_tokens(self, num_tokens: int, input_ids: Tensor, *others: Tensor | None) -> list[Tensor | None]:
        """Repeat every image token ``num_tokens`` times, on the left-padded grid that all rows then need.

        Args:
            num_tokens: P.
            input_ids: (B, L).
            *others: tensors (B, L) that go along (attention mask, labels), or None.
        Returns: the expanded ids and others, (B, T); new columns on the left hold the pad id, mask 0, or -100.
        """
        copies = torch.where(input_ids == self.config.image_token_id, num_tokens, 1)  # (B, L)
        length = int(copies.sum(-1).max())
        fills = (self.config.text.pad_token_id or 0, 0, IGNORE_INDEX)
        expanded: list[Tensor | None] = []
        for tensor, fill in zip((input_ids, *others), fills, strict=False):
            if tensor is None:
                expanded.append(None)
                continue
            rows = [row.repeat_interleave(n) for row, n in zip(tensor, copies, strict=True)]
            expanded.append(torch.stack([F.pad(row, (length - len(row), 0), value=fill) for row in rows]))
        return expanded

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | SharedPrefixCache | None = None,
        inputs_embeds: Tensor | None = None,
        image: ImageTokens | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        semantic: Tensor | None = None,
        numbering: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: int | Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Cache | None = None,
        placed: HostInputs | None = None,
        **backend: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the model.

        Args:
            input_ids: int64 (B, L): one image token per image, or already P of them (as `generate` passes them).
            attention_mask: (B, L), or (B, cached + L); 1 for real tokens. Padding belongs on the left.
            position_ids: int64 (B, T); counted from the attention mask where not given.
            cache: of earlier tokens.
            inputs_embeds: (B, T, D) instead of ``input_ids``; images are then taken as already merged.
            image: with ``inputs_embeds``: the image tokens among them, see `embed_prompt`.
            pixel_values: normalised images (N, 3, H, W), in the order of the image tokens.
            image_features: (N, P, D) from `encode_images`, instead of ``pixel_values``.
            semantic: int64 (N, P), class + 1 of every image token, 0 = unknown; None for no crayon prompt.
            numbering: int64 (N, P), number in the class, 0 = unknown.
            labels: int64 (B, L), -100 where no loss is wanted.
            use_cache: return a cache.
            logits_to_keep: compute logits for so many last positions only; 0 for all.
            num_items_in_batch: with labels: the loss is the sum over labelled tokens divided by this number, and logits
                are computed for those tokens only, (labelled tokens, vocabulary); a batch may be in several pieces.
            output_hidden_states: return every layer's input.
            return_dict: False for a tuple.
            past_key_values: what ``cache`` is called before transformers 5.24.
            placed: instead of ids, mask, labels and crayon indices: where all of them stand, see `place`; then nothing
                waits for the device. It is what ids on the CPU are made into for a model elsewhere.
            **backend: passed to the attention backend.

        Returns:
            loss: over the labelled tokens, if labels were given.
            logits: (B, T or the asked number of last positions, vocabulary).
            cache (before transformers 5.24 past_key_values): if one was given or asked for.
            hidden_states: see `modeling.internlm2.DecoderOutput`.

        Raises:
            ValueError: the image tokens do not fit the images, or neither ids nor embeddings are given.
        """
        cache = past_key_values if cache is None else cache
        if pixel_values is not None and image_features is None:
            image_features = self.encode_images(pixel_values)
        if inputs_embeds is None:
            if input_ids is None and placed is None:
                raise ValueError("give input_ids or inputs_embeds")
            if (
                placed is None
                and self.device.type != "cpu"
                and input_ids is not None
                and input_ids.device.type == "cpu"
            ):
                images = (0, 0) if image_features is None else (image_features.shape[0], image_features.shape[1])
                placed = self.place(input_ids, attention_mask, labels, semantic, numbering, images)
            if placed is not None:
                placed = placed.to(self.device)
                inputs_embeds, image = self._merge_placed(placed, image_features)
                attention_mask = placed.attention_mask
        if inputs_embeds is None:
            assert input_ids is not None
            if image_features is not None and self._holds_single_image_tokens(input_ids, image_features):
                expanded = self.expand_image_tokens(image_features.shape[1], input_ids, attention_mask, labels)
                input_ids, attention_mask, labels = expanded[0], expanded[1], expanded[2]
            assert input_ids is not None
            inputs_embeds = self.get_input_embeddings()(input_ids)
            inputs_embeds, image = self._merge(input_ids, inputs_embeds, image_features, semantic, numbering)
        if position_ids is None:
            position_ids = _positions(inputs_embeds, attention_mask, cast("Cache | None", cache))
        if placed is not None and cache is None and self.config.text._attn_implementation == "sdpa":
            attention_mask = _written_out(attention_mask)
        decoded = self.language_model(
            inputs_embeds,
            attention_mask,
            position_ids,
            image=image,
            cache=cache,
            use_cache=bool(self.config.text.use_cache if use_cache is None else use_cache) and not self.training,
            output_hidden_states=bool(output_hidden_states),
            **backend,
        )
        hidden = decoded.last_hidden_state
        if placed is not None and placed.targets is not None:
            assert placed.label_positions is not None
            logits = self.output(hidden.flatten(0, 1).index_select(0, placed.label_positions))
            total = F.cross_entropy(at_least_float32(logits), placed.targets, reduction="sum")
            loss: Tensor | None = total / (len(placed.targets) if num_items_in_batch is None else num_items_in_batch)
        elif labels is not None and num_items_in_batch is not None:
            logits = self.output(hidden[:, :-1][labels[:, 1:] != IGNORE_INDEX])
            loss = _summed_loss(logits, labels) / num_items_in_batch
        else:
            logits = self.output(hidden[:, -logits_to_keep if logits_to_keep else None :])
            loss = None if labels is None else _loss(logits, labels)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=decoded.hidden_states, **{CACHE: decoded.cache}
        )
        return output.to_tuple() if return_dict is False else output

    def _holds_single_image_tokens(self, input_ids: Tensor, image_features: Tensor) -> bool:
        """Whether each image has one token in ``input_ids`` (rather than all P).

        Raises:
            ValueError: it has neither, or a row has several images.
        """
        images, tokens = image_features.shape[:2]
        per_row = (input_ids == self.config.image_token_id).sum(-1)  # (B,)
        found = int(per_row.sum())
        if found == images and int(per_row.max()) <= 1:
            return tokens > 1
        if found == images * tokens and not bool((per_row % tokens).any()):
            return False
        raise ValueError(
            f"{images} images of {tokens} tokens need one image token (id {self.config.image_token_id}) each, at "
            f"most one in a row, or {tokens} each; found {per_row.tolist()} in the rows"
        )

    def place(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        semantic: Tensor | None,
        numbering: Tensor | None,
        image_shape: tuple[int, int],
    ) -> HostInputs:
        """Find on the host what stands where, see `collavo.host_inputs.place_inputs`.

        Args:
            input_ids: see `forward`; on the CPU, as everything else.
            attention_mask: see `forward`.
            labels: see `forward`; logits are computed of the labelled tokens only.
            semantic: see `forward`.
            numbering: see `forward`.
            image_shape: N and P; zeros for no image.

        Raises:
            ValueError: the image tokens do not fit the images.
        """
        kind = self.config.crayon_queries
        if kind == "none" or not image_shape[0]:
            semantic = numbering = None
        if kind == "semantic" and numbering is not None:
            numbering = torch.from_numpy(np.zeros_like(numbering.numpy()))
        return place_inputs(
            input_ids,
            attention_mask,
            labels,
            semantic,
            numbering,
            image_shape=image_shape,
            image_token_id=self.config.image_token_id,
            pad_token_id=self.config.text.pad_token_id or 0,
            ignore_index=IGNORE_INDEX,
        )

    def _merge_placed(self, placed: HostInputs, image_features: Tensor | None) -> tuple[Tensor, ImageTokens | None]:
        """`_merge` for inputs whose places are known."""
        embeds = self.get_input_embeddings()(placed.input_ids)
        if image_features is None:
            return embeds, None
        flat = embeds.flatten(0, 1)
        flat = flat.index_copy(0, placed.image_positions, image_features.flatten(0, 1).to(flat.dtype))
        if placed.crayon_pairs is None:
            return flat.view_as(embeds), ImageTokens(placed.image_positions)
        crayon = self.crayon.vectors(placed.crayon_pairs[0], placed.crayon_pairs[1])
        return flat.view_as(embeds), ImageTokens(placed.image_positions, crayon, placed.crayon_index)

    def _merge(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor,
        image_features: Tensor | None,
        semantic: Tensor | None,
        numbering: Tensor | None,
    ) -> tuple[Tensor, ImageTokens | None]:
        """Put image features in the place of the image tokens; say where they are and what crayon vector each has."""
        positions = (input_ids.flatten() == self.config.image_token_id).nonzero()[:, 0]  # (N * P,)
        if image_features is None:
            if len(positions):
                raise ValueError("the text holds image tokens, but no images were given")
            return inputs_embeds, None
        flat = inputs_embeds.flatten(0, 1)
        flat = flat.index_copy(0, positions, image_features.flatten(0, 1).to(flat.dtype))
        if semantic is None or numbering is None or self.config.crayon_queries == "none":
            return flat.view_as(inputs_embeds), ImageTokens(positions)
        if semantic.shape != image_features.shape[:2] or numbering.shape != semantic.shape:
            raise ValueError(
                f"the crayon indices have the shapes {tuple(semantic.shape)} and {tuple(numbering.shape)}, the image "
                f"tokens {tuple(image_features.shape[:2])}"
            )
        if self.config.crayon_queries == "semantic":
            numbering = torch.zeros_like(numbering)
        crayon, index = self.crayon(semantic, numbering)
        return flat.view_as(inputs_embeds), ImageTokens(positions, crayon, index.flatten())

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Images belong to the first step only: later ones read them from the cache."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in IMAGE_INPUTS:
                inputs.pop(name, None)
        return inputs

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Generate, with all of transformers' settings; see `forward` for the inputs.

        Args:
            input_ids: int64 (B, L), padded on the left, one image token per image (or P of them).
            attention_mask: (B, L).
            **kwargs: ``pixel_values`` (or ``image_features``), ``semantic``, ``numbering``, generation settings.
        Returns: ids (B, L + new), beginning with ``input_ids`` as they were given, or transformers' output object.
        """
        if kwargs.get("pixel_values") is not None:
            kwargs["image_features"] = self.encode_images(kwargs.pop("pixel_values"))
        features = kwargs.get("image_features")
        prompt = input_ids
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if features is not None and self._holds_single_image_tokens(input_ids, features):
            prompt, attention_mask = self.expand_image_tokens(features.shape[1], input_ids, attention_mask)  # type: ignore[assignment]
        out = super().generate(prompt, attention_mask=attention_mask, **kwargs)
        sequences = out if isinstance(out, Tensor) else out.sequences
        copies = sequences.shape[0] // input_ids.shape[0]
        ids = torch.cat([input_ids.repeat_interleave(copies, 0), sequences[:, prompt.shape[1] :]], dim=1)
        if isinstance(out, Tensor):
            return ids
        out.sequences = ids
        return out


def _positions(inputs_embeds: Tensor, attention_mask: Tensor | None, cache: Cache | None) -> Tensor:
    """Positions of the new tokens, counted over real tokens only, int64 (B, T)."""
    length = inputs_embeds.shape[1]
    if attention_mask is None or attention_mask.dim() != 2:
        past = cache.get_seq_length() if cache is not None else 0
        return torch.arange(past, past + length, device=inputs_embeds.device)[None].expand(len(inputs_embeds), -1)
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]


def _written_out(attention_mask: Tensor | None) -> Tensor | None:
    """What each token sees, bool (B, 1, T, T), of a mask (B, T), which transformers would wait for the device to read.

    None, for all, and masks that are written out stay.
    """
    if attention_mask is None or attention_mask.dim() != 2:
        return attention_mask
    length = attention_mask.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=attention_mask.device).tril()
    return earlier & attention_mask.bool()[:, None, None, :]


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the next token over labelled positions, in float32."""
    shifted = labels[:, 1:].flatten().to(logits.device)
    return F.cross_entropy(at_least_float32(logits[:, :-1].flatten(0, 1)), shifted, ignore_index=IGNORE_INDEX)


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropies of the labelled tokens (logits are theirs, in order), in float32."""
    targets = labels[:, 1:]
    targets = targets[targets != IGNORE_INDEX].to(logits.device)
    return F.cross_entropy(at_least_float32(logits), targets, reduction="sum")
