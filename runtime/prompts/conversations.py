"""Samples in the LLaVA JSON format, read into conversations; what is wrong with one is said with its id.

A file is a JSON list of ``{"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}``,
where ``image`` is missing for text alone and a list for several pictures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import LlavaEdgeError, OptionError
from .template import Role, TemplateMessage

PLACEHOLDER = "<image>"
ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


class SampleError(LlavaEdgeError, ValueError):
    """A training sample that can't be used; ``sample`` is its id."""

    def __init__(self, sample: str, *, expected: str, got: str) -> None:
        self.sample = sample
        super().__init__(expected=f"{expected} in sample {sample}", got=got, fix="correct or drop the sample")


@dataclass(frozen=True)
class Conversation:
    """One sample: its id, the names of its pictures in order, and its turns."""

    id: str
    images: tuple[str, ...]
    messages: tuple[TemplateMessage, ...]


def read_samples(path: Path) -> list[Any]:
    """The raw samples of a file. Raises :class:`OptionError` where it is no JSON list."""
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(
            expected=f"training samples at {path}", got=error.strerror or str(error), fix="check data.samples"
        ) from error
    except ValueError as error:
        raise OptionError(expected=f"JSON in {path}", got=str(error), fix="get the file again") from error
    if not isinstance(samples, list) or not samples:
        raise OptionError(
            expected=f"a JSON list of samples in {path}", got=type(samples).__name__, fix="use the LLaVA JSON format"
        )
    return samples


def read_conversation(raw: Any, position: int) -> Conversation:
    """Check one sample and read it. ``position`` names one without an id. Raises :class:`SampleError`.

    As in the original code, a turn's pictures stand before its text wherever ``<image>`` stood in
    it, which is also where the runtime puts them; white space around a turn's text is dropped.
    """
    identifier = f"#{position}"
    if not isinstance(raw, dict):
        _refuse(identifier, "an object", type(raw).__name__)
    identifier = str(raw.get("id", identifier))
    images = _image_names(raw.get("image"), identifier)
    turns = raw.get("conversations")
    if not isinstance(turns, list) or not turns:
        _refuse(identifier, "a list of conversations", repr(turns)[:40])
    messages = tuple(_message(turn, identifier) for turn in turns)
    _check_order(messages, identifier)
    if (placed := sum(message.images for message in messages)) != len(images):
        _refuse(identifier, f"{len(images)} {PLACEHOLDER}, one a picture", str(placed))
    return Conversation(identifier, images, messages)


def _image_names(value: Any, identifier: str) -> tuple[str, ...]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        _refuse(identifier, "picture names", repr(value)[:40])
    return tuple(names)


def _message(turn: Any, identifier: str) -> TemplateMessage:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        _refuse(identifier, "turns with 'from' and 'value'", repr(turn)[:60])
    if turn.get("from") not in ROLES:
        _refuse(identifier, f"turns from {', '.join(ROLES)}", repr(turn.get("from"))[:40])
    role, text = ROLES[turn["from"]], turn["value"]
    images = text.count(PLACEHOLDER)
    if images and role != "user":
        _refuse(identifier, f"{PLACEHOLDER} in human turns only", f"one in a {turn['from']} turn")
    text = text.replace(PLACEHOLDER, "").strip()
    if role == "assistant" and not text:
        _refuse(identifier, "an answer in every gpt turn", "an empty one")
    return TemplateMessage(role, text, images)


def _check_order(messages: tuple[TemplateMessage, ...], identifier: str) -> None:
    roles = [message.role for message in messages]
    talk = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(talk) // 2)
    if not talk or talk != expected:
        _refuse(identifier, "human and gpt turns in turn, gpt last", ", ".join(roles)[:80])


def _refuse(identifier: str, expected: str, got: str) -> NoReturn:
    raise SampleError(identifier, expected=expected, got=got)
