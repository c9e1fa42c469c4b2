"""A bundle that takes hours to write: what is finished outlives a killed process, and is continued.

The work lies in a folder beside the destination, ``.NAME.partial``: the unfinished bundle, and a
journal of what in it is finished. Its names are fixed, unlike those of ``storage.writing_folder``, so
that the next process finds it; a lock keeps it to one. The first line of the journal is the key of
everything that decides about the bytes (source, options, versions), so only the same work is ever
continued.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..callbacks import Progress
from ..errors import LlavaEdgeError, StorageError
from ..system.filesystems import replace_file, set_mode, sync_files, sync_folder, sync_open, try_lock
from ..system.storage import check_absent, check_outside_bundles, put_folder, storage_error
from .gguf_layout import Chunks, GgufFile

PIECE_BYTES = 2**26
"""Bytes of a file that are copied at a time."""
_BUNDLE, _JOURNAL, _LOCK = "bundle", "journal", "lock"


class Journal:
    """Names of what is finished, one a line, each written through to the disk after what it names."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self.done: frozenset[str] = frozenset()

    def read(self) -> str:
        """Take up the names in the file; a last line cut short does not count. Returns the file's key."""
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError):
            return ""
        self.done = frozenset(lines[1:]) if lines[:1] == [self.key] else frozenset()
        return lines[0] if lines else ""

    def start(self) -> None:
        """Write the file anew: the key, and what is finished so far."""
        # not write_text: the work is locked, and one fixed name lets the next process write over what a killed one left
        temporary = self.path.with_suffix(".new")
        temporary.write_text("".join(f"{line}\n" for line in (self.key, *sorted(self.done))), encoding="utf-8")
        replace_file(temporary, self.path)

    def add(self, name: str) -> None:
        """Note that ``name`` is finished and on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
            file.flush()
            sync_open(file.fileno())
        self.done |= {name}


@dataclass(frozen=True)
class Work:
    """An unfinished bundle: its folder, and the journal of what in it is finished."""

    folder: Path
    journal: Journal


@contextmanager
def continuing_bundle(
    destination: str | os.PathLike[str],
    *,
    key: str,
    kept: Collection[str],
    resume: bool = True,
    on_note: Callable[[str], None] = lambda _: None,
) -> Iterator[Work]:
    """Give the work of ``key`` on ``destination``, continued where it is there; rename it into place at the end.

    ``kept`` names the files that the journal speaks of; everything else of an earlier run is removed.
    Work of another key, or any without ``resume``, is started anew; ``on_note`` hears which it was.
    An error removes the work. A kill or Ctrl-C leaves it, once anything in it is finished. Raises
    :class:`StorageError`, also where another process is at the same work.
    """
    target = Path(destination)
    check_absent(target)
    check_outside_bundles(target)
    place = work_place(target)
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = _locked(place / _LOCK)
    except OSError as error:
        raise error if isinstance(error, StorageError) else storage_error(error, target) from error
    journal = Journal(place / _JOURNAL, key)
    leave = False
    try:
        folder = _open(place, journal, kept, resume, on_note)
        yield Work(folder, journal)
        sync_files(folder)
        put_folder(folder, target)
        sync_folder(target.parent)
    except (KeyboardInterrupt, SystemExit):
        leave = bool(journal.done)
        raise
    except OSError as error:
        raise error if isinstance(error, LlavaEdgeError) else storage_error(error, target) from error
    finally:
        if leave:
            lock.close()
        else:
            _remove(place, lock)


def work_place(target: Path) -> Path:
    """Where the unfinished work on ``target`` lies."""
    return target.with_name(f".{target.name}.partial")


def kept_bytes(destination: str | os.PathLike[str], *, key: str, names: Collection[str]) -> int:
    """Bytes already on the disk, in the files ``names``, that work of ``key`` would not write again."""
    place = work_place(Path(destination))
    if Journal(place / _JOURNAL, key).read() != key:
        return 0
    return sum(_allocated(place / _BUNDLE / name) for name in names)


def write_tensors(
    work: Work, files: Sequence[GgufFile], *, chunks: Chunks, progress: Progress = lambda done, total: None
) -> None:
    """Write the GGUF ``files`` into the work's folder, tensor by tensor, past those that are finished.

    ``chunks`` gives a tensor's bytes and is asked only for those that are not. Memory is bounded by a chunk.
    """
    total = sum(place.size for file in files for place in file.places)
    done = sum(place.size for file in files for place in file.places if place.name in work.journal.done)
    progress(done, total)
    for file in files:
        finished = [place.end for place in file.places if place.name in work.journal.done]
        with _opened(work.folder / file.name, max(finished, default=0)) as output:
            output.write(file.head)
            for place in file.places:
                if place.name in work.journal.done:
                    continue
                output.seek(place.offset)
                for chunk in chunks(place.name):
                    done += output.write(chunk)
                    progress(done, total)
                written = output.tell() - place.offset
                if written != place.size:
                    raise RuntimeError(f"{written} bytes of {place.name}, laid out for {place.size}")
                output.write(bytes(place.end - output.tell()))
                _finish(output, work.journal, place.name)


def copy_files(work: Work, files: Sequence[Path], *, progress: Progress = lambda done, total: None) -> None:
    """Copy ``files`` into the work's folder as they are, past the pieces that are finished. Memory: a piece."""
    sizes = {path: path.stat().st_size for path in files}
    cuts = [
        (path, at, min(at + PIECE_BYTES, size)) for path, size in sizes.items() for at in range(0, size, PIECE_BYTES)
    ]
    pieces = {f"{path.name} {start}-{end}": (path, start, end) for path, start, end in cuts}
    done = sum(end - start for name, (_, start, end) in pieces.items() if name in work.journal.done)
    progress(done, sum(sizes.values()))
    for name, (path, start, end) in pieces.items():
        if name in work.journal.done:
            continue
        with path.open("rb") as source, _opened(work.folder / path.name, start) as output:
            source.seek(start)
            output.seek(start)
            output.write(source.read(end - start))
            _finish(output, work.journal, name)
        done += end - start
        progress(done, sum(sizes.values()))


def _opened(path: Path, finished: int) -> IO[bytes]:
    """Open a file to go on with behind its ``finished`` bytes."""
    there = path.stat().st_size if path.is_file() else 0
    if there < finished:
        raise StorageError(
            expected=f"{finished} finished bytes in {path}", got=f"{there}", fix="run it again: it begins anew"
        )
    return path.open("r+b" if path.is_file() else "w+b")


def _finish(output: IO[bytes], journal: Journal, name: str) -> None:
    output.flush()
    sync_open(output.fileno())
    journal.add(name)


def _open(place: Path, journal: Journal, kept: Collection[str], resume: bool, on_note: Callable[[str], None]) -> Path:
    """The folder of the unfinished bundle: as it was left, or empty."""
    found = journal.read()
    folder = place / _BUNDLE
    if resume and journal.done:
        on_note(f"continuing what was interrupted: {len(journal.done)} parts are written")
        for path in folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        if journal.done or found not in ("", journal.key):
            on_note("starting anew: " + ("as asked" if journal.done else "other source or options than interrupted"))
        journal.done = frozenset()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        set_mode(folder, 0o755)
    journal.start()
    return folder


def _locked(path: Path) -> IO[bytes]:
    """Open and lock ``path`` for this process; a killed one gives its lock up."""
    file = path.open("a+b")
    if not try_lock(file):
        file.close()
        raise StorageError(
            expected=f"no other process at work in {path.parent}", got="one", fix="wait for it, or end it"
        )
    return file


def _remove(place: Path, lock: IO[bytes]) -> None:
    """Remove what is ours in ``place``, and the folder unless something else lies there."""
    shutil.rmtree(place / _BUNDLE, ignore_errors=True)
    (place / _JOURNAL).unlink(missing_ok=True)
    lock.close()  # Windows removes no file that is open
    (place / _LOCK).unlink(missing_ok=True)
    if not any(place.iterdir()):
        place.rmdir()


def _allocated(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
