"""What is in the durable cache, for people: counted, checked, cleared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .entry import BadEntryError, digest_of, read_entry
from .folder import SUFFIXES, CacheFolder, Kind
from .states import BASE


@dataclass(frozen=True)
class Share:
    """Entries of a kind, and their bytes."""

    count: int
    bytes: int


def share(folder: CacheFolder, kind: Kind) -> Share:
    """What there is of a kind; nothing in a folder that can't be used."""
    if folder.why_unusable():
        return Share(0, 0)
    return Share(len(folder.paths(kind)), folder.size(kind))


def check_all(folder: CacheFolder) -> Iterator[tuple[Path, str]]:
    """Every entry, read whole, with what is wrong with it; empty where nothing is."""
    for kind in SUFFIXES:
        for path in folder.paths(kind):
            try:
                entry = read_entry(path)
                if _name(kind, entry.header) != path.stem:
                    raise BadEntryError("another entry than its name says")
                entry.payload()
            except BadEntryError as error:
                yield path, str(error)
            else:
                yield path, ""


def clear(folder: CacheFolder) -> tuple[Share, bool]:
    """Remove all entries; what went, and whether nothing is left. Raises OSError."""
    went = [share(folder, kind) for kind in SUFFIXES]
    with folder.writing() as allowed:
        if allowed:
            for kind in SUFFIXES:
                for path in folder.paths(kind):
                    path.unlink(missing_ok=True)
    left = [share(folder, kind).count for kind in SUFFIXES]
    total = Share(sum(one.count for one in went) - sum(left), sum(one.bytes for one in went))
    return total, not sum(left)


def _name(kind: Kind, header: object) -> str:
    """The name that an entry with such a header has."""
    with suppress(KeyError, TypeError):
        assert isinstance(header, dict)
        if kind == "pictures":
            return digest_of(header["key"])
        return f"{header['base'][:BASE]}-{digest_of([header['base'], header['segments']])}"
    return ""
