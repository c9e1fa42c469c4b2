"""Small real tokenizers, trained on a fixed text, with the structure of the families' own.

Byte-level BPE with the pre-tokenizers of Llama-3 and Qwen2, and SentencePiece BPE with byte
fallback as Llama-2, Mistral and Yi have it. Nothing here is read by the product.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

CORPUS = (
    "What is in this picture? The picture shows a red square above a blue circle, left of the door.",
    "A chat between a curious human and an artificial intelligence assistant. USER: hi ASSISTANT: hello",
    "You are a helpful assistant. Answer the questions. Describe the image in detail, please!",
    "def main(argument: int) -> None:\n    for index in range(10):\n        print(index, argument)\n",
    "Das Bild zeigt eine große grüne Wiese; daneben stehen fünf Bäume und ein Haus. Schön!",
    "L'été, la forêt est très belle: où êtes-vous? Ça va bien, merci. It's, we're, they'll, I'd.",
    "На картинке изображён большой красный дом, рядом с ним стоит дерево. Что это такое?",
    "这张图片里有什么? 图片里有一只猫和一只狗。 写真には赤い車が写っています。",
    "이 사진에는 무엇이 있습니까? في الصورة بيت كبير أحمر. בתמונה יש בית גדול ואדום.",
    "1 12 123 1234 12345 3.14159 2026-11-22 100% $5.00 a+b=c; x*y != z && (p || q) {} [] <b>text</b>",
    "emoji 😀 🎉 👩‍💻 🇫🇷 end.  two  spaces\t\ttabs\n\nnew lines   \n end   ",
)


@dataclass(frozen=True)
class TokenizerFiles:
    """A trained tokenizer: ``tokenizer.json`` as a value, and the SentencePiece model if it has one."""

    tokenizer: dict[str, Any]
    sentencepiece_model: bytes | None

    @property
    def size(self) -> int:
        """Number of ids in the plain vocabulary and the added tokens together."""
        added = {token["id"] for token in self.tokenizer["added_tokens"]}
        return len(added | set(self.tokenizer["model"]["vocab"].values()))

    def id_of(self, token: str) -> int:
        """Id of an added or plain token."""
        for entry in self.tokenizer["added_tokens"]:
            if entry["content"] == token:
                return int(entry["id"])
        return int(self.tokenizer["model"]["vocab"][token])

    def write(self, folder: Path, *, model_only: bool = False) -> None:
        """Write ``tokenizer.json`` and, where there is one, ``tokenizer.model``."""
        if not (model_only and self.sentencepiece_model):
            text = json.dumps(self.tokenizer, ensure_ascii=False)
            (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        if self.sentencepiece_model is not None:
            (folder / "tokenizer.model").write_bytes(self.sentencepiece_model)


def added_token(identifier: int, content: str, *, special: bool = True) -> dict[str, Any]:
    """One entry of ``added_tokens`` in tokenizer.json."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": identifier, "content": content, **flags, "special": special}


@cache
def byte_level_tokenizer(split: str, special: tuple[str, ...], bos: str | None) -> TokenizerFiles:
    """Byte-level BPE: Llama-3's structure with a ``bos`` post-processor, Qwen2's (NFC) without."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE(ignore_merges=bos is not None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if bos is None:
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(list(special))
    if bos is not None:
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]),
            ]
        )
    return TokenizerFiles(json.loads(tokenizer.to_str()), None)


@cache
def digits_tokenizer(first: tuple[str, ...], added: tuple[str, ...]) -> TokenizerFiles:
    """Byte-level BPE as Granite and StarCoder have it: digits one by one, GPT-2's expression, ``first`` from id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=list(first), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(list(added))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return TokenizerFiles(json.loads(tokenizer.to_str()), None)


@cache
def sentencepiece_tokenizer(added: tuple[str, ...], prefix: str = "every", bos_first: bool = True) -> TokenizerFiles:
    """SentencePiece BPE with byte fallback, and the tokenizer.json that transformers 4 made of it.

    ``prefix`` "every" is the legacy normalizer (``Prepend`` then ``Replace``), "first" the
    Metaspace pre-tokenizer of newer files.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=640,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=0.98,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = {processor.id_to_piece(index): index for index in range(processor.get_piece_size())}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(index, content) for index, content in enumerate(("<unk>", "<s>", "</s>"))]
        + [added_token(len(vocabulary) + index, content) for index, content in enumerate(added)],
        **_space_handling(prefix),
        "post_processor": _bos_processor() if bos_first else None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(vocabulary),
        },
    }
    return TokenizerFiles(tokenizer, model.getvalue())


def _space_handling(prefix: str) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if prefix == "every":
        prepend = {"type": "Prepend", "prepend": "▁"}
        normalizer = {"type": "Sequence", "normalizers": [prepend, replace]}
        return {"normalizer": normalizer, "pre_tokenizer": None}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return {"normalizer": None, "pre_tokenizer": metaspace}


def _bos_processor() -> dict[str, Any]:
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }


def _merges(vocabulary: dict[str, int]) -> list[str]:
    """Every split of every piece into two pieces, in the order of the pieces (SentencePiece's)."""
    found = []
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        if piece in ("<unk>", "<s>", "</s>") or piece.startswith("<0x"):
            continue
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        pairs = [pair for pair in splits if pair[0] in vocabulary and pair[1] in vocabulary]
        found += sorted(pairs, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return [f"{left} {right}" for left, right in found]
