"""One request at a time: who holds the turn, who waits for it, and for how long."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from llava_edge.runtime.engine.turns import Turns
from llava_edge.runtime.errors import BusyError, Cancelled, NativeError, OptionError

PATIENCE = 60.0


@pytest.fixture
def turns() -> Turns:
    return Turns()


def answering(turns: Turns) -> Iterator[int]:
    with turns.take("an answer"):
        yield from range(10**6)


class Holder:
    """Another thread that holds the turn until it is told to end."""

    def __init__(self, turns: Turns) -> None:
        self.held, self.end = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold, args=(turns,), name="holder")
        self.thread.start()
        assert self.held.wait(PATIENCE)

    def hold(self, turns: Turns) -> None:
        with turns.take("an answer"):
            self.held.set()
            assert self.end.wait(PATIENCE)


@pytest.fixture
def holder(turns: Turns) -> Iterator[Holder]:
    one = Holder(turns)
    yield one
    one.end.set()
    one.thread.join()


@pytest.mark.usefixtures("holder")
@pytest.mark.parametrize("wait", [False, 0, 0.0, 0.05])
def test_the_error_says_who_has_the_turn(turns: Turns, wait: float) -> None:
    said = r"a second one during an answer, begun \d+ s ago in thread holder; .* wait: wait=SECONDS"
    began = time.monotonic()
    with pytest.raises(BusyError, match=said), turns.take("another", wait):
        pass
    assert time.monotonic() - began >= wait


@pytest.mark.parametrize("wait", [True, PATIENCE])
@pytest.mark.parametrize("asked", [None, lambda: False], ids=["", "asked"])
def test_who_waits_gets_the_turn(turns: Turns, holder: Holder, wait: float, asked: Any) -> None:
    threading.Timer(0.1, holder.end.set).start()
    with turns.take("another", wait, asked):
        assert holder.end.is_set()


@pytest.mark.usefixtures("holder")
def test_who_waits_may_cancel(turns: Turns) -> None:
    asked = itertools.count()
    with pytest.raises(Cancelled), turns.take("another", wait=True, cancelled=lambda: next(asked) == 3):
        pass


def test_a_thread_does_not_wait_for_itself(turns: Turns) -> None:
    kept = answering(turns)
    next(kept)
    with pytest.raises(BusyError, match=r"finish or close its iterator$"), turns.take("another", wait=True):
        pass
    kept.close()  # type: ignore[attr-defined]
    with turns.take("another"):
        pass


def test_a_forgotten_iterator_gives_the_turn_back(turns: Turns) -> None:
    forgotten = answering(turns)
    next(forgotten)
    del forgotten
    gc.collect()
    with turns.take("another"):
        pass


@pytest.mark.usefixtures("holder")
def test_closing_ends_the_waiting(turns: Turns) -> None:
    threading.Timer(0.1, turns.close).start()
    with pytest.raises(NativeError, match="an open model; got a closed one"), turns.take("another", wait=True):
        pass
    with pytest.raises(NativeError, match="an open model; got a closed one"), turns.take("another"):
        pass


@pytest.mark.parametrize("wait", [-1, float("nan"), "5", None, [1]])
def test_a_wait_is_seconds(turns: Turns, wait: Any) -> None:
    with pytest.raises(OptionError, match="wait as seconds from 0, or True"), turns.take("another", wait):
        pass
    with turns.take("another", float("inf")):
        pass


def test_everybody_has_a_turn(turns: Turns) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(50):
            with turns.take("work", wait=True):
                inside.append(True)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == [1] * 200


def test_too_little_memory_is_said_and_gives_the_turn_back(turns: Turns) -> None:
    said = "expected memory for an answer; got too little; close other programs"
    with pytest.raises(NativeError, match=said), turns.take("an answer"):
        raise MemoryError
    with turns.take("another"):
        pass
