"""Messages of OpenAI's dialects, chat and responses: roles, and content as text or parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ..errors import RequestError
from ..settings import Detail, Limits
from .fields import Fields, clean
from .known_fields import IMAGE_URL, MESSAGE, MOST_UNKNOWN, PART, Place, check_fields
from .pictures import FindPicture, read_base64, read_picture
from .values import Message, Role, SentPicture

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TEXTS = ("text", "input_text", "output_text", "refusal")
PICTURES = ("image_url", "input_image")
UNSUPPORTED = "unsupported_parameter"
_ROLES = f"one of {', '.join(ROLES)}"
_TYPES = f"one of {', '.join((*TEXTS[:2], *PICTURES))}"
WORDS: dict[str, Detail | None] = {"high": "high", "original": "high", "low": "low", "auto": "auto"}


class Reader:
    """Reads the messages of one request, and keeps count of what is limited in all of them together."""

    def __init__(self, limits: Limits, find_picture: FindPicture) -> None:
        self.limits = limits
        self._find = find_picture
        self._pictures = 0
        self._characters = 0
        self.warnings: list[str] = []

    def check(self, fields: Fields, place: Place) -> None:
        """Refuse what a message can't have here, and note what nobody knows."""
        if len(self.warnings) <= MOST_UNKNOWN:
            self.warnings += check_fields(fields, place)

    def message(self, fields: Fields) -> Message:
        """A message with ``role`` and ``content``."""
        self.check(fields, MESSAGE)
        role = fields.text("role")
        if role in ("tool", "function"):
            fields.refuse("role", _ROLES, fix="leave tools out: this server has none", code=UNSUPPORTED)
        if role not in ROLES:
            fields.refuse("role", _ROLES)
        return Message(ROLES[role], self._content(fields, ROLES[role]))

    def picture(self, fields: Fields, name: str, url: str, detail: Detail | None = None) -> SentPicture:
        """One picture by its URL."""
        self._count_picture(fields.where(name))
        return SentPicture(read_picture(url, fields.where(name), self.limits, self._find), detail, fields.where(name))

    def base64_picture(self, text: str, param: str) -> SentPicture:
        """One picture as bare base64, or as a data URI."""
        self._count_picture(param)
        if text[:5].lower() == "data:":
            return SentPicture(read_picture(text, param, self.limits, self._find), param=param)
        return SentPicture(read_base64(text, param, self.limits), param=param)

    def text(self, text: str, param: str) -> str:
        """Text of a message, counted."""
        self._characters += len(text)
        if self._characters > self.limits.text:
            raise RequestError(
                expected=f"at most {self.limits.text} characters in all messages",
                got=f"{self._characters} or more",
                fix="shorten the conversation",
                code="context_length_exceeded",
                param=param,
            )
        return clean(text)

    def _content(self, fields: Fields, role: Role) -> tuple[str | SentPicture, ...]:
        content = fields.get("content")
        if content is None:
            return ()
        if isinstance(content, str):
            return side_by_side([self.text(content, fields.where("content"))])
        if not isinstance(content, list):
            fields.refuse("content", "a text or a list of parts")
        if len(content) > self.limits.messages:
            _too_many("parts", self.limits.messages, fields.where("content"))
        parts: list[str | SentPicture] = []
        for index, part in enumerate(content):
            if isinstance(part, str):
                parts.append(self.text(part, f"{fields.where('content')}[{index}]"))
                continue
            if not isinstance(part, dict):
                fields.refuse("content", "a text or a list of parts")
            parts.append(self._part(Fields(part, f"{fields.where('content')}[{index}]"), role))
        return pictures_first(side_by_side(parts))

    def _part(self, fields: Fields, role: Role) -> str | SentPicture:
        if fields.get("type") in (*TEXTS, *PICTURES):
            self.check(fields, PART)
        kind = fields.text("type")
        if kind in TEXTS:
            text = fields.text("refusal" if kind == "refusal" else "text")
            if text is None:
                fields.refuse("text", "a text")
            return self.text(text, fields.where("text"))
        if kind in PICTURES:
            if role != "user":
                fix = "put pictures into messages of the user"
                fields.refuse("type", f"text in a message of the {role}", fix=fix, code=UNSUPPORTED)
            return self._sent(fields)
        if isinstance(kind, str) and kind in ("input_audio", "audio", "file", "input_file", "video_url", "input_video"):
            fields.refuse("type", _TYPES, fix="send text and pictures alone", code=UNSUPPORTED)
        fix = 'a picture is {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}'
        return fields.refuse("type", _TYPES, fix=fix)

    def _sent(self, fields: Fields) -> SentPicture:
        if fields.get("file_id") is not None and fields.get("image_url") is None:
            return self._uploaded(fields)
        if isinstance(fields.get("image_url"), dict):
            inner = fields.object("image_url")
            assert inner is not None
            self.check(inner, IMAGE_URL)
            url, place, name = inner.text("url"), inner, "url"
        else:
            url, place, name = fields.text("image_url"), fields, "image_url"
        if url is None:
            place.refuse(name, "a data URI", fix="send data:image/jpeg;base64,…")
        detail = place.word("detail", tuple(WORDS)) or fields.word("detail", tuple(WORDS))
        return self.picture(place, name, url, WORDS[detail] if detail else None)

    def _uploaded(self, fields: Fields) -> SentPicture:
        """A picture by the id of its upload; OpenAI's files have other ids."""
        name = fields.text("file_id") or ""
        if not name.removeprefix("picture:").startswith("sha256-"):
            fields.unsupported("file_id", "send image_url with a data URI, or the id that POST /v1/pictures gives")
        detail = fields.word("detail", tuple(WORDS))
        return self.picture(fields, "file_id", name, WORDS[detail] if detail else None)

    def _count_picture(self, param: str) -> None:
        self._pictures += 1
        if self._pictures > self.limits.pictures:
            _too_many("pictures", self.limits.pictures, param)


def read_messages(given: Sequence[Fields], reader: Reader, param: str) -> tuple[Message, ...]:
    """A conversation that ends with the user's turn; neighbours of one role are merged."""
    if len(given) > reader.limits.messages:
        _too_many("messages", reader.limits.messages, param)
    return conversation([reader.message(fields) for fields in given], param)


def conversation(messages: Sequence[Message], param: str) -> tuple[Message, ...]:
    """Merge neighbours of one role, drop what is empty, and check that the user has the last word."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, side_by_side([*merged[-1].parts, *message.parts], "\n\n"))
        elif message.parts:
            merged.append(message)
    if not merged or merged[-1].role != "user":
        raise RequestError(
            expected=f"what the user says at the end of {param}",
            got=f"a last message of the {merged[-1].role}" if merged else "no text and no picture",
            fix="put the question last",
            code="invalid_messages",
            param=param,
        )
    return tuple(merged)


def pictures_first(parts: tuple[str | SentPicture, ...]) -> tuple[str | SentPicture, ...]:
    """A text with pictures behind it, as OpenAI's examples have it, with the pictures in front.

    Models are trained with a question behind its pictures and answer worse the other way round. Pictures between
    texts stand where somebody meant them to, and stay there.
    """
    if parts and isinstance(parts[0], str) and all(isinstance(part, SentPicture) for part in parts[1:]):
        return (*parts[1:], parts[0])
    return parts


def side_by_side(parts: Sequence[str | SentPicture], between: str = "\n") -> tuple[str | SentPicture, ...]:
    """The parts with neighbouring texts joined and empty ones dropped."""
    joined: list[str | SentPicture] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + between + part if part else last
        elif part != "":
            joined.append(part)
    return tuple(joined)


def _too_many(what: str, limit: int, param: str) -> NoReturn:
    raise RequestError(
        expected=f"at most {limit} {what}", got="more", fix="send fewer", code="invalid_value", param=param
    )
