"""Names of the weights: those of the released X-Decoder checkpoints next to ours, for all parts.

A released checkpoint is a flat dictionary of tensors (public X-Decoder repository, branch v2.0). The pairs of
`RELEASED_NAMES` are one-to-one. In a name ``*`` stands for a number that both sides share; a name that ends in a dot or
an underscore is followed by ``weight`` or ``bias``, any other one is whole.
"""

from __future__ import annotations

import re
from functools import cache

_PIXEL = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."
_CROSS = _PREDICTOR + "transformer_cross_attention_layers.*."
_SELF = _PREDICTOR + "transformer_self_attention_layers.*."
_FFN = _PREDICTOR + "transformer_ffn_layers.*."
_LANGUAGE = _PREDICTOR + "lang_encoder."
_TEXT = _LANGUAGE + "lang_encoder."

_BACKBONE_NAMES = (
    ("backbone.patch_embed.proj.", "backbone.stages.0.embed.convolution."),
    ("backbone.patch_embed.norm.", "backbone.stages.0.embed.norm."),
    # a stage of the release ends with the embedding that a stage of ours begins with
    *(
        (f"backbone.layers.{stage - 1}.downsample.{theirs}.", f"backbone.stages.{stage}.embed.{ours}.")
        for stage in (1, 2, 3)
        for theirs, ours in (("proj", "convolution"), ("norm", "norm"))
    ),
    ("backbone.norm*.", "backbone.stages.*.norm."),
    *(
        (f"backbone.layers.*.blocks.*.{theirs}", f"backbone.stages.*.blocks.*.{ours}")
        for theirs, ours in (
            ("dw1.", "local1."),
            ("dw2.", "local2."),
            ("gamma_1", "scale1"),
            ("gamma_2", "scale2"),
            ("norm1.", "norm1."),
            ("norm2.", "norm2."),
            ("mlp.fc1.", "fc1."),
            ("mlp.fc2.", "fc2."),
            ("modulation.f.", "modulation.input."),
            ("modulation.focal_layers.*.0.", "modulation.contexts.*."),
            ("modulation.h.", "modulation.mix."),
            ("modulation.proj.", "modulation.output."),
        )
    ),
)

_PIXEL_DECODER_NAMES = (
    (_PIXEL + "input_proj.", "pixel_decoder.input_projection."),
    *(
        (f"{_PIXEL}transformer.encoder.layers.*.{theirs}", f"pixel_decoder.encoder.*.{ours}")
        for theirs, ours in (
            ("self_attn.in_proj_", "attention.qkv."),
            ("self_attn.out_proj.", "attention.output."),
            ("norm1.", "norm1."),
            ("linear1.", "fc1."),
            ("linear2.", "fc2."),
            ("norm2.", "norm2."),
        )
    ),
    *(
        (f"{_PIXEL}{theirs}_{level}.{their_part}", f"pixel_decoder.{ours}.res{level + 1}.{our_part}.")
        for theirs, ours, levels in (("adapter", "lateral", (1, 2, 3)), ("layer", "merge", (1, 2, 3, 4)))
        for level in levels
        for their_part, our_part in (("", "convolution"), ("norm.", "norm"))
    ),
    (_PIXEL + "mask_features.", "pixel_decoder.mask_features."),
)

_DECODER_NAMES = (
    (_PREDICTOR + "input_proj.*.", "decoder.input_projections.*."),
    (_PREDICTOR + "query_feat.weight", "decoder.query_start"),
    (_PREDICTOR + "query_embed.weight", "decoder.query_position"),
    (_PREDICTOR + "level_embed.weight", "decoder.level_embedding"),
    (_CROSS + "multihead_attn.in_proj_", "decoder.layers.*.cross_attention.qkv."),
    (_CROSS + "multihead_attn.out_proj.", "decoder.layers.*.cross_attention.output."),
    (_CROSS + "norm.", "decoder.layers.*.cross_norm."),
    (_SELF + "self_attn.in_proj_", "decoder.layers.*.self_attention.qkv."),
    (_SELF + "self_attn.out_proj.", "decoder.layers.*.self_attention.output."),
    (_SELF + "norm.", "decoder.layers.*.self_norm."),
    (_FFN + "linear1.", "decoder.layers.*.fc1."),
    (_FFN + "linear2.", "decoder.layers.*.fc2."),
    (_FFN + "norm.", "decoder.layers.*.ffn_norm."),
    (_PREDICTOR + "decoder_norm.", "decoder.head.norm."),
    (_PREDICTOR + "class_embed", "decoder.head.class_projection"),
    (_PREDICTOR + "mask_embed.layers.*.", "decoder.head.mask_layers.*."),
    (_LANGUAGE + "logit_scale", "decoder.head.logit_scale"),
)

_TEXT_NAMES = (
    (_TEXT + "token_embedding.weight", "text_encoder.token_embedding.weight"),
    (_TEXT + "positional_embedding", "text_encoder.position_embedding"),
    *(
        (f"{_TEXT}resblocks.*.{theirs}", f"text_encoder.blocks.*.{ours}")
        for theirs, ours in (
            ("ln_1.", "norm1."),
            ("attn.in_proj_", "attention.qkv."),
            ("attn.out_proj.", "attention.output."),
            ("ln_2.", "norm2."),
            ("mlp.c_fc.", "fc1."),
            ("mlp.c_proj.", "fc2."),
        )
    ),
    (_TEXT + "ln_final.", "text_encoder.final_norm."),
    (_LANGUAGE + "lang_proj", "text_encoder.projection"),
)

RELEASED_NAMES: tuple[tuple[str, str], ...] = _BACKBONE_NAMES + _PIXEL_DECODER_NAMES + _DECODER_NAMES + _TEXT_NAMES

# released names of what panoptic segmentation never reads, and what reads it
UNUSED_NAMES: dict[str, str] = {
    "backbone_proj": "image-text retrieval",
    _PREDICTOR + "caping_embed": "captioning",
    _PREDICTOR + "pos_embed_caping.weight": "captioning",
    _PREDICTOR + "self_attn_mask": "a constant, built from the number of queries",
    "criterion.empty_weight": "the training loss",
}


def our_name(released: str) -> str | None:
    """Our name of a released weight; None where we have none."""
    return _translate(released, _rules(0))


def released_name(ours: str) -> str | None:
    """The released name of a weight of ours; None where there is none."""
    return _translate(ours, _rules(1))


def _translate(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    for pattern, target in rules:
        if match := pattern.fullmatch(name):
            for part in match.groups():
                target = target.replace("*", part, 1)
            return target
    return None


@cache
def _rules(source: int) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Pattern and target of every pair, read from its first (0) or second (1) side."""
    rules = []
    for pair in RELEASED_NAMES:
        name, target = pair[source], pair[1 - source]
        tail = name[-1] in "._"
        pattern = re.escape(name).replace(r"\*", r"(\d+)") + ("(weight|bias)" if tail else "")
        rules.append((re.compile(pattern), target + ("*" if tail else "")))
    return tuple(rules)
