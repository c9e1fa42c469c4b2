"""How much disk a bundle will take, said before anything is written."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..system.storage import storage_error

MANIFEST_BYTES = 64_000
"""More than a manifest takes."""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that writing a bundle takes: by file, ``scratch`` for a while, ``kept`` there already.

    ``free`` is what the disk at ``path`` has.
    """

    path: Path
    files: dict[str, int]
    scratch: int
    kept: int
    free: int

    @property
    def missing(self) -> int:
        """Bytes still to be written."""
        return max(sum(self.files.values()) + self.scratch - self.kept, 0)

    def __str__(self) -> str:
        again = f", {size_text(self.kept)} there already" if self.kept else ""
        total = size_text(sum(self.files.values()) + self.scratch)
        return f"needs {total} of disk at {self.path}{again}; {size_text(self.free)} free"

    def to_json(self) -> dict[str, Any]:
        """The same for programs, all in bytes."""
        return {
            "path": str(self.path),
            "files": self.files,
            "scratch": self.scratch,
            "kept": self.kept,
            "needed": self.missing,
            "free": self.free,
        }


def disk_need(
    destination: str | os.PathLike[str], files: dict[str, int], *, scratch: int = 0, kept: int = 0
) -> DiskNeed:
    """Compare what ``files`` (name to bytes) will take with what is free. Raises :class:`StorageError`."""
    place = Path(destination).absolute().parent
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        need = DiskNeed(place, files, scratch, kept, shutil.disk_usage(place).free)
    except OSError as error:
        raise storage_error(error, Path(destination)) from error
    if need.missing > need.free:
        raise StorageError(
            expected=f"{size_text(need.missing)} free at {place}",
            got=size_text(need.free),
            fix="free some space or choose another disk",
        )
    return need


def size_text(size: int) -> str:
    """Bytes for people: GB (10^9) from one on, else MB."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
