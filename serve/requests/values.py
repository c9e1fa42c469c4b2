"""What is asked, whatever dialect it came in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...runtime.errors import LlavaEdgeError
from ..settings import Detail

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class SentPicture:
    """A picture file as it was sent, in the field ``param``. ``detail`` None means the server's own choice."""

    data: bytes = field(repr=False)
    detail: Detail | None = None
    param: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Message:
    """One turn: text and pictures in their order, never two texts side by side."""

    role: Role
    parts: tuple[str | SentPicture, ...]

    @property
    def text(self) -> str:
        """All text, a line break where a picture stood between."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[SentPicture, ...]:
        """All pictures in order."""
        return tuple(part for part in self.parts if isinstance(part, SentPicture))


@dataclass(frozen=True)
class Form:
    """What the answer is held to: the runtime's option for it, its value, and the field of the request it came in."""

    kind: Literal["schema", "regex"]
    text: str
    param: str


@dataclass(frozen=True)
class Asked:
    """What a model gets: turns that end with the user's, the sampling keywords that were given, a form of the answer.

    ``param`` is the field that the turns came in, and ``warnings`` are what the client is to hear beside the answer.
    """

    messages: tuple[Message, ...]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    form: Form | None = None
    param: str = "messages"
    warnings: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[SentPicture, ...]:
        """All pictures of the conversation in order."""
        return tuple(picture for message in self.messages for picture in message.pictures)


@dataclass(frozen=True)
class ChatRequest:
    """A request for one answer. ``keep_alive`` are seconds that the model stays loaded, below 0 for ever.

    ``context`` are positions that the client would like it to have, ``echoed`` what its reply repeats as it was sent.
    """

    model: str | None
    asked: Asked
    stream: bool = False
    include_usage: bool = False
    progress: bool = False
    keep_alive: float | None = None
    context: int | None = None
    echoed: Mapping[str, Any] = field(default_factory=dict)


def picture_names(messages: Sequence[Message]) -> Iterator[str]:
    """What pictures are called in errors and warnings: files that are sent have no names.

    The question's own are counted by themselves, as who asks sees them; those of a turn before say which message.
    """
    for number, message in enumerate(messages, 1):
        count = len(message.pictures)
        turn = "" if number == len(messages) else f" of message {number}"
        yield from (f"picture {one}{turn}" if count > 1 else f"the picture{turn}" for one in range(1, count + 1))


def field_of_picture(asked: Asked, error: LlavaEdgeError) -> str:
    """The field with the picture that ``error`` is about; that of all turns where it names none of several."""
    found = {picture.param for picture in asked.pictures}
    if len(asked.pictures) > 1:
        named = zip(asked.pictures, picture_names(asked.messages), strict=True)
        said = f"{error.expected}; {error.got}"
        found = {one.param for one, name in named if re.search(rf"\b{name}\b(?! of message)", said)}
    return found.pop() or asked.param if len(found) == 1 else asked.param


def with_detail(asked: Asked, detail: Detail | None) -> Asked:
    """The question with every picture's detail settled: ``detail``, else what the client wants, else high."""

    def settled(part: str | SentPicture) -> str | SentPicture:
        return part if isinstance(part, str) else replace(part, detail=detail or part.detail or "high")

    messages = tuple(replace(message, parts=tuple(map(settled, message.parts))) for message in asked.messages)
    return replace(asked, messages=messages)
