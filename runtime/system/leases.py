"""Leases: a process says in the name of a file that it uses something, and keeps the file locked for as long.

A name is ``NAME.PROCESS-RANDOM``. A lock goes with its process, however that ends, and whoever asks then removes the
file. Where file systems have no locks, nobody is seen.
"""

from __future__ import annotations

import os
import re
import secrets
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

from .filesystems import try_lock

_TRIES = 3
"""How often a file may be taken for a forgotten one between its making and its locking."""


class Lease:
    """Something is used until this is released, forgotten, or the process ends."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._release = weakref.finalize(self, _release, file, path, os.getpid())

    def release(self) -> None:
        """Use it no longer. Safe to call twice."""
        self._release()


def take_lease(folder: Path, name: str) -> Lease | None:
    """Say in ``folder`` that this process uses ``name``; None where that can't be said."""
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        for _ in range(_TRIES):
            path = folder / f"{name}.{os.getpid()}-{secrets.token_hex(4)}"
            file = path.open("xb")
            with suppress(OSError):
                if try_lock(file) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return Lease(file, path)
            file.close()
    return None


def holders(folder: Path, name: str) -> tuple[int, ...]:
    """Processes that use ``name``, in the order of their numbers. What others left is removed."""
    found = set()
    with suppress(OSError):
        for path in list(folder.iterdir()):
            process = re.fullmatch(rf"{re.escape(name)}\.(\d+)-[0-9a-f]{{8}}", path.name)
            if process is not None and not _removed(path):
                found.add(int(process[1]))
    return tuple(sorted(found))


def _removed(path: Path) -> bool:
    """Whether a lease was nobody's any more, and so is gone."""
    try:
        with path.open("rb") as file:
            if not try_lock(file):
                return False
            if os.name == "posix":  # while it is locked, so that it is not taken meanwhile
                path.unlink()
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except OSError:  # another user's, or held on a system where what is open can't be removed
        return False
    return True


def _release(file: IO[bytes], path: Path, owner: int) -> None:
    with suppress(OSError):
        file.close()
        if os.getpid() == owner:  # a forked process has a copy, and ends before its parent
            path.unlink()
