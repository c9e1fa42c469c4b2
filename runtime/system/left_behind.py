"""Names of temporary files that tell whose they are, and the removal of what killed processes left.

A name is ``.TARGET.MACHINE-PROCESS-RANDOM``: only what a process of this machine left, and only once that process is
gone, is ever touched. A name that ends in ``.before`` is what was at the target while something took its place.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

from .filesystems import rename_folder

BEFORE = ".before"
_LONGEST = 40


def name_beside(target: Path, *, before: bool = False) -> Path:
    """A hidden name beside ``target`` that no other writer has: threads and processes never share one."""
    ours = f"{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
    return target.with_name(f".{target.name[:_LONGEST]}.{ours}{BEFORE if before else ''}")


def sweep(target: Path) -> None:
    """Remove what dead processes of this machine left beside ``target``; what one had set aside comes back first."""
    name = re.compile(
        rf"\.{re.escape(target.name[:_LONGEST])}\.{_machine()}-(\d+)-[0-9a-f]{{16}}({re.escape(BEFORE)})?"
    )
    with suppress(OSError):
        for path in list(target.parent.iterdir()):
            found = name.fullmatch(path.name)
            if found is None or not _dead(int(found[1])):
                continue
            with suppress(OSError):
                if found[2] and len(target.name) <= _LONGEST and not (target.exists() or target.is_symlink()):
                    rename_folder(path, target)
                else:
                    _remove(path)


def sweep_folder(folder: Path) -> None:
    """Remove what dead processes of this machine left of any file in ``folder``."""
    name = re.compile(rf"\..+\.{_machine()}-(\d+)-[0-9a-f]{{16}}")
    with suppress(OSError):
        for path in list(folder.iterdir()):
            found = name.fullmatch(path.name)
            if found is not None and _dead(int(found[1])):
                with suppress(OSError):
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _dead(process: int) -> bool:
    """Whether no such process is here; where that can't be told without harm (Windows), it counts as alive."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@cache
def _machine() -> str:
    """This machine, and in a container its own numbering of processes: on a shared disk others write too."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
