"""Tokenizers: InternLM2's from its released files, any fast one, and a small one that the project makes itself.

InternLM2's (arXiv 2403.17297) is a SentencePiece BPE with byte fallback. The released directory brings it as
``tokenizer.model`` with Python code of its own; that code is never run: the class below gives the same ids from the
SentencePiece library.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AddedToken, PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modeling.segmenters.coco import COCO_PANOPTIC, display_name

from .errors import CheckpointError
from .template import CHAT, DEMO, IMAGE_TAG, NO_OBJECTS, START_TAG, STOP_TAG

MODEL_FILE, FAST_FILE = "tokenizer.model", "tokenizer.json"


class InternLM2Tokenizer(PreTrainedTokenizer):  # type: ignore[misc]
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
        """All tokens with their ids, added ones included."""
        pieces = {self.sentencepiece.id_to_piece(index): index for index in range(self.vocab_size)}
        return pieces | self.added_tokens_encoder

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return list(self.sentencepiece.encode(text, out_type=str))

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.sentencepiece.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.sentencepiece.id_to_piece(index))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces to text; added tokens in between stay as they are written."""
        text, run = "", []
        for token in tokens:
            if token in self.added_tokens_encoder:
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
        CheckpointError: neither is there, or a file is unreadable.
    """
    try:
        if (directory / MODEL_FILE).is_file():
            tokenizer: PreTrainedTokenizerBase = _load_internlm2(directory)
        elif (directory / FAST_FILE).is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        else:
            raise CheckpointError(f"{directory}: no tokenizer there (looked for {MODEL_FILE}, {FAST_FILE})")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{directory}: the tokenizer cannot be read ({error})") from error
    return _prepare(tokenizer)


def _load_internlm2(directory: Path) -> InternLM2Tokenizer:
    """Build the tokenizer with the tokens that the JSON files beside the model add."""
    config = _json(directory / "tokenizer_config.json")
    special = {
        k: _text(v) for k, v in _json(directory / "special_tokens_map.json").items() if k.endswith("_token") and v
    }
    tokenizer = InternLM2Tokenizer(str(directory / MODEL_FILE), **special)
    added = {int(index): _text(token) for index, token in config.get("added_tokens_decoder", {}).items()}
    added |= {int(index): token for token, index in _json(directory / "added_tokens.json").items()}
    for index, token in sorted(added.items()):
        if tokenizer.convert_tokens_to_ids(token) != index:
            tokenizer.add_tokens(AddedToken(token, special=True, normalized=False), special_tokens=True)
        if tokenizer.convert_tokens_to_ids(token) != index:
            raise CheckpointError(f"{directory}: '{token}' should have id {index}, the files make it another")
    return tokenizer


def _prepare(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Left padding, a pad token, the tags as single ids, ``<image>`` as the last one where it is missing."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for tag in (START_TAG, STOP_TAG, IMAGE_TAG):
        ids = tokenizer(tag, add_special_tokens=False).input_ids
        if tokenizer.convert_tokens_to_ids(tag) not in ids:
            tokenizer.add_tokens(AddedToken(tag, special=True, normalized=False), special_tokens=True)
    return tokenizer


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A small tokenizer, made from code: whole words for what prompts are full of, single bytes for all else.

    Returns: about 800 ids; any text comes back from its ids as it was. ``<image>`` is the last id.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = {token: index for index, token in enumerate((*special, *alphabet))}
    merges: list[tuple[str, str]] = []
    for word in _common_words():
        _add_word(word.replace(" ", "Ġ"), vocabulary, merges)  # the byte-level alphabet writes a space as Ġ
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (START_TAG, STOP_TAG, IMAGE_TAG)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
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


def _common_words() -> list[str]:
    """Words of the templates, class names, short answers and numbers, each with the space that precedes it."""
    templates = (CHAT.prompt("", ""), CHAT.prompt(None, ""), DEMO.prompt("", ""), NO_OBJECTS, " The image includes")
    asked = " Is there a an in the image? Answer the question using a single word or phrase. How many What which object"
    answered = " Yes No yes no none one two three four five six A B C D Sure, it is left right above below of on and"
    names = " ".join(display_name(category.name) for category in COCO_PANOPTIC)
    text = " ".join((*templates, asked, answered, names)).replace("-", " ")
    words = [word for word in dict.fromkeys(text.split()) if word.isascii() and word.isalpha()]
    numbers = [f"{n:02d}" for n in range(100)]
    return [*(f" {word}" for word in words), *("Yes", "No", "user", "assistant", "person"), *numbers]


def _add_word(word: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Add a word and the chain of merges that builds it from its letters."""
    built = word[0]
    for letter in word[1:]:
        if built + letter not in vocabulary:
            vocabulary[built + letter] = len(vocabulary)
            merges.append((built, letter))
        built += letter
