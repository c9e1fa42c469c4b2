"""Messages to text, and text to pieces in which only the template can place control tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from ..errors import ContextError, OptionError, TemplateError, first_line, shown
from .marking import typed_places
from .template_environment import TemplateTooLarge, rendered
from .template_spec import TemplateSpec

MUCH_TEXT = 2**16
"""Characters of a conversation from which its length may be why a template does not end."""
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class TemplateMessage:
    """One turn as the template sees it: who speaks, the text, and how many pictures come with it.

    Pictures stand in front of the text, or where ``places`` says how many characters come before each of them.
    Raises :class:`OptionError` for values of other types, and for places that are not in the text.
    """

    role: Role
    text: str
    images: int = 0
    places: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            _refuse(f"a role among {', '.join(get_args(Role))}", self.role)
        if not isinstance(self.text, str):
            _refuse("a message's text as str", self.text)
        if not isinstance(self.images, int) or isinstance(self.images, bool) or self.images < 0:
            _refuse("a message's images as their number", self.images)
        if not self.places:
            return
        ends = (0, *self.places, len(self.text))
        if len(self.places) != self.images or any(one > other for one, other in itertools.pairwise(ends)):
            _refuse(f"places of {self.images} pictures, ascending from 0 to {len(self.text)}", self.places)
        if not any(self.places):
            object.__setattr__(self, "places", ())

    @property
    def texts(self) -> tuple[str, ...]:
        """The text around the pictures, one part more than there are pictures."""
        ends = (0, *(self.places or (0,) * self.images), len(self.text))
        return tuple(self.text[start:end] for start, end in itertools.pairwise(ends))

    def with_texts(self, change: Callable[[str], str]) -> TemplateMessage:
        """The same message, each part of its text changed; the pictures keep their places among them."""
        texts = [change(one) for one in self.texts]
        places = tuple(itertools.accumulate(map(len, texts[:-1])))
        return TemplateMessage(self.role, "".join(texts), self.images, places)


def _refuse(expected: str, got: object) -> NoReturn:
    raise OptionError(expected=expected, got=f"{type(got).__name__} {got!r}"[:100], fix="correct the message")


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
    ``<|eot_id|>`` or ``<image>`` gets those characters (:mod:`.marking`).

    Raises :class:`TemplateError`, and :class:`ContextError` for a text far beyond every context.
    """
    controls = sorted({*spec.special_tokens, spec.image_token}, key=len, reverse=True)
    texts = [text for message in messages for text in message.texts]
    text = _render_text(spec, messages, answering)

    def changed(change: Callable[[str], str]) -> str:
        return _render_text(spec, [message.with_texts(change) for message in messages], answering)

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
    """The text that ``spec``'s template makes of ``messages``. Raises :class:`TemplateError`, :class:`ContextError`."""
    return _render_text(spec, messages, answering)


def _render_text(spec: TemplateSpec, messages: Sequence[TemplateMessage], answering: bool) -> str:
    try:
        return _rendered(spec, messages, answering)
    except Exception as error:  # a template may do anything that Python can fail at: divide, recurse, overflow
        if isinstance(error, TemplateTooLarge) and _takes_too_much_text(spec, messages, answering):
            raise ContextError(
                expected="a prompt that a template can render and a context can hold",
                got=f"{sum(len(message.text) for message in messages):,} characters of text",
                fix="shorten the text, or start a new conversation",
            ) from error
        raise TemplateError(
            expected="a chat template that renders this conversation",
            got=f"{type(error).__name__}: {shown(first_line(error))}",
            fix="check the roles of the messages, or export with another template",
        ) from error


def _rendered(spec: TemplateSpec, messages: Sequence[TemplateMessage], answering: bool) -> str:
    named = spec.named_tokens
    return rendered(
        spec.chat_template,
        messages=[_as_dict(message, spec) for message in messages],
        tools=None,
        documents=None,
        add_generation_prompt=answering,
        **({"bos_token": spec.bos_token, "eos_token": spec.eos_token} if named is None else named),
    )


def _takes_too_much_text(spec: TemplateSpec, messages: Sequence[TemplateMessage], answering: bool) -> bool:
    """Whether a rendering without end is the text's fault: there is much of it, and without it the template ends."""
    if sum(len(message.text) for message in messages) < MUCH_TEXT:
        return False
    try:
        _rendered(spec, [message.with_texts(lambda _: "") for message in messages], answering)
    except Exception:  # then the template is to blame too
        return False
    return True


def _as_dict(message: TemplateMessage, spec: TemplateSpec) -> dict[str, Any]:
    first, *others = message.texts
    if spec.content == "string":
        return {"role": message.role, "content": first + "".join(f"{spec.image_token}\n{text}" for text in others)}
    parts: list[dict[str, str]] = []
    for number, text in enumerate(message.texts):
        parts += [{"type": "image"}] if number else []
        last = number == message.images and not message.places  # where the text stands, also if there is none
        parts += [{"type": "text", "text": text}] if text or last else []
    return {"role": message.role, "content": parts}


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
