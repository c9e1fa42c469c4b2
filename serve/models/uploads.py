"""Pictures that were uploaded, kept for a while by their content's hash, in memory only."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ..settings import Limits


@dataclass(frozen=True)
class Upload:
    """An uploaded file, and when it was (a monotonic clock's seconds)."""

    data: bytes
    at: float


class Uploads:
    """The last uploads, within the limits of number, bytes and age."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._kept: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(len(one.data) for one in self._kept.values())

    def add(self, data: bytes) -> str:
        """Keep a file; its id is ``sha256-…`` over its bytes."""
        name = f"sha256-{hashlib.sha256(data).hexdigest()}"
        self._kept[name] = Upload(data, self._clock())
        self._kept.move_to_end(name)
        self._forget()
        return name

    def find(self, name: str) -> bytes | None:
        """The bytes of an upload, or None."""
        self._forget()
        found = self._kept.get(name)
        return None if found is None else found.data

    def _forget(self) -> None:
        oldest = self._clock() - self._limits.kept_seconds
        while self._kept:
            first = next(iter(self._kept.values()))
            full = len(self._kept) > self._limits.kept_pictures or self.size > self._limits.kept_bytes
            if not full and first.at >= oldest:
                return
            self._kept.popitem(last=False)
