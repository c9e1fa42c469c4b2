"""How the base checkpoint turns messages into text and text into ids, as the runtime will do it.

``read_template_spec`` describes the checkpoint's tokenizer and chat template in the runtime's own
terms (:class:`TemplateSpec`), as export does for a bundle; a test holds the two descriptions equal.
``plain_tokenizer`` gives transformers' tokenizer the runtime's contract: plain text to ids, no
control tokens, no BOS, no space of its own.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from ..runtime.errors import OptionError, TemplateError
from ..runtime.manifest import TemplateSpec
from ..runtime.segments import Tokenize
from ..runtime.template import ImageSlot, Plain, TemplateMessage, render

SpacePrefix = Literal["none", "first", "every", "always"]
_PROBE = "What colour is it?"
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>")


def read_template_spec(tokenizer: Any, *, chat_template: str, image_token: str) -> TemplateSpec:
    """Describe ``tokenizer`` (transformers', fast) and ``chat_template`` for the runtime's renderer.

    Raises :class:`OptionError` for a template that does not place a picture or a tokenizer whose
    spaces the runtime does not know.
    """
    description = _description(tokenizer)
    control = _control_tokens(tokenizer, description, image_token)
    eos = tokenizer.eos_token
    spec = TemplateSpec(
        chat_template=_portable(chat_template),
        content="list",
        image_token=image_token,
        bos_token=tokenizer.bos_token or "",
        eos_token=eos,
        add_bos=tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id,
        special_tokens=control,
        stop_tokens=tuple(dict.fromkeys([eos, *(one for one in _ENDS if one in control)])),
        space_prefix=_space_prefix(description),
        normalization="NFC" if "NFC" in _kinds(description["normalizer"], "normalizers") else "none",
    )
    return dataclasses.replace(spec, content=_content_style(spec))


def plain_tokenizer(tokenizer: Any, spec: TemplateSpec) -> Tokenize:
    """Plain text to ids with transformers' own tables: what llama.cpp's tokenizer gives the runtime."""
    from tokenizers import Tokenizer

    description = _description(tokenizer)
    control = set(spec.special_tokens)
    description["added_tokens"] = [one for one in description["added_tokens"] if one["content"] not in control]
    description["post_processor"] = None
    steps = _steps(description["normalizer"], "normalizers")
    kept = [step for step in steps if step["type"] != "Prepend"]
    description["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for step in _steps(description["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
    return PlainTokenizer(Tokenizer.from_str(json.dumps(description)))


@dataclass(frozen=True)
class PlainTokenizer:
    """A tokenizer of plain text that can be sent to a worker process."""

    backend: Any

    def __call__(self, text: str) -> list[int]:
        """The ids of ``text``."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)


def _portable(template: str) -> str:
    """Drop transformers' own ``generation`` tag, which marks answers for training and prints nothing."""
    opened = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", template)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", opened)


def _description(tokenizer: Any) -> dict[str, Any]:
    return dict(json.loads(tokenizer.backend_tokenizer.to_str()))


def _control_tokens(tokenizer: Any, description: dict[str, Any], image_token: str) -> dict[str, int]:
    added = description["added_tokens"]
    control = {one["content"]: one["id"] for one in added if one["special"] or one["content"] == image_token}
    for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token):
        if token is not None:
            control[token] = tokenizer.convert_tokens_to_ids(token)
    return dict(sorted(control.items(), key=lambda item: item[1]))


def _space_prefix(description: dict[str, Any]) -> SpacePrefix:
    if not description["model"].get("byte_fallback"):
        return "none"  # byte-level BPE
    if "Prepend" in _kinds(description["normalizer"], "normalizers"):
        return "always"
    steps = _steps(description["pre_tokenizer"], "pretokenizers")
    if [step["type"] for step in steps] == ["Metaspace"]:
        schemes: dict[str, SpacePrefix] = {"always": "every", "first": "first", "never": "none"}
        return schemes[steps[0]["prepend_scheme"]]
    if not steps:
        return "none"
    raise OptionError(
        expected="a SentencePiece tokenizer with Prepend or Metaspace",
        got=", ".join(step["type"] for step in steps),
        fix="use a supported base model",
    )


def _content_style(spec: TemplateSpec) -> Literal["list", "string"]:
    """The way of writing messages in which the template keeps both a picture and its question."""
    styles: tuple[Literal["list", "string"], ...] = ("list", "string")
    for style in styles:
        try:
            pieces = render(dataclasses.replace(spec, content=style), [TemplateMessage("user", _PROBE, 1)])
        except TemplateError:
            continue
        texts = [piece.text for piece in pieces if isinstance(piece, Plain) and _PROBE in piece.text]
        if sum(isinstance(piece, ImageSlot) for piece in pieces) == 1 and len(texts) == 1 and "'type'" not in texts[0]:
            return style
    raise OptionError(
        expected="a chat template that places a picture", got="none that does", fix="set model.chat_template"
    )


def _kinds(part: dict[str, Any] | None, plural: str) -> list[str]:
    return [step["type"] for step in _steps(part, plural)]


def _steps(part: dict[str, Any] | None, plural: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[plural]) if part["type"] == "Sequence" else [part]
