"""Messages to text, and text to pieces in which only the template can place control tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import TemplateError, first_line, shown
from .marking import typed_places
from .template_environment import rendered
from .template_spec import TemplateSpec

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class TemplateMessage:
    """One turn as the template sees it: who speaks, how many pictures come first, and the text."""

    role: Role
    text: str
    images: int = 0


@dataclass(frozen=True)
class Plain:
    """Text that is only ever text."""

    text: str


@dataclass(frozen=True)
class Control:
    """One control token; ``added`` where it is the tokenizer's BOS and stands in no text."""

    token: int
    added: bool = False


@dataclass(frozen=True)
class ImageSlot:
    """The place of the next picture."""


Piece = Plain | Control | ImageSlot


def render(spec: TemplateSpec, messages: Sequence[TemplateMessage], *, answering: bool = True) -> list[Piece]:
    """Render ``messages`` with the bundle's chat template and split the text into pieces.

    ``answering`` adds the assistant's opening. Control tokens are the template's alone: a user who types
    ``<|eot_id|>`` or ``<image>`` gets those characters (:mod:`.marking`). Raises :class:`TemplateError`.
    """
    controls = sorted({*spec.special_tokens, spec.image_token}, key=len, reverse=True)
    texts = [message.text for message in messages]
    text = _render_text(spec, messages, answering)

    def changed(change: Callable[[str], str]) -> str:
        return _render_text(
            spec, [TemplateMessage(one.role, change(one.text), one.images) for one in messages], answering
        )

    typed = typed_places(text, changed, texts, controls)
    if typed is None:
        _check_untyped(text, texts, controls)
    pieces = _split(text, spec, controls, typed or frozenset())
    _check_slots(pieces, messages)
    return _with_bos(pieces, spec)


def _check_untyped(text: str, texts: Sequence[str], controls: Sequence[str]) -> None:
    """Refuse a control token of which it can't be told whether a user or the template wrote it."""
    for control in controls:
        if control in text and any(control.lower() in one.lower() for one in texts):
            raise TemplateError(
                expected="messages without control tokens, for this chat template changes their text",
                got=shown(control),
                fix="leave it out of the text",
            )


def rendered_text(spec: TemplateSpec, messages: Sequence[TemplateMessage], *, answering: bool = True) -> str:
    """The text that ``spec``'s template makes of ``messages``. Raises :class:`TemplateError`."""
    return _render_text(spec, messages, answering)


def _render_text(spec: TemplateSpec, messages: Sequence[TemplateMessage], answering: bool) -> str:
    named = spec.named_tokens
    try:
        return rendered(
            spec.chat_template,
            messages=[_as_dict(message, spec) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=answering,
            **({"bos_token": spec.bos_token, "eos_token": spec.eos_token} if named is None else named),
        )
    except Exception as error:  # a template may do anything that Python can fail at: divide, recurse, overflow
        raise TemplateError(
            expected="a chat template that renders this conversation",
            got=f"{type(error).__name__}: {shown(first_line(error))}",
            fix="check the roles of the messages, or export with another template",
        ) from error


def _as_dict(message: TemplateMessage, spec: TemplateSpec) -> dict[str, Any]:
    if spec.content == "string":
        return {
            "role": message.role,
            "content": f"{spec.image_token}\n" * message.images + message.text,
        }
    parts: list[dict[str, str]] = [{"type": "image"}] * message.images
    return {"role": message.role, "content": [*parts, {"type": "text", "text": message.text}]}


def _split(text: str, spec: TemplateSpec, controls: Sequence[str], typed: frozenset[int]) -> list[Piece]:
    found = re.compile("|".join(map(re.escape, controls)))
    pieces: list[Piece] = []
    begin = at = 0
    while match := found.search(text, at):
        if not typed.isdisjoint(range(*match.span())):
            at = match.start() + 1
            continue
        if match.start() > begin:
            pieces.append(Plain(text[begin : match.start()]))
        pieces.append(ImageSlot() if match[0] == spec.image_token else Control(spec.special_tokens[match[0]]))
        begin = at = match.end()
    return [*pieces, Plain(text[begin:])] if text[begin:] else pieces


def _check_slots(pieces: Sequence[Piece], messages: Sequence[TemplateMessage]) -> None:
    slots = sum(isinstance(piece, ImageSlot) for piece in pieces)
    images = sum(message.images for message in messages)
    if slots != images:
        raise TemplateError(
            expected=f"a chat template that places {images} pictures",
            got=f"{slots} places",
            fix="export with a template that supports pictures",
        )


def _with_bos(pieces: list[Piece], spec: TemplateSpec) -> list[Piece]:
    """Begin with the tokenizer's BOS where it adds one and the template did not."""
    if not spec.add_bos:
        return pieces
    bos = spec.special_tokens[spec.bos_token]
    return pieces if pieces and pieces[0] == Control(bos) else [Control(bos, added=True), *pieces]
