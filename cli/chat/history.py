"""What was typed in earlier chats, for the arrow keys: a file of the user's own, readable by nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ...runtime.errors import LlavaEdgeError
from ...runtime.system.filesystems import make_private, open_private
from ...runtime.system.machine import cache_folder
from ...runtime.system.storage import write_text

KEPT = 1000
LARGEST = 2**22
"""Entries and bytes of a history file; a larger one is not ours."""


def history_file() -> Path | None:
    """Where the history is kept; None for a user without a home, who has no place for it."""
    if not (os.environ.get("LLAVA_EDGE_CACHE") or os.environ.get("HOME") or sys.platform == "win32"):
        return None
    try:
        return cache_folder() / "chat-history.jsonl"
    except RuntimeError:
        return None


class History:
    """Entries of earlier chats and of this one, each kept once, the latest last. Without a path none are kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._new: list[str] = []
        self.earlier = _read(path) if path else []

    def add(self, entry: str) -> None:
        """Remember what was typed. An entry that begins with a space is not kept, as in shells."""
        if entry.strip() and not entry.startswith(" "):
            self._new.append(entry)

    def save(self) -> None:
        """Write the new entries behind those that are there by now. A disk that refuses is no error of the chat."""
        if self._path is None or not self._new:
            return
        kept = _once([*_read(self._path), *self._new])[-KEPT:]
        with contextlib.suppress(OSError, LlavaEdgeError):
            if not self._path.parent.exists():
                make_private(self._path.parent)
            open_private(self._path).close()  # made first, because what is written over it keeps its mode
            write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in kept))
            self._new.clear()


def _read(path: Path) -> list[str]:
    """The entries of a file, without the lines that are none."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            entries.append(json.loads(line))
    return _once(entry for entry in entries if isinstance(entry, str) and "\0" not in entry)


def _once(entries: Iterable[str]) -> list[str]:
    """Each entry at its latest place."""
    return list(dict.fromkeys(reversed(list(entries))))[::-1]
