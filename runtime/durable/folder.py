"""The folder of the durable cache: whose it is, how much may be in it, and what goes first.

There is no index that could get out of step: entries are files whose names are made of their keys. They never change,
so readers need no lock; writers of all processes have one. When an entry was used last is its time of modification,
which nothing else is read from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..callbacks import Cancel
from ..options import LoadOptions
from ..system.filesystems import make_private, open_private, set_mode, try_lock
from ..system.left_behind import sweep_folder
from ..system.storage import write_text

Kind = Literal["pictures", "states"]
SUFFIXES: dict[Kind, str] = {"pictures": ".emb", "states": ".kv"}
VERSION = "v1"
EVICT_TO = 0.9
"""A kind that would outgrow its limit shrinks to this share of it, so that not every entry costs a round."""
LEAST_FREE_SHARE = 0.05
"""Of the disk, where a least free space is kept at all."""
LOCK_SECONDS = 5.0
DAY_BYTES = 20 * 2**30
"""What may be written in a day: disks wear."""
_NAME = re.compile(r"[0-9a-f]{64}\.emb|[0-9a-f]{32}-[0-9a-f]{64}\.kv")
_LOCK, _WRITTEN = "lock", "written.json"


@dataclass(frozen=True)
class Limits:
    """Bytes of each kind, of disk that stays free, and that are written a day; positions below which no state is kept.

    ``min_free`` 0 also lifts the share of the disk that stays free.
    """

    pictures: int
    states: int
    min_free: int
    min_positions: int
    day: int = DAY_BYTES

    @staticmethod
    def of(options: LoadOptions) -> Limits:
        """Those of a load."""
        return Limits(
            options.cache_pictures, options.cache_states, options.cache_min_free_disk, options.cache_min_positions
        )

    def bytes_of(self, kind: Kind) -> int:
        """Bytes that all entries of a kind may take."""
        return self.pictures if kind == "pictures" else self.states


class CacheFolder:
    """The entries below ``root``. Everything about a folder that can't be used is as if it were empty, and full."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root.absolute()
        self.limits = limits
        self.place = self.root / VERSION

    def why_unusable(self) -> str:
        """Why nothing is read or written here; empty where it is, or where there is nothing yet."""
        for path in (self.place, *(self.place / kind for kind in SUFFIXES)):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                return f"{path}: {getattr(error, 'strerror', None) or error}"
            if not stat.S_ISDIR(status.st_mode):
                return f"{path} is no folder"
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                return f"{path} belongs to another user"
        above = _existing(self.root)
        if not self.place.exists() and not os.access(above, os.W_OK):
            return f"{above} can't be written to"
        return ""

    def path_of(self, kind: Kind, name: str) -> Path:
        """Where the entry called ``name``, without its ending, is or would be."""
        return self.place / kind / f"{name}{SUFFIXES[kind]}"

    def paths(self, kind: Kind, *, beginning: str = "") -> list[Path]:
        """Names of ours, those least recently used first."""
        return [path for path, _, _ in self._entries(kind) if path.name.startswith(beginning)]

    def size(self, kind: Kind) -> int:
        """Bytes of all entries of a kind."""
        return sum(size for _, size, _ in self._entries(kind))

    def used(self, path: Path) -> None:
        """Note that an entry is used now: later than all others, whatever the clock says."""
        with suppress(OSError, OverflowError):
            kind: Kind = "states" if path.suffix == SUFFIXES["states"] else "pictures"
            now = max(time.time_ns(), *(when + 1 for one, _, when in self._entries(kind) if one != path), 0)
            os.utime(path, ns=(now, now))

    def drop(self, path: Path) -> None:
        """Remove an entry, as nobody can use it."""
        with suppress(OSError):
            if _NAME.fullmatch(path.name) and not path.is_dir():
                path.unlink()

    @contextmanager
    def writing(self, cancelled: Cancel | None = None) -> Iterator[bool]:
        """Be the only writer of all processes; False where one can't be.

        What killed ones left is removed first. Raises OSError where the folder can't be made or written to.
        """
        if self.why_unusable():
            yield False
            return
        self.make()
        path = self.place / _LOCK
        with open_private(path) as lock:
            locked = _locked(lock, cancelled)
            if locked:
                for kind in SUFFIXES:
                    sweep_folder(self.place / kind)
            yield locked

    def make_room(self, kind: Kind, size: int) -> bool:
        """Whether an entry of ``size`` bytes may be written now; what has to go for it goes. Needs :meth:`writing`."""
        limit = self.limits.bytes_of(kind)
        if size > limit or not self.disk_has(size) or self._written_today() + size > self.limits.day:
            return False
        entries = self._entries(kind)
        total = sum(one for _, one, _ in entries)
        if total + size > limit:
            for path, one, _ in entries:
                if total + size <= max(EVICT_TO * limit, size):
                    break
                self.drop(path)
                total -= one
        return True

    def wrote(self, size: int) -> None:
        """Count what was written today. Needs :meth:`writing`."""
        text = json.dumps({"day": _today(), "bytes": self._written_today() + size})
        path = self.place / _WRITTEN
        write_text(path, text)
        set_mode(path, 0o600)

    def disk_has(self, size: int) -> bool:
        """Whether the disk keeps enough free with ``size`` bytes more."""
        try:
            disk = shutil.disk_usage(_existing(self.place))
        except OSError:
            return False
        least = self.limits.min_free
        return disk.free - size >= (max(least, LEAST_FREE_SHARE * disk.total) if least else 0)

    def make(self) -> None:
        """Make the folders, readable by their owner alone. Raises OSError."""
        for kind in SUFFIXES:
            make_private(self.place)
            make_private(self.place / kind)

    def _entries(self, kind: Kind) -> list[tuple[Path, int, int]]:
        """Path, size and last use of all entries of a kind, in the order of their use."""
        found = []
        with suppress(OSError), os.scandir(self.place / kind) as entries:
            for one in entries:
                with suppress(OSError):
                    if _NAME.fullmatch(one.name) and one.name.endswith(SUFFIXES[kind]):
                        status = one.stat(follow_symlinks=False)
                        found.append((self.place / kind / one.name, status.st_size, status.st_mtime_ns))
        return sorted(found, key=lambda entry: (entry[2], entry[0].name))

    def _written_today(self) -> int:
        try:
            kept = json.loads((self.place / _WRITTEN).read_text(encoding="utf-8"))
            return max(int(kept["bytes"]), 0) if kept["day"] == _today() else 0
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0


def _existing(place: Path) -> Path:
    """``place``, or the nearest folder above it that is there."""
    return next((one for one in (place, *place.parents) if one.exists()), place)


def _today() -> int:
    return int(time.time() // 86_400)


def _locked(lock: object, cancelled: Cancel | None) -> bool:
    end = time.monotonic() + LOCK_SECONDS
    while not try_lock(lock):  # type: ignore[arg-type]
        if time.monotonic() > end or (cancelled is not None and cancelled()):
            return False
        time.sleep(0.02)
    return True
