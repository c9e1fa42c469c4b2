"""A tokenizer as llama.cpp needs it: tokens by id with type and score, merges, and its kind.

llama.cpp knows BPE pre-tokenizers by name, so a tokenizer's is recognised by its own description,
never by the checkpoint's. Whatever is not recognised is refused: ids would silently differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from ...runtime.prompts.tokenizer_traits import (
    TokenizerTraits,
    pre_tokenizer_steps,
    read_traits,
    refuse,
    tokenizer_description,
)

_CONTRACTIONS_AND_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SYMBOLS_AND_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    _CONTRACTIONS_AND_WORDS + r"\p{N}{1,3}" + _SYMBOLS_AND_SPACES: "llama-bpe",
    _CONTRACTIONS_AND_WORDS + r"\p{N}" + _SYMBOLS_AND_SPACES: "qwen2",
}
"""Split expressions of byte-level BPE tokenizers and llama.cpp's names for them."""

_DIGITS = "refact"
"""llama.cpp's name for digits one by one and GPT-2's expression, as Granite's and StarCoder's tokenizers have them."""
NEVER_MERGED = -1e9
"""Score of a SentencePiece piece that no merge makes."""


class TokenType(IntEnum):
    """GGUF's token types."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Everything about a tokenizer that goes into a GGUF.

    ``model`` is "gpt2" for byte-level BPE, "llama" for SentencePiece.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    traits: TokenizerTraits
    bos: int | None
    eos: int
    unknown: int | None
    pad: int | None
    add_eos: bool


def read_vocabulary(tokenizer: Any, *, size: int, image_token: str) -> Vocabulary:
    """Describe ``tokenizer`` for a model whose embedding matrix has ``size`` rows.

    Rows without a token get unused ``[PAD…]`` tokens. Raises :class:`CheckpointError` for other
    kinds of tokenizer and for tokens without a row.
    """
    description = tokenizer_description(tokenizer)
    model = description["model"]
    if model.get("type") != "BPE":
        refuse("a BPE tokenizer", str(model.get("type")))
    traits = read_traits(tokenizer, description, image_token=image_token)
    sentencepiece = traits.sentencepiece
    tokens, types = _tokens(description, size, traits)
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece else _pre_tokenizer(description),
        tokens=tokens,
        types=types,
        scores=_scores(model, tokens) if sentencepiece else (),
        merges=() if sentencepiece else tuple(_merge_text(merge) for merge in model["merges"]),
        traits=traits,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        unknown=tokenizer.unk_token_id,
        pad=tokenizer.pad_token_id,
        add_eos=tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id,
    )


def _tokens(description: dict[str, Any], size: int, traits: TokenizerTraits) -> tuple[tuple[str, ...], tuple[int, ...]]:
    control, sentencepiece = traits.control, traits.sentencepiece
    names = {index: token for token, index in description["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, TokenType.NORMAL)
    if sentencepiece:
        kinds.update({index: TokenType.BYTE for index, token in names.items() if _is_byte(token)})
    for token in description["added_tokens"]:
        names[token["id"]] = token["content"]
        kinds[token["id"]] = TokenType.USER_DEFINED
    kinds.update(dict.fromkeys(control.values(), TokenType.CONTROL))
    unknown = description["model"].get("unk_token")
    if sentencepiece and unknown in control:
        kinds[control[unknown]] = TokenType.UNKNOWN
    if names and max(names) >= size:
        refuse(f"an embedding for every token ({max(names) + 1})", f"{size} rows")
    tokens = tuple(names.get(index, f"[PAD{index}]") for index in range(size))
    return tokens, tuple(int(kinds.get(index, TokenType.UNUSED)) for index in range(size))


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _merge_text(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(merge)


def _scores(model: dict[str, Any], tokens: tuple[str, ...]) -> tuple[float, ...]:
    """SentencePiece merges by score: a piece's is minus the rank of the first merge that makes it."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(pair), rank)
    return tuple(-float(ranks[token]) if token in ranks else NEVER_MERGED for token in tokens)


def _pre_tokenizer(description: dict[str, Any]) -> str:
    steps = pre_tokenizer_steps(description)
    kinds = [step.get("type") for step in steps]
    if kinds == ["Split", "ByteLevel"]:
        split, byte_level = steps
        name = PRE_TOKENIZERS.get(split["pattern"].get("Regex", ""))
        plain = not byte_level.get("add_prefix_space") and byte_level.get("use_regex") is False
        if name and plain and split["behavior"] == "Isolated" and not split["invert"]:
            return name
    if kinds == ["Digits", "ByteLevel"]:
        digits, byte_level = steps
        if digits.get("individual_digits") and byte_level.get("use_regex") and not byte_level.get("add_prefix_space"):
            return _DIGITS
    return refuse(f"the pre-tokenizer of {', '.join([*PRE_TOKENIZERS.values(), _DIGITS])}", f"{kinds}")
