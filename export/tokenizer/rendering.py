"""The checkpoint's chat template through transformers, and held against ours before a weight is written."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NoReturn

from ...runtime.errors import CheckpointError, TemplateError, first_line, shown
from ...runtime.prompts.template import Control, ImageSlot, TemplateMessage, render
from ...runtime.prompts.template_environment import TemplateTooLarge, asks_for_the_date, rendering_at
from ...runtime.prompts.template_spec import TemplateSpec

ODD_TEXT = ' <b>&amp; "é" \'x\'</b> {"a": [1]} \\n %s {{ x }} \n'
"""What a filter of one environment spells otherwise than another's, and spaces at both ends."""
CONVERSATIONS: tuple[tuple[TemplateMessage, ...], ...] = (
    (TemplateMessage("user", "What colour is it?", 1),),
    (
        TemplateMessage("user", ODD_TEXT, 1),
        TemplateMessage("assistant", ODD_TEXT),
        TemplateMessage("user", ODD_TEXT, 2),
    ),
    (TemplateMessage("system", ODD_TEXT), TemplateMessage("user", ODD_TEXT)),
)
_ATTEMPTS = 5


def reference_text(tokenizer: Any, spec: TemplateSpec, messages: Sequence[TemplateMessage], template: str) -> str:
    """``messages`` as transformers renders them with ``template``, by the clock on the wall. Raises what it raises."""
    return str(
        tokenizer.apply_chat_template(
            [{"role": one.role, "content": _content(one, spec)} for one in messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
    )


def _content(message: TemplateMessage, spec: TemplateSpec) -> Any:
    if spec.content == "list":
        return [*[{"type": "image"}] * message.images, {"type": "text", "text": message.text}]
    return f"{spec.image_token}\n" * message.images + message.text


def dated_text(
    tokenizer: Any, spec: TemplateSpec, messages: Sequence[TemplateMessage], template: str
) -> tuple[str, datetime.datetime | None]:
    """The same, and at what time our rendering gives it too; None where the template asks for none."""
    if not asks_for_the_date(template):
        return reference_text(tokenizer, spec, messages, template), None
    for _ in range(_ATTEMPTS):  # a second may pass between
        clock = datetime.datetime.now()
        text = reference_text(tokenizer, spec, messages, template)
        if _ours(spec, messages, clock) == text:
            break
    return text, clock


def check_template(tokenizer: Any, spec: TemplateSpec, template: str, where: str) -> None:
    """Compare our rendering of :data:`CONVERSATIONS` with transformers'.

    A conversation that the template refuses must be refused by both. Raises :class:`CheckpointError` that shows the
    first place where they differ.
    """
    for messages in CONVERSATIONS:
        try:
            _ours(spec, messages, None)  # first, for ours is bounded in time and memory
            refused = ""
        except TemplateError as error:
            refused = error.got
        if refused.startswith(TemplateTooLarge.__name__):
            _differ(where, "something small", refused)
        try:
            expected, clock = dated_text(tokenizer, spec, messages, template)
        except Exception as error:  # a template may fail in any way, and transformers lets it through
            if not refused:
                _differ(where, f"an error ({type(error).__name__}: {first_line(error)})", "none")
            continue
        got = refused or _ours(spec, messages, clock)
        if got != expected:
            pairs = zip(expected, got, strict=False)
            at = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(expected), len(got)))
            part = slice(max(at - 20, 0), at + 60)
            _differ(where, f"…{expected[part]}", f"…{got[part]}")


def _differ(where: str, expected: str, got: str) -> NoReturn:
    raise CheckpointError(
        expected=f"the chat template of {where} to render as in transformers: {shown(expected)}",
        got=shown(got),
        fix="put a simpler chat_template.jinja into the checkpoint",
    )


def _ours(spec: TemplateSpec, messages: Sequence[TemplateMessage], clock: datetime.datetime | None) -> str:
    """Our pieces put together again."""
    names = {index: token for token, index in spec.special_tokens.items()}
    with rendering_at(clock):
        pieces = render(spec, messages)
    return "".join(
        spec.image_token if isinstance(one, ImageSlot)
        else (names[one.token] * (not one.added) if isinstance(one, Control) else one.text)
        for one in pieces
    )  # fmt: skip
