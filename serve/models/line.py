"""First come, first served: one request computes, a few wait, the next is told to come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import RequestError


class Place:
    """A place of one request, from its headers to the end of its computing."""

    def __init__(self, line: Line) -> None:
        self._line: Line | None = line

    def leave(self) -> None:
        """Give the place free. Safe to call twice."""
        line, self._line = self._line, None
        if line is not None:
            line.inside -= 1


class Line:
    """Of the event loop's thread alone."""

    def __init__(self, waiting: int) -> None:
        """``waiting`` requests may be inside beside the one that computes."""
        self.limit = waiting + 1
        self.inside = 0
        """Requests that have a place."""
        self.computing = False
        self._turns: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._turns)

    def enter(self) -> Place:
        """Take a place. Raises RequestError (429) where all are taken."""
        if self.inside >= self.limit:
            raise RequestError(
                expected=f"at most {self.limit - 1} waiting requests",
                got="one more",
                fix="ask again later",
                status=429,
                code="queue_full",
                retry_after=2,
            )
        self.inside += 1
        return Place(self)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until all who came earlier are done, then compute. May be cancelled while it waits."""
        if self.computing:
            await self._wait()
        self.computing = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._turns:
                self._turns.remove(turn)
            elif not turn.cancelled():  # it was ours already
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.computing = False
