"""Calibration data: conversations about pictures in LLaVA's JSON format, or plain text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...runtime.prompts.conversations import Conversation, SampleError, find_samples, read_samples, shown
from ...runtime.prompts.picture_names import picture_file
from ...runtime.system.plain_files import read_plain

DEMO = "demo"


def demo_calibration() -> Path:
    """The small set that ships in the package: drawn pictures, none of them in the held-out set."""
    return Path(__file__).parents[1] / "demo_calibration"


def read_conversations(data: Path, *, limit: int) -> list[Conversation]:
    """At most ``limit`` conversations, evenly spread over the set at ``data`` (0 takes all).

    ``data`` is a file in LLaVA's JSON format, or a folder with one in it. The pictures' names come back as paths,
    relative ones below the file's folder. Raises :class:`DataError`.
    """
    samples = read_samples(find_samples(data))
    step = max(1.0, len(samples) / limit) if limit else 1.0
    chosen = [samples.conversation(int(index * step)) for index in range(int(len(samples) / step))]
    folder = samples.path.parent
    return [
        replace(conversation, images=tuple(str(picture_file(folder, name)) for name in conversation.images))
        for conversation in chosen
    ]


def without_pictures(conversation: Conversation) -> Conversation:
    """The same words alone."""
    words = tuple(replace(message, images=0) for message in conversation.messages)
    return replace(conversation, images=(), messages=words)


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
    for conversation in conversations:
        for message in conversation.messages:
            yield f"{message.role}:{message.images}".encode()
            yield message.text.encode("utf-8", "surrogatepass")
        for path in conversation.images:
            try:
                yield read_plain(path)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                reason = getattr(error, "strerror", None) or str(error)
                raise SampleError(conversation.where, expected=f"the picture {shown(path, 120)}", got=reason) from error
