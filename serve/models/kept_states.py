"""What the language model had read of conversations that made way for another one, kept in memory.

A program that asks for a title between two turns, or two people who take turns, would otherwise have every picture read
again each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...runtime.prompts.segments import Segment, common_prefix, total_positions

LEAST = 256
"""Positions below which reading again costs less than keeping."""
COVERED = 0.95
"""A state is not kept where another one has this share of it."""


class StateHolder(Protocol):
    """A model's context and the record of what it holds."""

    def segments(self) -> list[Segment]:
        """What the context holds."""

    def reusable(self, wanted: Sequence[Segment]) -> int:
        """Positions of ``wanted`` that need not be read."""

    def state_size(self) -> int:
        """Bytes that the context's state takes."""

    def save(self) -> Any:
        """A copy of it."""

    def restore(self, state: Any, segments: Sequence[Segment]) -> bool:
        """Put a copy back in its place; False, and an empty context, where that failed."""


@dataclass(frozen=True)
class Kept:
    """A copy of a context's state. ``size`` in bytes."""

    segments: tuple[Segment, ...]
    size: int
    state: Any = field(repr=False, compare=False)


class KeptStates:
    """Copies of displaced states, the latest used last, together at most ``limit`` bytes."""

    def __init__(self, limit: int, *, least: int = LEAST) -> None:
        self._limit = limit
        self._least = least
        self._kept: list[Kept] = []

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

    def _keep(self, held: Sequence[Segment], holder: StateHolder) -> None:
        positions = total_positions(held)
        if any(common_prefix(one.segments, held) >= COVERED * positions for one in self._kept):
            return
        size = holder.state_size()
        if not 0 < size <= self._limit:
            return
        self._kept = [one for one in self._kept if common_prefix(one.segments, held) < total_positions(one.segments)]
        while self.size + size > self._limit:  # before the copy is made, so that the limit holds at every moment
            self._kept.pop(0)
        self._kept.append(Kept(tuple(held), size, holder.save()))
