"""Answers for programs on asyncio: the same calls in a thread, which end where the task that waits is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from .callbacks import Cancel

T = TypeVar("T")
Made = tuple[str, T | None, BaseException | None]
"""What comes out of the thread: "item", "result" or "error", and which."""
ITEM, RESULT, ERROR = "item", "result", "error"


async def iterate(make: Callable[[Cancel], Iterator[T]], cancelled: Cancel | None = None) -> AsyncIterator[T]:
    """Yield what the iterator yields that ``make`` makes; it is made and read in a thread of its own.

    ``make`` gets what tells it to end: ``cancelled``, and the end of this generator, by a cancelled task or otherwise.
    That end waits for the thread's, so the model can be asked again right after it.
    """
    made: asyncio.Queue[Made[T]] = asyncio.Queue()
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def tell(one: Made[T]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever would hear
            loop.call_soon_threadsafe(made.put_nowait, one)

    def work() -> None:
        try:
            for item in make(lambda: stop.is_set() or (cancelled is not None and cancelled())):
                tell((ITEM, item, None))
            tell((RESULT, None, None))
        except BaseException as error:
            tell((ERROR, None, error))

    threading.Thread(target=work, name="answer", daemon=True).start()
    kind = ITEM
    try:
        while kind == ITEM:
            kind, item, error = await made.get()
            if error is not None:
                raise error
            if kind == ITEM:
                yield item  # type: ignore[misc]
    finally:
        stop.set()
        while kind == ITEM:  # however often somebody cancels
            with suppress(asyncio.CancelledError):
                kind, _, _ = await made.get()


async def call(make: Callable[[Cancel], T], cancelled: Cancel | None = None) -> T:
    """What ``make`` returns, called in a thread of its own; ended as in :func:`iterate`."""

    def once(stop: Cancel) -> Iterator[T]:
        yield make(stop)

    results = [item async for item in iterate(once, cancelled)]
    return results[0]
