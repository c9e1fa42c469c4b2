"""A chat template and a tokenizer's traits, described as the bundle's ``TemplateSpec``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Literal

from ..errors import CheckpointError, TemplateError
from .template import ImageSlot, Plain, TemplateMessage, render
from .template_spec import TemplateSpec
from .tokenizer_traits import TokenizerTraits

END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>")
"""Control tokens that end an answer, whatever the checkpoint calls its eos."""
USUAL_NAMES = {"bos_token", "eos_token"}
_PROBE = "What colour is it?"


def describe_template(
    traits: TokenizerTraits,
    *,
    chat_template: str,
    image_token: str,
    where: str,
    end_ids: Collection[int] = (),
) -> TemplateSpec:
    """Describe how ``chat_template`` turns messages into tokens of the tokenizer with ``traits``.

    ``end_ids`` are more tokens that end an answer, ``where`` is the checkpoint that errors name.
    Raises :class:`CheckpointError` where no content style renders a picture's place.
    """
    spec = TemplateSpec(
        chat_template=_portable(chat_template),
        content="list",
        image_token=image_token,
        bos_token=traits.bos_token,
        eos_token=traits.eos_token,
        add_bos=traits.add_bos,
        special_tokens=traits.control,
        stop_tokens=_stop_tokens(traits, end_ids),
        space_prefix=traits.space_prefix,
        normalization=traits.normalization,
        named_tokens=_named_tokens(traits, chat_template),
        other_stops=tuple(sorted(set(end_ids) - set(traits.control.values()))) or None,
    )
    return dataclasses.replace(spec, content=_content_style(spec, where))


def _portable(template: str) -> str:
    """Spell transformers' own ``generation`` tag, which marks answers for training, as a block that prints the same.

    What is set inside it does not leave it there, and so not here.
    """
    opened = re.sub(r"\{%([-+]?)\s*generation\s*([-+]?)%\}", r"{%\1 filter string \2%}", template)
    return re.sub(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}", r"{%\1 endfilter \2%}", opened)


def _named_tokens(traits: TokenizerTraits, chat_template: str) -> dict[str, str] | None:
    """The tokens that the template may ask for by name, where those are not just BOS and eos."""
    asked = {name for name in re.findall(r"\b\w+_token\b", chat_template) if name in traits.named}
    missing_bos = "bos_token" in chat_template and not traits.bos_token
    return {name: traits.named[name] for name in sorted(asked)} if missing_bos or asked - USUAL_NAMES else None


def _stop_tokens(traits: TokenizerTraits, end_ids: Collection[int]) -> tuple[str, ...]:
    named = [token for token, index in traits.control.items() if index in end_ids]
    ends = [token for token in END_OF_TURN if token in traits.control]
    return tuple(dict.fromkeys([traits.eos_token, *named, *ends]))


def _content_style(spec: TemplateSpec, where: str) -> Literal["list", "string"]:
    """Render one question about one picture both ways; take the way that keeps both in place."""
    reasons = []
    styles: tuple[Literal["list", "string"], ...] = ("list", "string")
    for style in styles:
        try:
            pieces = render(dataclasses.replace(spec, content=style), [TemplateMessage("user", _PROBE, 1)])
        except TemplateError as error:
            reasons.append(error.got)
            continue
        slots = [piece for piece in pieces if isinstance(piece, ImageSlot)]
        texts = [piece.text for piece in pieces if isinstance(piece, Plain) and _PROBE in piece.text]
        if len(slots) == 1 and len(texts) == 1 and "'type'" not in texts[0]:  # else a list was printed as it is
            return style
        reasons.append("the picture or the question is lost")
    raise CheckpointError(
        expected=f"a chat template in {where} that places a picture",
        got="; ".join(dict.fromkeys(reasons)),
        fix="add a chat_template.jinja to the checkpoint",
    )
