"""Files by their SHA-256: fetched once, from where a broken connection or a killed process stopped, and checked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..runtime.bundle.manifest import FileEntry
from ..runtime.errors import BundleError, LlavaEdgeError, shown
from ..runtime.system.filesystems import replace_file, sync_folder, sync_open, try_lock
from ..runtime.system.storage import file_sha256, storage_error
from .http import Body, NotNow, NotThere
from .origins import Origin

WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds before another try after a broken connection; after as many that brought nothing the pull ends."""
ENOUGH = 2**14
"""Bytes that a connection has to bring to count as one that brought something."""
_POLL = 0.05
_FORGOTTEN = 7 * 24 * 3600.0
"""Seconds after which what an interrupted pull left is nobody's."""
Hear = Callable[[int], None]
"""Hears how many bytes of a file are there."""


class Blobs:
    """The files below ``root``: finished ones in ``blobs``, others in ``partial``."""

    def __init__(self, root: Path, on_note: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self.on_note = on_note

    def path(self, sha256: str) -> Path:
        """Where the finished file of that hash is, if it is there."""
        return self.root / "blobs" / sha256

    def make_folders(self) -> None:
        """Make the folders that files go to. Raises :class:`StorageError`."""
        for name in ("blobs", "partial", "locks", "bundles", "models"):
            with _in_one_line(self.root):
                (self.root / name).mkdir(parents=True, exist_ok=True)

    def there(self, entry: FileEntry) -> int:
        """Bytes of a file that are on the disk already; whether they are right is seen when they are used."""
        for path in (self.path(entry.sha256), self._partial(entry.sha256)):
            with suppress(OSError):
                return min(path.stat().st_size, entry.size)
        return 0

    @contextmanager
    def locked(self, name: str = "store") -> Iterator[None]:
        """Keep other processes out of ``name`` for a while, once they are out of it."""
        with _in_one_line(self.root):
            file = (self.root / "locks" / name).open("a+b")
        with file:
            told = False
            while not try_lock(file):
                if not told:
                    self.on_note("another llava-edge is at work on the same file; waiting for it")
                told = True
                time.sleep(_POLL)
            yield

    def fetch(self, entry: FileEntry, origin: Origin, hear: Hear = lambda _: None) -> None:
        """Have the file that ``entry`` speaks of, from ``origin`` where it is not there.

        What is there is hashed before it is used again; a second process waits for the first. Raises BundleError for
        a file that can't be had or is another one, StorageError.
        """
        blob = self.path(entry.sha256)
        # two files whose hashes begin alike wait for each other, and that is all
        with self.locked(entry.sha256[:2]), _in_one_line(blob):
            if blob.is_file():
                if blob.stat().st_size == entry.size and file_sha256(blob) == entry.sha256:
                    hear(entry.size)
                    return
                blob.unlink()
            self._fetch(entry, origin, hear)
            replace_file(self._partial(entry.sha256), blob)
            sync_folder(blob.parent)

    def _fetch(self, entry: FileEntry, origin: Origin, hear: Hear) -> None:
        """Fill the partial file, and try once more where it was begun by somebody who left something else there."""
        path = self._partial(entry.sha256)
        begun = path.exists()
        found = _filled(path, entry, origin, hear)
        if found != entry.sha256 and begun:
            path.unlink()
            found = _filled(path, entry, origin, hear)
        if found != entry.sha256:
            path.unlink()
            raise BundleError(
                expected=f"{shown(entry.name)} of {shown(origin.label)} with SHA-256 {entry.sha256[:12]}…",
                got=f"{found[:12]}…",
                fix="tell who published it: the file is not the one that its manifest speaks of",
            )

    def _partial(self, sha256: str) -> Path:
        return self.root / "partial" / sha256

    def collect(self, freed: Collection[str]) -> int:
        """Remove files that no bundle has: of ``freed`` at once, others once they are forgotten. Bytes freed."""
        total = 0
        for path in [*entries_of(self.root / "blobs"), *entries_of(self.root / "partial")]:
            with suppress(OSError):
                status = path.stat()
                old = time.time() - status.st_mtime > _FORGOTTEN
                if status.st_nlink == 1 and (path.name in freed or old):
                    path.unlink()
                    total += status.st_size
        return total


def entries_of(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it can't be read."""
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _filled(path: Path, entry: FileEntry, origin: Origin, hear: Hear) -> str:
    """Write all bytes of a file to ``path``, behind those that are there; give the SHA-256 of all of them."""
    with path.open("a+b") as file:
        part = _Part(file, entry, hear)
        tries = iter(WAITS)
        while part.size < entry.size:
            before = part.size
            try:
                with opened(origin, entry.name, part.size) as body:
                    _check_size(body, entry, origin)
                    part.take(body)
                reason, wait = f"{part.size} of {entry.size} bytes", 0.0
            except NotNow as error:
                reason, wait = str(error), error.wait
            if part.size - before >= ENOUGH:
                tries = iter(WAITS)
            elif part.size < entry.size:
                pause(next(tries, None), wait, f"{entry.name} of {origin.label}", reason)
        file.flush()
        sync_open(file.fileno())
        return part.digest.hexdigest()


def opened(origin: Origin, name: str, start: int = 0) -> Body:
    """A file that the manifest promises. Raises NotNow, BundleError."""
    try:
        return origin.open(name, start)
    except NotThere as error:
        raise BundleError(
            expected=f"{shown(name)} in {shown(origin.label)}, which its manifest lists",
            got="no such file",
            fix="tell who published it, or pull another revision",
        ) from error


def pause(seconds: float | None, asked: float, what: str, reason: str) -> None:
    """Wait before another try, longer where the server asks for it; ``seconds`` None: it was the last one."""
    if seconds is None:
        raise BundleError(
            expected=f"a connection that brings {shown(what)}",
            got=shown(reason),
            fix="check the network and run it again: it goes on where it stopped",
        )
    time.sleep(max(seconds, asked))


def _check_size(body: Body, entry: FileEntry, origin: Origin) -> None:
    if body.total is not None and body.total != entry.size:
        raise BundleError(
            expected=f"{shown(entry.name)} of {shown(origin.label)} with {entry.size} bytes, as its manifest says",
            got=f"{body.total}",
            fix="tell who published it, or pull another revision",
        )


class _Part:
    """A file that is being filled, and the digest of what it has."""

    def __init__(self, file: IO[bytes], entry: FileEntry, hear: Hear) -> None:
        self._file = file
        self._entry = entry
        self._hear = hear
        self.size = 0
        self.digest = hashlib.sha256()
        file.seek(0)
        while block := file.read(2**20):
            self.digest.update(block)
            self.size += len(block)
        if self.size > entry.size:
            self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.size, self.digest = 0, hashlib.sha256()

    def take(self, body: Body) -> None:
        """Add what ``body`` brings, never more than the whole file."""
        if body.start != self.size:
            if body.start:
                raise NotNow(f"bytes from {body.start} where those from {self.size} were asked for")
            self._restart()
        for piece in body.pieces:
            kept = piece[: self._entry.size - self.size]
            self._file.write(kept)
            self.digest.update(kept)
            self.size += len(kept)
            self._hear(self.size)
            if self.size == self._entry.size:
                break


@contextmanager
def _in_one_line(place: Path) -> Iterator[None]:
    try:
        yield
    except LlavaEdgeError:
        raise
    except OSError as error:
        raise storage_error(error, place) from error
