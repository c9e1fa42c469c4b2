"""How the base checkpoint turns messages into text and text into ids, as the runtime will do it.

``read_template_spec`` describes the checkpoint's tokenizer and chat template in the runtime's own
terms (:class:`TemplateSpec`), by the code that export uses for a bundle.
``plain_tokenizer`` gives transformers' tokenizer the runtime's contract: plain text to ids, no
control tokens, no BOS, no space of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ...runtime.prompts.describe import describe_template
from ...runtime.prompts.segments import Tokenize
from ...runtime.prompts.template_spec import TemplateSpec
from ...runtime.prompts.tokenizer_traits import (
    normalizer_steps,
    pre_tokenizer_steps,
    read_traits,
    tokenizer_description,
)


def read_template_spec(tokenizer: Any, *, chat_template: str, image_token: str) -> TemplateSpec:
    """Describe ``tokenizer`` (transformers', fast) and ``chat_template`` for the runtime's renderer.

    Raises :class:`CheckpointError` for a template that does not place a picture or a tokenizer
    whose spaces the runtime does not know.
    """
    traits = read_traits(tokenizer, tokenizer_description(tokenizer), image_token=image_token)
    return describe_template(
        traits, chat_template=chat_template, image_token=image_token, where=str(tokenizer.name_or_path)
    )


def plain_tokenizer(tokenizer: Any, spec: TemplateSpec) -> Tokenize:
    """Plain text to ids with transformers' own tables: what llama.cpp's tokenizer gives the runtime."""
    from tokenizers import Tokenizer

    description = tokenizer_description(tokenizer)
    control = set(spec.special_tokens)
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] not in control]
    description["post_processor"] = None
    kept = [step for step in normalizer_steps(description) if step["type"] != "Prepend"]
    description["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for step in pre_tokenizer_steps(description):
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
