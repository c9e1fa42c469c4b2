"""Calibration data: conversations about pictures in LLaVA's JSON format, or plain text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import OptionError
from ...runtime.prompts.template import Role, TemplateMessage

IMAGE_MARK = "<image>"
"""LLaVA's mark in a question where a picture belongs."""
ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
DEMO = "demo"


@dataclass(frozen=True)
class Conversation:
    """Turns with their answers, and the picture files in the order they are shown."""

    messages: tuple[TemplateMessage, ...]
    images: tuple[Path, ...]

    def without_pictures(self) -> Conversation:
        """The same words alone."""
        return Conversation(tuple(TemplateMessage(one.role, one.text) for one in self.messages), ())


def demo_calibration() -> Path:
    """The small set that ships in the package: drawn pictures, none of them in the held-out set."""
    return Path(__file__).parents[1] / "demo_calibration"


def read_conversations(data: Path, *, limit: int) -> list[Conversation]:
    """At most ``limit`` conversations, evenly spread over the set at ``data`` (0 takes all).

    ``data`` is a JSON file, or a folder with one in it: a list of ``{"id", "image", "conversations":
    [{"from", "value"}]}``, picture names relative to the file. Raises :class:`OptionError`.
    """
    path = _json_file(data)
    records = _read_records(path)
    step = max(1.0, len(records) / limit) if limit else 1.0
    chosen = [int(index * step) for index in range(int(len(records) / step))]
    return [_conversation(records[index], path, index) for index in chosen]


def fingerprint(conversations: Sequence[Conversation]) -> str:
    """SHA-256, in hex, over the words and the picture files' bytes."""
    digest = hashlib.sha256()
    for part in _parts(conversations):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def text_fingerprint(text: str) -> str:
    """SHA-256, in hex, over a plain text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parts(conversations: Sequence[Conversation]) -> Iterator[bytes]:
    for one in conversations:
        for message in one.messages:
            yield f"{message.role}:{message.images}".encode()
            yield message.text.encode("utf-8", "surrogatepass")
        for path in one.images:
            try:
                yield path.read_bytes()
            except OSError as error:
                raise OptionError(
                    expected=f"the picture {path}",
                    got=error.strerror or str(error),
                    fix="check the data's picture names",
                ) from error


def _json_file(data: Path) -> Path:
    if data.is_file():
        return data
    found = sorted(data.glob("*.json")) if data.is_dir() else []
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:4])
        raise OptionError(
            expected=f"one JSON file of conversations in {data}",
            got=names or ("none" if data.is_dir() else "nothing there"),
            fix="give the JSON file itself, or 'demo'",
        )
    return found[0]


def _read_records(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(path, str(error)) from error
    if not isinstance(records, list) or not records:
        raise _refused(path, "an empty list" if records == [] else type(records).__name__)
    return records


def _conversation(record: Any, path: Path, index: int) -> Conversation:
    """One record, with its first pictures put where LLaVA's data forgets the mark: in front."""
    try:
        turns = [(ROLES[turn["from"]], str(turn["value"])) for turn in record["conversations"]]
        named = record.get("image") or []
        images = [path.parent / name for name in ([named] if isinstance(named, str) else named)]
    except (KeyError, TypeError, AttributeError) as error:
        raise _refused(path, f"record {index} with {type(error).__name__} {error}") from error
    marks = [text.count(IMAGE_MARK) if role == "user" else 0 for role, text in turns]
    if images and not sum(marks):
        marks[next((at for at, (role, _) in enumerate(turns) if role == "user"), 0)] = len(images)
    if sum(marks) != len(images) or not turns or turns[-1][0] != "assistant":
        raise _refused(path, f"record {index} with {len(images)} pictures, {sum(marks)} marks, {len(turns)} turns")
    messages = tuple(
        TemplateMessage(role, text.replace(IMAGE_MARK, "").strip(), count)
        for (role, text), count in zip(turns, marks, strict=True)
    )
    return Conversation(messages, tuple(images))


def _refused(path: Path, got: str) -> OptionError:
    return OptionError(
        expected=f'a list of {{"id", "image", "conversations"}} ending with answers in {path}',
        got=got[:120],
        fix="give data in LLaVA's JSON format, or 'demo'",
    )
