"""What the language model had read, kept between processes: found by its longest beginning of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..callbacks import Cancel
from ..language.kept_states import COVERED, Record, closed, within
from ..prompts.segments import (
    ImageSegment,
    OpenImage,
    Segment,
    TextSegment,
    common_prefix,
    total_positions,
)
from .entry import BadEntryError, Draft, Entry, digest_of, read_entry
from .folder import CacheFolder

BASE = 32
"""Hex digits of the base that a name begins with."""


@dataclass(frozen=True)
class Stored:
    """A state on the disk, and what it holds."""

    entry: Entry
    segments: tuple[Segment | OpenImage, ...]


class DurableStates:
    """The states of one language model, loaded in one way."""

    def __init__(self, folder: CacheFolder, parts: dict[str, Any]) -> None:
        """``parts`` are all that a state depends on beside what was read; see :func:`keys.state_parts`."""
        self._folder = folder
        self._base = digest_of(parts)
        self._versions = {name: parts.get(name) for name in ("llava_edge", "llama_cpp", "cache")}
        self._known: dict[str, Stored] = {}

    def find(self, wanted: Sequence[Segment], *, beyond: int, most: int) -> Stored | None:
        """The state that has most of the beginning of ``wanted``, if it has more than ``beyond`` positions of it.

        One of more than ``most`` positions fits no context here.
        """
        fitting = [one for one in self._all() if total_positions(one.segments) <= most]
        found = max(fitting, key=lambda one: common_prefix(one.segments, wanted), default=None)
        return found if found is not None and common_prefix(found.segments, wanted) > beyond else None

    def has(self, held: Record) -> bool:
        """Whether a stored state has nearly all that is ``held``."""
        whole = closed(held)
        return any(common_prefix(one.segments, whole) >= COVERED * total_positions(held) for one in self._all())

    def used(self, stored: Stored) -> None:
        """Note that a state was put back."""
        self._folder.used(stored.entry.path)

    def drop(self, stored: Stored) -> None:
        """Forget a state that could not be put back."""
        self._folder.drop(stored.entry.path)

    def draft(self, held: Record, size: int) -> Draft:
        """An entry of ``size`` bytes to copy the state into. Raises OSError."""
        segments = _plain(held)
        header = {"kind": "state", "base": self._base, "segments": segments, "versions": self._versions}
        return Draft(self._folder.path_of("states", self._name(segments)), header, size)

    def finish(self, held: Record, draft: Draft, cancelled: Cancel | None = None) -> None:
        """Put a filled draft in its place, where there is room; what is only its beginning goes.

        Needs :meth:`CacheFolder.writing`. Raises OSError, Cancelled.
        """
        size = draft.offset + draft.size
        if self.has(held) or not self._folder.make_room("states", size):
            draft.discard()
            return
        whole, positions = closed(held), total_positions(held)
        beginnings = [one for one in self._all() if within(one.segments, whole, positions)]
        draft.finish(cancelled=cancelled)
        self._folder.wrote(size)
        for one in beginnings:
            self._folder.drop(one.entry.path)

    def _name(self, segments: Any) -> str:
        return f"{self._base[:BASE]}-{digest_of([self._base, segments])}"

    def _all(self) -> list[Stored]:
        """What is there now of this model; of equally good ones the latest used comes first."""
        if self._folder.why_unusable():
            return []
        known, self._known = self._known, {}
        for path in reversed(self._folder.paths("states", beginning=f"{self._base[:BASE]}-")):
            if path.name in known:
                self._known[path.name] = known[path.name]
                continue
            try:
                self._known[path.name] = self._read(read_entry(path), path.stem)
            except BadEntryError:
                self._folder.drop(path)
        return list(self._known.values())

    def _read(self, entry: Entry, name: str) -> Stored:
        plain = entry.header.get("segments")
        if entry.header.get("base") != self._base or name != self._name(plain):
            raise BadEntryError("another state than its name says")
        with suppress(ValueError, TypeError):
            return Stored(entry, tuple(map(_segment, plain)))  # type: ignore[arg-type]  # TypeError is caught
        raise BadEntryError("segments of another kind")


def _plain(held: Record) -> list[list[Any]]:
    found: list[list[Any]] = []
    for one in held:
        if isinstance(one, TextSegment):
            found.append(["text", list(one.tokens)])
        elif isinstance(one, ImageSegment):
            found.append(["picture", one.digest, one.positions])
        else:
            found.append(["open", one.image.digest, one.image.positions, one.held])
    return found


def _segment(plain: Sequence[Any]) -> Segment | OpenImage:
    kind, *rest = plain
    if kind == "text":
        return TextSegment(tuple(map(int, rest[0])))
    if kind == "picture":
        return ImageSegment(str(rest[0]), int(rest[1]))
    if kind == "open":
        return OpenImage(ImageSegment(str(rest[0]), int(rest[1])), int(rest[2]))
    raise ValueError(kind)
