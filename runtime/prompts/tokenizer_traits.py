"""What a prompt depends on in a tokenizer: control tokens, BOS, spaces, Unicode form.

Read from transformers' fast tokenizer and the tokenizers library's description of it, without
importing either. Export and training both read a checkpoint's tokenizer here, so a model is served
with the prompts that it was trained on.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import CheckpointError
from .template_spec import Normalization, SpacePrefix

Description = dict[str, Any]
"""A tokenizer.json: normalizer, pre-tokenizer, model, added tokens."""


TURN_MARKUP = re.compile(r"<\|[^<>|\s]+\|>|<｜[^<>\s]+｜>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")
"""Added tokens that are control tokens whatever tokenizer.json says of them: ChatML's and their like."""


@dataclass(frozen=True)
class TokenizerTraits:
    """A tokenizer as ``TemplateSpec`` describes it, before there is a template.

    ``control`` maps every token that only a template may place to its id, in the order of ids;
    ``bos_token`` is empty where there is none. ``named`` are the tokens that transformers gives a template, by the
    names it has there (``pad_token``). ``sentencepiece`` tells it from byte-level BPE.
    """

    sentencepiece: bool
    control: dict[str, int]
    bos_token: str
    eos_token: str
    add_bos: bool
    space_prefix: SpacePrefix
    normalization: Normalization
    named: dict[str, str] = field(default_factory=dict)


def tokenizer_description(tokenizer: Any) -> Description:
    """The description that transformers' fast ``tokenizer`` gives of itself."""
    return dict(json.loads(tokenizer.backend_tokenizer.to_str()))


def read_traits(tokenizer: Any, description: Description, *, image_token: str) -> TokenizerTraits:
    """Read the traits of transformers' fast ``tokenizer`` and its ``description``.

    Raises :class:`CheckpointError` where there is no eos token, or spaces or normalization are of
    a kind that ``segments`` does not know: ids would silently differ.
    """
    if tokenizer.eos_token is None:
        refuse("an eos token", "none")
    sentencepiece = bool(description["model"].get("byte_fallback"))
    return TokenizerTraits(
        sentencepiece=sentencepiece,
        control=_control_tokens(tokenizer, description, image_token),
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token,
        add_bos=tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id,
        space_prefix=_space_prefix(description) if sentencepiece else "none",
        normalization="none" if sentencepiece else _normalization(description),
        named=dict(tokenizer.special_tokens_map),
    )


def _control_tokens(tokenizer: Any, description: Description, image_token: str) -> dict[str, int]:
    """Special added tokens, bos, eos and unk; and those not marked so that are: the image's, and markup of turns.

    A tokenizer finds added tokens in any text. Of those that open and close turns a user must not be able to type one.
    """
    control = {
        one["content"]: one["id"]
        for one in description["added_tokens"]
        if one["special"] or one["content"] == image_token or TURN_MARKUP.fullmatch(one["content"])
    }
    for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token):
        if token is not None:
            control[token] = tokenizer.convert_tokens_to_ids(token)
    return dict(sorted(control.items(), key=lambda item: item[1]))


def _space_prefix(description: Description) -> SpacePrefix:
    """Which plain pieces get a leading space: told by the normalizer or the Metaspace pre-tokenizer."""
    normalizer = normalizer_steps(description)
    kinds = [step["type"] for step in normalizer]
    if not description["pre_tokenizer"] and kinds in (["Prepend", "Replace"], ["Replace"]):
        return "always" if kinds[0] == "Prepend" else "none"
    steps = pre_tokenizer_steps(description)
    if not normalizer and [step["type"] for step in steps] == ["Metaspace"] and not steps[0].get("split", True):
        schemes: dict[str, SpacePrefix] = {"always": "every", "first": "first", "never": "none"}
        return schemes[steps[0]["prepend_scheme"]]
    return refuse("SentencePiece's spaces (Prepend and Replace, or Metaspace)", f"{kinds}")


def _normalization(description: Description) -> Normalization:
    kinds = [step["type"] for step in normalizer_steps(description)]
    if kinds not in ([], ["NFC"]):
        refuse("no normalizer but NFC", f"{kinds}")
    return "NFC" if kinds else "none"


def normalizer_steps(description: Description) -> list[dict[str, Any]]:
    """The normalizer's steps in order; none where there is no normalizer."""
    return _steps(description["normalizer"], "normalizers")


def pre_tokenizer_steps(description: Description) -> list[dict[str, Any]]:
    """The pre-tokenizer's steps in order; none where there is no pre-tokenizer."""
    return _steps(description["pre_tokenizer"], "pretokenizers")


def _steps(part: dict[str, Any] | None, plural: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[plural]) if part["type"] == "Sequence" else [part]


def refuse(expected: str, got: str) -> NoReturn:
    """Refuse a tokenizer. Raises :class:`CheckpointError`."""
    raise CheckpointError(expected=f"{expected} in the tokenizer", got=got, fix="use a supported checkpoint")
