"""Tiny random models of the families in ``configs/models``, with processors of their own; imported by tests.

Their sizes are the smallest that keep what matters: tiles, pixel limits, Q-Formers, positions in three dimensions.
Six families want torchvision for a processor of videos; they get none, and an image processor that works with Pillow.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.pixtral import image_processing_pil_pixtral
from transformers.models.smolvlm import processing_smolvlm

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "<end>")
PAD, BOS, EOS, UNK, IMAGE, END = range(len(SPECIAL))
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Begins with the begin token, as many checkpoints' templates do."""
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def tokenizer(*more: str, bos: bool = True, **named: Any) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and special ones; begins a text with its begin token, as Llama's does."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    words = [*SPECIAL, *more, *sorted(letters)]
    inner = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    found = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", **named
    )
    found.add_special_tokens({"additional_special_tokens": ["<image>", "<end>", *more]})
    return found


def template(place: str) -> str:
    """A chat template that puts a text where an image stands."""
    return TEMPLATE.replace("IMAGE", place)


def llava() -> tuple[Any, Any]:
    tok = tokenizer()
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**VISION, image_size=28, patch_size=14, projection_dim=16),
        text_config=t.LlamaConfig(**TEXT, vocab_size=len(tok)),
        image_token_index=IMAGE,
    )
    images = t.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = t.LlavaProcessor(
        images, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    processor.chat_template = template("<image>")
    return t.LlavaForConditionalGeneration(config), processor


def llava_next() -> tuple[Any, Any]:
    tok, grid = tokenizer(), [[28, 56], [56, 28], [56, 56]]
    config = t.LlavaNextConfig(
        vision_config=t.CLIPVisionConfig(**VISION, image_size=28, patch_size=14, projection_dim=16),
        text_config=t.LlamaConfig(**TEXT, vocab_size=len(tok)),
        image_token_index=IMAGE,
        image_grid_pinpoints=grid,
    )
    images = t.LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = t.LlavaNextProcessor(
        images, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    processor.chat_template = template("<image>\n")
    return t.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    tok, grid = tokenizer("<video>"), [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = t.LlavaOnevisionConfig(
        vision_config=t.SiglipVisionConfig(**VISION, image_size=28, patch_size=14),
        text_config=t.Qwen2Config(**TEXT, vocab_size=len(tok)),
        image_token_index=IMAGE,
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    images = t.LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=grid)
    processor = without_videos(
        t.LlavaOnevisionProcessor,
        images,
        tok,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
    )
    return t.LlavaOnevisionForConditionalGeneration(config), processor


def without_videos(kind: Any, images: Any, tok: Any, **more: Any) -> Any:
    """A processor without its processor of videos, whose place the class insists on."""

    class Processor(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return None if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

    Processor.__name__ = kind.__name__
    made = Processor(image_processor=images, tokenizer=tok, video_processor=None, **more)
    made.video_processor = SimpleNamespace(num_frames=1, fps=1, size={}, model_input_names=[])
    return made


def blip_2() -> tuple[Any, Any]:
    tok = tokenizer()
    config = t.Blip2Config(
        vision_config=t.Blip2VisionConfig(**VISION, image_size=28, patch_size=14).to_dict(),
        qformer_config=qformer(t.Blip2QFormerConfig),
        text_config=t.OPTConfig(
            vocab_size=len(tok), hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2,
            word_embed_proj_dim=32, max_position_embeddings=512, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        ).to_dict(),
        num_query_tokens=4,
        image_token_index=IMAGE,
    )  # fmt: skip
    processor = t.Blip2Processor(blip_images(), tok, num_query_tokens=4)
    return t.Blip2ForConditionalGeneration(config), processor


def qformer(kind: Any) -> Any:
    return kind(
        vocab_size=300, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        encoder_hidden_size=16, cross_attention_frequency=1, pad_token_id=PAD,
    ).to_dict()  # fmt: skip


def blip_images() -> Any:
    return t.BlipImageProcessorPil(size={"height": 28, "width": 28})


def instructblip() -> tuple[Any, Any]:
    tok = tokenizer()
    config = t.InstructBlipConfig(
        vision_config=t.InstructBlipVisionConfig(**VISION, image_size=28, patch_size=14).to_dict(),
        qformer_config=qformer(t.InstructBlipQFormerConfig),
        text_config=t.LlamaConfig(**TEXT, vocab_size=len(tok)).to_dict(),
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    processor = t.InstructBlipProcessor(blip_images(), tok, tokenizer(bos=False), num_query_tokens=4)
    return t.InstructBlipForConditionalGeneration(config), processor


QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen(config: Any, model: Any, processor: Any, factor: int = 14, **vision: Any) -> tuple[Any, Any]:
    tok = tokenizer(*QWEN, bos=False)
    ids = {name: tok.convert_tokens_to_ids(token) for name, token in zip(
        ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"), QWEN, strict=True
    )}  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = {**TEXT, "vocab_size": len(tok), "rope_parameters": rope}
    made = config(text_config=text, vision_config=vision, **ids)
    images = t.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * factor**2, "longest_edge": 36 * factor**2}, patch_size=factor, merge_size=2
    )
    place = "".join((QWEN[0], QWEN[2], QWEN[1]))
    return model(made), without_videos(processor, images, tok, chat_template=template(place))


def qwen2_vl() -> tuple[Any, Any]:
    vision: dict[str, Any] = {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 32,
        "num_heads": 2,
        "patch_size": 14,
        "mlp_ratio": 2,
    }
    return qwen(t.Qwen2VLConfig, t.Qwen2VLForConditionalGeneration, t.Qwen2VLProcessor, **vision)


def qwen2_5_vl() -> tuple[Any, Any]:
    vision: dict[str, Any] = {
        "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "patch_size": 14, "intermediate_size": 24,
        "window_size": 56, "fullatt_block_indexes": [1],
    }  # fmt: skip
    return qwen(t.Qwen2_5_VLConfig, t.Qwen2_5_VLForConditionalGeneration, t.Qwen2_5_VLProcessor, **vision)


def qwen3_vl() -> tuple[Any, Any]:
    vision: dict[str, Any] = {
        "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "patch_size": 16, "intermediate_size": 24,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return qwen(t.Qwen3VLConfig, t.Qwen3VLForConditionalGeneration, t.Qwen3VLProcessor, factor=16, **vision)


def internvl() -> tuple[Any, Any]:
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<ctx>"}
    names["video_token"] = "<v>"
    tok = tokenizer(*names.values(), bos=False, extra_special_tokens=names)
    config = t.InternVLConfig(
        vision_config=t.InternVLVisionConfig(**VISION, image_size=[28, 28], patch_size=[14, 14]),
        text_config=t.Qwen2Config(**TEXT, vocab_size=len(tok)),
        image_token_id=tok.convert_tokens_to_ids("<ctx>"),
        image_seq_length=1,
        downsample_ratio=0.5,
    )
    images = t.GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = without_videos(t.InternVLProcessor, images, tok, image_seq_length=1, chat_template=template("<ctx>\n"))
    return t.InternVLForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    model = t.Idefics3ForConditionalGeneration
    return idefics(t.Idefics3Config, model, t.Idefics3Processor, t.Idefics3ImageProcessorPil)


def smolvlm() -> tuple[Any, Any]:
    processing_smolvlm.num2words = str  # it words the lengths of videos alone, and need not be installed
    return idefics(t.SmolVLMConfig, t.SmolVLMForConditionalGeneration, t.SmolVLMProcessor, t.SmolVLMImageProcessorPil)


def idefics(config: Any, model: Any, processor: Any, images: Any) -> tuple[Any, Any]:
    rows = [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)]
    tok = tokenizer("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows, bos=False)
    made = config(
        vision_config={**VISION, "image_size": 28, "patch_size": 14},
        text_config=t.LlamaConfig(**TEXT, vocab_size=len(tok)),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=PAD,
    )
    prepared = images(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}, do_image_splitting=True)
    kind = processor
    options = {"image_seq_len": 1, "chat_template": template("<image>")}
    if processor is t.SmolVLMProcessor:
        return model(made), without_videos(kind, prepared, tok, **options)
    return model(made), kind(prepared, tok, **options)


def paligemma() -> tuple[Any, Any]:
    tok = tokenizer(bos=False)
    images = t.SiglipImageProcessorPil(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = t.PaliGemmaProcessor(images, tok)
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**VISION, image_size=28, patch_size=14).to_dict(),
        text_config=t.GemmaConfig(**TEXT, head_dim=16, vocab_size=len(tok), tie_word_embeddings=False).to_dict(),
        image_token_index=IMAGE,
        projection_dim=32,
        hidden_size=32,
        tie_word_embeddings=False,
    )
    return t.PaliGemmaForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    names = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<soft>"}
    tok = tokenizer(*names.values(), extra_special_tokens=names)
    ids = {name: tok.convert_tokens_to_ids(token) for name, token in names.items()}
    config = t.Gemma3Config(
        vision_config=t.SiglipVisionConfig(**VISION, image_size=28, patch_size=7).to_dict(),
        text_config=t.Gemma3TextConfig(**TEXT, head_dim=16, vocab_size=len(tok), sliding_window=16).to_dict(),
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
    )
    images = t.Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    processor = t.Gemma3Processor(images, tok, image_seq_length=4, chat_template=template("<boi>"))
    return t.Gemma3ForConditionalGeneration(config), processor


def mistral3() -> tuple[Any, Any]:
    tok = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = t.Mistral3Config(
        vision_config=t.PixtralVisionConfig(**VISION, head_dim=8, image_size=56, patch_size=14),
        text_config=t.MistralConfig(**TEXT, head_dim=16, vocab_size=len(tok)),
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    return t.Mistral3ForConditionalGeneration(config), pixtral_processor(tok, spatial_merge_size=2)


def pixtral_class() -> Any:
    """Pixtral's processor, whose module imports the image processor of torchvision next to that of Pillow."""
    name = "transformers.models.pixtral.image_processing_pixtral"
    if find_spec("torchvision") is None:
        sys.modules[name] = image_processing_pil_pixtral
    try:
        return importlib.import_module("transformers.models.pixtral.processing_pixtral").PixtralProcessor
    finally:
        if find_spec("torchvision") is None:
            del sys.modules[name]


def pixtral_processor(tok: Any, spatial_merge_size: int = 1) -> Any:
    images = t.PixtralImageProcessorPil(size={"longest_edge": 84}, patch_size={"height": 14, "width": 14})
    return pixtral_class()(
        images, tok, patch_size=14, spatial_merge_size=spatial_merge_size, chat_template=template("[IMG]")
    )


def pixtral() -> tuple[Any, Any]:
    tok = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = t.LlavaConfig(
        vision_config=t.PixtralVisionConfig(**VISION, head_dim=8, image_size=56, patch_size=14),
        text_config=t.MistralConfig(**TEXT, head_dim=16, vocab_size=len(tok)),
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return t.LlavaForConditionalGeneration(config), pixtral_processor(tok)


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava-1.5": llava,
    "llava-next": llava_next,
    "llava-onevision": llava_onevision,
    "blip-2": blip_2,
    "instructblip": instructblip,
    "qwen2-vl": qwen2_vl,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen3-vl": qwen3_vl,
    "internvl": internvl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "mistral3": mistral3,
    "pixtral": pixtral,
}


def tiny(family: str) -> tuple[Any, Any]:
    """A family's model, random but always the same, with logits far enough apart, and its processor."""
    torch.manual_seed(0)
    model, processor = FAMILIES[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval(), processor
