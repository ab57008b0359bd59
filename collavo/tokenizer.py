"""Tokenizers: InternLM2's from its released files, any fast one, and a small one that the project makes itself.

InternLM2's (arXiv 2403.17297) is a SentencePiece BPE with byte fallback. The released directory brings it as
``tokenizer.model`` with Python code of its own; that code is never run: the class below gives the same ids from the
SentencePiece library.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AddedToken, PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modeling.files import check_real, is_file, read_object
from modeling.segmenters.coco import COCO_PANOPTIC, display_name

from .errors import CheckpointError, as_checkpoint_error
from .template import CHAT, DEMO, IMAGE_TAG, START_TAG, STOP_TAG

MODEL_FILE, FAST_FILE = "tokenizer.model", "tokenizer.json"
CONFIG_FILE, SPECIAL_FILE, ADDED_FILE = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
SPECIAL_NAMES = ("unk_token", "bos_token", "eos_token", "pad_token")


class InternLM2Tokenizer(PreTrainedTokenizer):  # type: ignore[misc, unused-ignore]
    """InternLM2's tokenizer on the SentencePiece library: ``<s>`` in front, nothing behind.

    Args:
        vocab_file: the SentencePiece model.
        **kwargs: as for every transformers tokenizer.
    """

    vocab_files_names = {"vocab_file": MODEL_FILE}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        from sentencepiece import SentencePieceProcessor

        self.vocab_file = vocab_file
        self.sentencepiece = SentencePieceProcessor(model_file=vocab_file)
        for name, token in (("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "</s>")):
            kwargs.setdefault(name, token)
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Pieces of the SentencePiece model, without added tokens."""
        return int(self.sentencepiece.get_piece_size())

    def get_vocab(self) -> dict[str, int]:
        """All tokens with their ids, added ones included; a piece whose id an added token takes is left out."""
        pieces = self.convert_ids_to_tokens(list(range(self.vocab_size)))
        vocabulary = {str(piece): index for index, piece in enumerate(pieces)}
        return {**vocabulary, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(self.sentencepiece.encode(text, out_type=str))

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.sentencepiece.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.sentencepiece.id_to_piece(index))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces to text; added tokens in between stay as they are written."""
        text = ""
        run: list[str] = []
        added = self.added_tokens_encoder
        for token in tokens:
            if token in added:
                text += self.sentencepiece.decode(run) + token
                run = []
            else:
                run.append(token)
        return text + str(self.sentencepiece.decode(run))

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Put ``<s>`` in front."""
        return [self.bos_token_id, *token_ids_0, *(token_ids_1 or [])]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copy the SentencePiece model."""
        target = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}{MODEL_FILE}"
        if Path(self.vocab_file).resolve() != target.resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a checkpoint directory, ready for left-padded batches with ``<image>``.

    Args:
        directory: holds InternLM2's ``tokenizer.model`` or a fast ``tokenizer.json``, with their JSON files.

    Raises:
        CheckpointError: neither is there, a file is unreadable, or SentencePiece is not installed.
    """
    with as_checkpoint_error(f"{directory}: the tokenizer's files cannot be read"):
        if is_file(directory / MODEL_FILE):
            tokenizer: PreTrainedTokenizerBase = _load_internlm2(directory)
        elif is_file(directory / FAST_FILE):
            for name in (FAST_FILE, CONFIG_FILE):
                _json(directory / name)
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
        else:
            raise CheckpointError(f"{directory}: no tokenizer there (looked for {MODEL_FILE}, {FAST_FILE})")
        wrong = _prepare(tokenizer)
    if wrong:
        raise CheckpointError(f"{directory}: the ids of {', '.join(wrong)} are taken by other tokens of {CONFIG_FILE}")
    return tokenizer


def _load_internlm2(directory: Path) -> InternLM2Tokenizer:
    """Build the tokenizer with the tokens that the JSON files next to the model add, at the ids that these give."""
    check_real(directory / MODEL_FILE)
    config = _json(directory / CONFIG_FILE)
    named = {name: value for name, value in config.items() if name in SPECIAL_NAMES}
    named |= {name: value for name, value in _json(directory / SPECIAL_FILE).items() if name in SPECIAL_NAMES}
    added = {int(index): _added_token(token) for index, token in config.get("added_tokens_decoder", {}).items()}
    added |= {int(index): _added_token(token) for token, index in _json(directory / ADDED_FILE).items()}
    contents = {name: _added_token(value).content for name, value in named.items() if value is not None}
    return InternLM2Tokenizer(str(directory / MODEL_FILE), added_tokens_decoder=added, **contents)


def _prepare(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Left padding, a pad token, the tags as single ids, ``<image>`` as the last one where it is missing.

    Returns: tags that could not get the id that the vocabulary has for them.
    """
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    wrong = []
    for tag in (STOP_TAG, START_TAG, IMAGE_TAG):
        index = tokenizer.convert_tokens_to_ids(tag)
        known = index is not None and index != tokenizer.unk_token_id
        if not known or index not in tokenizer(tag, add_special_tokens=False).input_ids:
            tokenizer.add_tokens(AddedToken(tag, special=True, normalized=False), special_tokens=True)
        if known and tokenizer.convert_tokens_to_ids(tag) != index:
            wrong.append(tag)
    return wrong


def _added_token(token: Any) -> AddedToken:
    """A token as the JSON files write it: its text, or a mapping of ``content`` and how to strip around it."""
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    stripping = {name: bool(token.get(name, False)) for name in ("lstrip", "rstrip", "single_word")}
    return AddedToken(str(token["content"]), special=bool(token.get("special", True)), normalized=False, **stripping)


def _json(file: Path) -> dict[str, Any]:
    """A JSON object from a file, {} where there is none.

    Raises:
        FileError: it is unreadable.
    """
    return read_object(file) if os.path.lexists(file) else {}


def tiny_tokenizer(pieces: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A small tokenizer, made from code: whole words for what prompts are full of, single bytes for all else.

    Args:
        pieces: texts of any length that become one piece each, in place of the common words.
    Returns: some 850 ids, or as many as there are pieces, bytes and tags; any text comes back from its ids as it was,
        in the fewest pieces that there are. ``<image>`` is the last id.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pieces)  # words, or the text as it is
    special = ("<unk>", "<s>", "</s>")
    known = dict.fromkeys((*special, *sorted(split.alphabet())))
    for text in pieces or _common_texts():
        known |= dict.fromkeys(piece for piece, _ in split.pre_tokenize_str(text))
    # equal scores: the likeliest way to cut a text is the one with the fewest pieces
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in known], unk_id=0))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (*special, START_TAG, STOP_TAG, IMAGE_TAG)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _common_texts() -> list[str]:
    """What prompts and short answers are made of: templates, class names, numbers, common questions."""
    names = [display_name(category.name) for category in COCO_PANOPTIC]
    objects = ", ".join(f"(#1 {name}) [0.00, 0.00, 1.00, 1.00]" for name in names)
    prompts = [t.prompt(told, "") for t in (CHAT, DEMO) for told in (objects, "", None)]
    tags = "|".join(map(re.escape, (START_TAG, STOP_TAG, IMAGE_TAG)))
    templates = [text for prompt in prompts for text in re.split(tags, prompt)]
    asked = "Is there a an any in this image? How many people What Which color where object is in the specified box"
    brief = "Answer the question using a single word or phrase. Answer with the letter of given choices directly"
    short = " Yes No yes no none one two three four five six Sure, it is are left right above below of on and A B C D"
    numbers = [f"{number:02d}" for number in range(100)]
    return [*templates, asked, f"\n{brief}", short, *short.split(), *asked.split(), *names, *numbers]
