"""A tokenizer as llama.cpp needs it: tokens by id with type and score, merges, and its kind.

llama.cpp knows BPE pre-tokenizers by name, so a tokenizer's is recognised by its own description,
never by the checkpoint's. Whatever is not recognised is refused: ids would silently differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, NoReturn

from ..runtime.errors import CheckpointError
from .tokenizer import tokenizer_json

_CONTRACTIONS_AND_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SYMBOLS_AND_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    _CONTRACTIONS_AND_WORDS + r"\p{N}{1,3}" + _SYMBOLS_AND_SPACES: "llama-bpe",
    _CONTRACTIONS_AND_WORDS + r"\p{N}" + _SYMBOLS_AND_SPACES: "qwen2",
}
"""Split expressions of byte-level BPE tokenizers and llama.cpp's names for them."""

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


SpacePrefix = Literal["none", "first", "every", "always"]


@dataclass(frozen=True)
class Vocabulary:
    """Everything about a tokenizer that goes into a GGUF.

    ``model`` is "gpt2" for byte-level BPE, "llama" for SentencePiece. ``control`` maps every token
    that only a template may place to its id; ``normalization`` is the Unicode form text gets first.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    control: dict[str, int]
    bos: int | None
    eos: int
    unknown: int | None
    pad: int | None
    add_bos: bool
    add_eos: bool
    space_prefix: SpacePrefix
    normalization: Literal["none", "NFC"]


def read_vocabulary(tokenizer: Any, *, size: int, image_token: str) -> Vocabulary:
    """Describe ``tokenizer`` for a model whose embedding matrix has ``size`` rows.

    Rows without a token get unused ``[PAD…]`` tokens. Raises :class:`CheckpointError` for other
    kinds of tokenizer and for tokens without a row.
    """
    description = tokenizer_json(tokenizer)
    model = description["model"]
    if model.get("type") != "BPE":
        _refuse("a BPE tokenizer", str(model.get("type")))
    sentencepiece = bool(model.get("byte_fallback"))
    control = _control_tokens(tokenizer, description, image_token)
    tokens, types = _tokens(description, size, control, sentencepiece)
    ids = tokenizer("a")["input_ids"]
    if tokenizer.eos_token_id is None:
        _refuse("an eos token", "none")
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece else _pre_tokenizer(description),
        tokens=tokens,
        types=types,
        scores=_scores(model, tokens) if sentencepiece else (),
        merges=() if sentencepiece else tuple(_merge_text(merge) for merge in model["merges"]),
        control=control,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        unknown=tokenizer.unk_token_id,
        pad=tokenizer.pad_token_id,
        add_bos=ids[0] == tokenizer.bos_token_id,
        add_eos=ids[-1] == tokenizer.eos_token_id,
        space_prefix=_space_prefix(description) if sentencepiece else "none",
        normalization="NFC" if _is_nfc(description, sentencepiece) else "none",
    )


def _control_tokens(tokenizer: Any, description: dict[str, Any], image_token: str) -> dict[str, int]:
    """Special added tokens, bos, eos and unk, and the image token even if it is not marked special."""
    added = description["added_tokens"]
    control = {one["content"]: one["id"] for one in added if one["special"] or one["content"] == image_token}
    for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token):
        if token is not None:
            control[token] = tokenizer.convert_tokens_to_ids(token)
    return dict(sorted(control.items(), key=lambda item: item[1]))


def _tokens(
    description: dict[str, Any], size: int, control: dict[str, int], sentencepiece: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
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
        _refuse(f"an embedding for every token ({max(names) + 1})", f"{size} rows")
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
    steps = _steps(description["pre_tokenizer"], "pretokenizers")
    kinds = [step.get("type") for step in steps]
    if kinds == ["Split", "ByteLevel"]:
        split, byte_level = steps
        name = PRE_TOKENIZERS.get(split["pattern"].get("Regex", ""))
        plain = not byte_level.get("add_prefix_space") and byte_level.get("use_regex") is False
        if name and plain and split["behavior"] == "Isolated" and not split["invert"]:
            return name
    return _refuse(f"the pre-tokenizer of {' or '.join(PRE_TOKENIZERS.values())}", f"{kinds}")


def _space_prefix(description: dict[str, Any]) -> SpacePrefix:
    """Which plain pieces get a leading space: told by the normalizer or the Metaspace pre-tokenizer."""
    normalizer = _steps(description["normalizer"], "normalizers")
    kinds = [step["type"] for step in normalizer]
    if not description["pre_tokenizer"] and kinds in (["Prepend", "Replace"], ["Replace"]):
        return "always" if kinds[0] == "Prepend" else "none"
    steps = _steps(description["pre_tokenizer"], "pretokenizers")
    if not normalizer and [step["type"] for step in steps] == ["Metaspace"] and not steps[0].get("split", True):
        schemes: dict[str, SpacePrefix] = {"always": "every", "first": "first", "never": "none"}
        return schemes[steps[0]["prepend_scheme"]]
    return _refuse("SentencePiece's spaces (Prepend and Replace, or Metaspace)", f"{kinds}")


def _is_nfc(description: dict[str, Any], sentencepiece: bool) -> bool:
    kinds = [step["type"] for step in _steps(description["normalizer"], "normalizers")]
    if not sentencepiece and kinds not in ([], ["NFC"]):
        _refuse("no normalizer but NFC", f"{kinds}")
    return kinds == ["NFC"]


def _steps(part: dict[str, Any] | None, plural: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[plural]) if part["type"] == "Sequence" else [part]


def _refuse(expected: str, got: str) -> NoReturn:
    raise CheckpointError(expected=f"{expected} in the tokenizer", got=got, fix="use a supported checkpoint")
