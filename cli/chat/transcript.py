"""``/save``: a conversation as a Markdown file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...runtime.engine.asking import Turn
from ...runtime.errors import OptionError, StorageError, shown
from ...runtime.system.storage import write_whole
from ..terminal.visible import visible

SPEAKERS = {"system": "System", "user": "You", "assistant": "Model"}


def save(path: Path, turns: Sequence[Turn], *, model: str, overwrite: bool) -> None:
    """Write ``turns`` as Markdown, whole or not at all.

    Raises :class:`OptionError` where nothing was said, :class:`StorageError` for what can't be written, for a folder
    that is not there (it may be misspelt) and, without ``overwrite``, for a path where something is.
    """
    if not any(turn.message.role == "user" for turn in turns):
        raise OptionError(expected="a conversation to save", got="none yet", fix="ask something first")
    if "\0" in str(path):
        raise OptionError(expected="a file's name", got=repr(str(path)[:100]), fix="choose another name")
    if not overwrite and os.path.lexists(path):
        raise StorageError(
            expected=f"nothing at {path} yet", got="something there", fix="choose another name, or /save --force FILE"
        )
    if not os.path.exists(path.parent):
        raise StorageError(
            expected=f"a folder {shown(path.parent)}", got="none", fix="choose another place, or make the folder first"
        )
    text = markdown(turns, model=model)
    write_whole(path, lambda file: file.write(text.encode()), make_folders=False)


def markdown(turns: Sequence[Turn], *, model: str) -> str:
    """The conversation: a heading for each turn, its pictures by name, its text as it is."""
    parts = [f"# Conversation with {visible(model)}"]
    for turn in turns:
        parts.append(f"## {SPEAKERS[turn.message.role]}")
        parts += [f"*Picture: {visible(image.name)}*" for image in turn.images]
        parts.append(turn.message.text.strip())
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")
