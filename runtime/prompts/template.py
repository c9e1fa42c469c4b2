"""Messages to text, and text to pieces in which only the template can place control tokens."""

from __future__ import annotations

import datetime
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

import jinja2
import jinja2.ext
import jinja2.sandbox

from ..errors import OptionError, TemplateError
from .template_spec import TemplateSpec

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

    ``answering`` adds the assistant's opening. A guard character is put before every place in the
    messages' text where a control token could begin; the template's own text has none. So a user
    who types ``<|eot_id|>`` or ``<image>`` gets those characters, while the template's filters
    (trim and the like) still see the real text. Raises :class:`TemplateError`.
    """
    controls = sorted({*spec.special_tokens, spec.image_token}, key=len, reverse=True)
    guard = _guard_character(messages)
    opening = re.compile("|".join(re.escape(character) for character in sorted({one[0] for one in controls})))
    guarded = [one.with_texts(lambda text: opening.sub(lambda found: guard + found[0], text)) for one in messages]
    text = _render_text(spec, guarded, answering)
    pieces = _split(text, spec, controls, guard)
    _check_slots(pieces, messages)
    return _with_bos(pieces, spec)


def _guard_character(messages: Sequence[TemplateMessage]) -> str:
    """A private-use character that occurs nowhere in the messages."""
    used = {character for message in messages for character in message.text}
    return next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in used)


def _render_text(spec: TemplateSpec, messages: Sequence[TemplateMessage], answering: bool) -> str:
    try:
        return _compiled(spec.chat_template).render(
            messages=[_as_dict(message, spec) for message in messages],
            add_generation_prompt=answering,
            bos_token=spec.bos_token,
            eos_token=spec.eos_token,
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        raise TemplateError(
            expected="a chat template that renders this conversation",
            got=f"{type(error).__name__}: {error}",
            fix="check the roles of the messages, or export with another template",
        ) from error


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    """A template compiled once: compiling takes longer than all else in a prompt."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's sandbox: a template comes with the checkpoint and may be anybody's."""


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


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format_: str) -> str:
    return datetime.datetime.now().strftime(format_)


def _split(text: str, spec: TemplateSpec, controls: Sequence[str], guard: str) -> list[Piece]:
    found = re.compile(f"(?<!{guard})({'|'.join(map(re.escape, controls))})")
    pieces: list[Piece] = []
    for index, part in enumerate(found.split(text)):
        if index % 2:
            image = part == spec.image_token
            pieces.append(ImageSlot() if image else Control(spec.special_tokens[part]))
        elif part:
            pieces.append(Plain(part.replace(guard, "")))
    return pieces


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
