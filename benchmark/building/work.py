"""What a build has worked out so far, beside the folder that it will write: a run that was cut off goes on from it."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import DataError
from ...runtime.system.filesystems import try_lock
from ...runtime.system.plain_files import read_plain_text
from ...runtime.system.storage import storage_error, write_text, write_whole
from ..copies.photographs import Arrays

FORMAT = 1
"""Part of every key: another way to compute is another key."""


class Work:
    """Results by what they were computed from, each in a file of its own that is whole or not there."""

    def __init__(self, destination: Path) -> None:
        self.folder = destination.parent / f".{destination.name}.building"

    def arrays(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of ``key``, kept or computed now. Raises StorageError, and what ``compute`` raises."""
        path = self._path(key, "npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return dict(kept)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        arrays: dict[str, Any] = compute()
        write_whole(path, lambda file: np.savez(file, **arrays))
        return arrays

    def text(self, key: str, compute: Callable[[], str]) -> str:
        """The text of ``key``, as :meth:`arrays`."""
        path = self._path(key, "json")
        try:
            kept = json.loads(read_plain_text(path))
            if isinstance(kept, str):
                return kept
        except (OSError, ValueError):
            pass
        text = compute()
        write_text(path, json.dumps(text))
        return text

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other builds into the same folder out. Raises :class:`DataError`, StorageError."""
        path = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise storage_error(error, path) from error
        with file:
            if not try_lock(file):
                raise DataError(
                    expected=f"one build at a time beside {self.folder}", got="another process", fix="let that one end"
                )
            yield

    @property
    def begun(self) -> bool:
        """Whether anything is kept."""
        return self.folder.is_dir()

    def remove(self) -> None:
        """Forget everything, once the folder is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str, suffix: str) -> Path:
        name = hashlib.sha256(f"{FORMAT} {key}".encode()).hexdigest()[:32]
        return self.folder / f"{name}.{suffix}"
