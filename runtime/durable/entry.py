"""One entry of the durable cache: a file that says itself what it is, and what its bytes must be.

Layout, little-endian: magic, schema, sizes of header and payload, SHA-256 of the payload, SHA-256 of all before it and
of the header; the header as JSON; the payload. A flipped bit anywhere makes it no entry: llama.cpp takes a state with
one for a good one, and answers differently.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..callbacks import Cancel
from ..errors import Cancelled
from ..system.filesystems import replace_file, sync_folder, sync_open
from ..system.left_behind import name_beside
from ..system.payloads import BLOCK, mapped, opened_plainly, read_payload, reserve

MAGIC = b"LLVEDGEC"
SCHEMA = 2
"""Version of the layout, of all that headers say, and of the arithmetic behind what is kept."""
LARGEST_HEADER = 2**26
_PREFIX = struct.Struct("<8sIIQ32s")
_HASH = 32
_START = _PREFIX.size + _HASH


class BadEntryError(Exception):
    """A file that is no entry, or not the one that its name says, and why."""


@dataclass(frozen=True)
class Entry:
    """An entry whose header holds: the payload is ``size`` bytes from ``offset`` on, and has the hash ``sha256``."""

    path: Path
    header: Mapping[str, Any]
    offset: int
    size: int
    sha256: str

    def payload(self) -> bytearray:
        """The payload, checked. Raises :class:`BadEntryError`."""
        try:
            return read_payload(self.path, self.offset, self.size, self.sha256)
        except (OSError, ValueError, MemoryError) as error:
            raise BadEntryError(str(error)) from error


def digest_of(parts: Any) -> str:
    """SHA-256 of plain values, in hex: the same in every process."""
    return hashlib.sha256(_json(parts)).hexdigest()


def read_entry(path: Path) -> Entry:
    """The header of an entry, checked, and its size. Raises :class:`BadEntryError`."""
    try:
        with opened_plainly(path) as file:
            start = file.read(_START)
            magic, schema, header_size, size, payload_hash = _PREFIX.unpack(start[: _PREFIX.size])
            if magic != MAGIC or schema != SCHEMA:
                raise BadEntryError("no entry of this cache")
            if header_size > LARGEST_HEADER:
                raise BadEntryError("a header too large")
            text = file.read(header_size)
            if hashlib.sha256(start[: _PREFIX.size] + text).digest() != start[_PREFIX.size :]:
                raise BadEntryError("a header of another hash")
            if os.fstat(file.fileno()).st_size != _START + header_size + size:
                raise BadEntryError("another size than it says")
            header = json.loads(text)
    except (OSError, ValueError, struct.error, RecursionError, MemoryError) as error:
        raise BadEntryError(str(error)) from error
    if not isinstance(header, dict):
        raise BadEntryError("no header")
    return Entry(path, header, _START + header_size, size, payload_hash.hex())


class Draft:
    """An entry under way, in a temporary file beside its place: filled in place, then finished or discarded.

    Readable by its owner alone. What a killed process leaves of it is swept by ``folder``.
    """

    def __init__(self, target: Path, header: Mapping[str, Any], size: int) -> None:
        """Reserve the disk for a payload of ``size`` bytes. Raises OSError."""
        self._text = _json(header)
        self._target = target
        self.size = size
        self.offset = _START + len(self._text)
        self.path = name_beside(target)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            reserve(descriptor, self.offset + size)
        except BaseException:
            os.close(descriptor)
            self.discard()
            raise
        os.close(descriptor)

    def fill(self, payload: memoryview) -> None:
        """Write the payload, where nobody else writes it in place. Raises OSError."""
        with mapped(self.path) as memory:
            memory[self.offset : self.offset + self.size] = payload

    def finish(self, *, expected: str = "", cancelled: Cancel | None = None) -> None:
        """Hash what was filled in, write it through to the disk, and put it in its place.

        Raises OSError, Cancelled between blocks, and ValueError where its hash is not the ``expected`` one. Whatever
        is raised, the draft is then gone.
        """
        try:
            self._seal(expected, cancelled)
            replace_file(self.path, self._target)
            sync_folder(self._target.parent)
        except BaseException:
            self.discard()
            raise

    def _seal(self, expected: str, cancelled: Cancel | None) -> None:
        digest = hashlib.sha256()
        with mapped(self.path) as memory:
            end = self.offset + self.size
            for begin in range(0, end, BLOCK):  # from a block's begin, as only whole pages are flushed
                if cancelled is not None and cancelled():
                    raise Cancelled
                stop = min(begin + BLOCK, end)
                digest.update(memory[max(begin, self.offset) : stop] if stop > self.offset else b"")
                memory.flush(begin, stop - begin)
            if expected and digest.hexdigest() != expected:
                raise ValueError("the payload has changed")
            prefix = _PREFIX.pack(MAGIC, SCHEMA, len(self._text), self.size, digest.digest())
            memory[: self.offset] = prefix + hashlib.sha256(prefix + self._text).digest() + self._text
            memory.flush()
        with self.path.open("r+b") as file:
            sync_open(file.fileno())

    def discard(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
