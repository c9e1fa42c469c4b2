"""How messages become text, and text becomes tokens: what a bundle says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SpacePrefix = Literal["none", "first", "every", "always"]
Normalization = Literal["none", "NFC"]


@dataclass(frozen=True)
class TemplateSpec:
    """How messages become text, and text becomes tokens.

    ``content`` says whether the jinja template expects message content as a list of parts
    ("list", with ``{"type": "image"}`` entries) or as one string with ``image_token`` in it.
    ``special_tokens`` are the strings that the template, and never a user, may turn into control
    tokens. ``space_prefix`` says which plain pieces get SentencePiece's leading space: "none"; only
    the "first" of the prompt or "every" one, both unless the piece begins with a space already
    (tokenizers' Metaspace); or "always", even then (tokenizers' Prepend normalizer).
    ``normalization`` is the Unicode form that the reference's tokenizer gives plain text first;
    llama.cpp's gives none (Qwen's "e" + U+0301 would become two tokens instead of "é").
    ``named_tokens`` are the names that transformers gives the template (``pad_token``), where those are not just
    ``bos_token`` and ``eos_token``; ``other_stops`` are ids that end an answer and are ordinary tokens of text.
    """

    chat_template: str
    content: Literal["list", "string"]
    image_token: str
    bos_token: str
    eos_token: str
    add_bos: bool
    special_tokens: dict[str, int]
    stop_tokens: tuple[str, ...]
    space_prefix: SpacePrefix
    normalization: Normalization = "none"
    named_tokens: dict[str, str] | None = None
    other_stops: tuple[int, ...] | None = None

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids of all tokens that end an answer."""
        return frozenset({*(self.special_tokens[token] for token in self.stop_tokens), *(self.other_stops or ())})
