"""What the language model had read of conversations that made way for another one, kept in memory.

A program that asks for a title between two turns, or two people who take turns, would otherwise have every picture read
again each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..prompts.segments import OpenImage, Segment, common_prefix, total_positions
from .kv_cache import KvCache
from .llm import Llm

LEAST = 256
"""Positions below which reading again costs less than keeping."""
COVERED = 0.95
"""A state is not kept where another one has this share of it."""
Record = Sequence[Segment | OpenImage]
"""What a context holds; only the last picture may be an open one."""


class StateHolder(Protocol):
    """A model's context and the record of what it holds."""

    def segments(self) -> Record:
        """What the context holds."""

    def reusable(self, wanted: Sequence[Segment]) -> int:
        """Positions of ``wanted`` that need not be read."""

    def state_size(self) -> int:
        """Bytes that the context's state takes; 0 where it can't be copied."""

    def save(self) -> Any:
        """A copy of it."""

    def restore(self, state: Any, segments: Record) -> bool:
        """Put a copy back in its place; False, and an empty context, where that failed."""


class ContextState:
    """The one context of a model in this process; see :class:`StateHolder`."""

    def __init__(self, llm: Llm, cache: KvCache) -> None:
        self._llm, self._cache = llm, cache
        self.segments, self.reusable = cache.segments, cache.reusable
        self.state_size, self.save = llm.state_size, llm.save_state

    def restore(self, state: Any, segments: Record) -> bool:
        """Put a copy back in its place; False, and an empty context, where that failed."""
        self._llm.ensure_context(total_positions(segments))
        restored = self._llm.restore_state(state)
        self._cache.adopt(segments if restored else ())
        return restored


@dataclass(frozen=True)
class Kept:
    """A copy of a context's state. ``size`` in bytes."""

    segments: tuple[Segment | OpenImage, ...]
    size: int
    state: Any = field(repr=False, compare=False)


class KeptStates:
    """Copies of displaced states, the latest used last, together at most ``limit`` bytes."""

    def __init__(self, limit: int, *, least: int = LEAST) -> None:
        self._limit = limit
        self._least = least
        self._kept: list[Kept] = []
        self.hits = 0
        """How often one was put back."""

    @property
    def size(self) -> int:
        """Bytes of all copies."""
        return sum(one.size for one in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def change_to(self, wanted: Sequence[Segment], holder: StateHolder) -> None:
        """Before ``wanted`` is read: keep what it would displace, and put back what has most of it."""
        if not self._limit:
            return
        held = holder.segments()
        there = holder.reusable(wanted)
        if total_positions(held) - there >= self._least:
            self._keep(held, holder)
        found = max(self._kept, key=lambda one: common_prefix(one.segments, wanted), default=None)
        if found is None or common_prefix(found.segments, wanted) - there < self._least:
            return
        self._kept.remove(found)
        if holder.restore(found.state, found.segments):
            self._kept.append(found)
            self.hits += 1

    def _keep(self, held: Record, holder: StateHolder) -> None:
        positions = total_positions(held)
        whole = closed(held)
        if any(common_prefix(one.segments, whole) >= COVERED * positions for one in self._kept):
            return
        size = holder.state_size()
        if not 0 < size <= self._limit:
            return
        self._kept = [one for one in self._kept if not within(one.segments, whole, positions)]
        while self.size + size > self._limit:  # before the copy is made, so that the limit holds at every moment
            self._kept.pop(0)
        with suppress(MemoryError):  # not kept, then: an answer is worth more
            self._kept.append(Kept(tuple(held), size, holder.save()))


def closed(held: Record) -> list[Segment]:
    """What would be held if the last picture had been read to its end."""
    return [one.image if isinstance(one, OpenImage) else one for one in held]


def within(record: Record, whole: Sequence[Segment], positions: int) -> bool:
    """Whether all of a copy is the beginning of what is held in so many ``positions``, perhaps of an open picture."""
    length = total_positions(record)
    return length <= positions and common_prefix(record, whole) == length
