"""Pictures that a record names, found in their folder though another system spelt the name."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath

_ELSEWHERE = re.compile(r"[A-Za-z]:[\\/]|[A-Za-z][\w+.-]*://|data:")


def picture_file(folder: Path, name: str) -> Path:
    """The file ``name`` of ``folder``, as spelt, or with ``\\`` between folders and accents composed otherwise.

    Where there is none, the path as it is spelt. A name that is there as it is never means another file.
    """
    exact = folder / name
    if _exists(exact):
        return exact
    place = folder
    for part in PurePosixPath(name.replace("\\", "/")).parts:
        spellings = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        place = next((place / one for one in spellings if _exists(place / one)), place / part)
    return place if _exists(place) else exact


def leads_outside(name: str) -> bool:
    """Whether ``name`` is absolute or leads out of its folder, on this system or the one that wrote it."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or _ELSEWHERE.match(name) is not None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a NUL in it
        return False
