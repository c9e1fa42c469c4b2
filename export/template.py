"""The bundle's chat template: the checkpoint's own, or its family's, and how it takes pictures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal, NoReturn

from ..runtime.errors import CheckpointError, TemplateError
from ..runtime.manifest import TemplateSpec
from ..runtime.template import ImageSlot, Plain, TemplateMessage, render
from .checkpoint import Checkpoint
from .family_templates import TEMPLATES, family_of
from .vocabulary import Vocabulary
from .weights import read_json

IMAGE_TOKEN = "<image>"
END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>")
"""Control tokens that end an answer, whatever the checkpoint calls its eos."""
_PROBE = "What colour is it?"


def image_token_of(checkpoint: Checkpoint) -> str:
    """The placeholder that stands for a picture in the checkpoint's prompts."""
    path = checkpoint.folder / "processor_config.json"
    named = read_json(path).get("image_token") if path.is_file() else None
    return named if isinstance(named, str) and named else IMAGE_TOKEN


def read_template(checkpoint: Checkpoint, vocabulary: Vocabulary, image_token: str) -> TemplateSpec:
    """Describe how the bundle turns messages into tokens.

    An original-layout checkpoint gets its family's template, as its tokenizer's own knows no
    pictures. Raises :class:`CheckpointError` where no content style renders a picture's place.
    """
    own = checkpoint_template(checkpoint)
    family = family_of(checkpoint.config.text_config.model_type, vocabulary.control)
    spec = TemplateSpec(
        chat_template=_portable(own or TEMPLATES[family].replace(IMAGE_TOKEN, image_token)),
        content="list",
        image_token=image_token,
        bos_token="" if vocabulary.bos is None else vocabulary.tokens[vocabulary.bos],
        eos_token=vocabulary.tokens[vocabulary.eos],
        add_bos=vocabulary.add_bos,
        special_tokens=vocabulary.control,
        stop_tokens=_stop_tokens(checkpoint.folder, vocabulary),
        space_prefix=vocabulary.space_prefix,
        normalization=vocabulary.normalization,
    )
    return dataclasses.replace(spec, content=_content_style(spec, checkpoint.folder))


def checkpoint_template(checkpoint: Checkpoint) -> str | None:
    """The checkpoint's own template, as the reference's processor finds it, the tokenizer's last."""
    if checkpoint.layout == "original":
        return None
    folder = checkpoint.folder
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        path = folder / name
        template = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(template, list):  # several by name
            named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def _portable(template: str) -> str:
    """Drop transformers' own ``generation`` tag, which marks answers for training and prints nothing."""
    opened = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", template)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", opened)


def _stop_tokens(folder: Path, vocabulary: Vocabulary) -> tuple[str, ...]:
    path = folder / "generation_config.json"
    ids = read_json(path).get("eos_token_id") if path.is_file() else None
    listed: list[Any] = ids if isinstance(ids, list) else [ids]
    named = [token for token, index in vocabulary.control.items() if index in listed]
    ends = [token for token in END_OF_TURN if token in vocabulary.control]
    return tuple(dict.fromkeys([vocabulary.tokens[vocabulary.eos], *named, *ends]))


def _content_style(spec: TemplateSpec, folder: Path) -> Literal["list", "string"]:
    """Render one question about one picture both ways; take the way that keeps both in place."""
    reasons = []
    message = TemplateMessage("user", _PROBE, 1)
    styles: tuple[Literal["list", "string"], ...] = ("list", "string")
    for style in styles:
        try:
            pieces = render(dataclasses.replace(spec, content=style), [message])
        except TemplateError as error:
            reasons.append(error.got)
            continue
        slots = [index for index, piece in enumerate(pieces) if isinstance(piece, ImageSlot)]
        texts = [piece.text for piece in pieces if isinstance(piece, Plain) and _PROBE in piece.text]
        if len(slots) == 1 and len(texts) == 1:
            return style
        reasons.append("the picture or the question is lost")
    return _refuse(f"a chat template in {folder} that places a picture", "; ".join(dict.fromkeys(reasons)))


def _refuse(expected: str, got: str) -> NoReturn:
    raise CheckpointError(expected=expected, got=got, fix="add a chat_template.jinja to the checkpoint")
