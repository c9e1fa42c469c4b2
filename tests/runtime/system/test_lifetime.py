"""Native memory is freed once, when the last call in it has ended, whoever closes it from wherever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.system.lifetime import Lifetime, give_memory_back

PATIENCE = 60.0


class Native:
    """Something that is freed, and stopped."""

    def __init__(self) -> None:
        self.frees, self.stopped = 0, threading.Event()
        self.life = Lifetime("model", self.free, self.stopped.set)

    def free(self) -> None:
        self.frees += 1

    def compute(self, begun: threading.Event) -> None:
        with self.life:
            begun.set()
            assert self.stopped.wait(PATIENCE)
            assert not self.frees

    def compute_in_thread(self) -> threading.Thread:
        begun = threading.Event()
        thread = threading.Thread(target=self.compute, args=(begun,))
        thread.start()
        assert begun.wait(PATIENCE)
        return thread


def test_closing_stops_what_computes_and_waits_for_it() -> None:
    native = Native()
    threads = [native.compute_in_thread() for _ in range(3)]
    native.life.close()
    assert native.frees == 1
    for thread in threads:
        thread.join()
    native.life.close()
    assert native.frees == 1


def test_many_may_close() -> None:
    native = Native()
    computing = native.compute_in_thread()
    closing = [threading.Thread(target=native.life.close) for _ in range(4)]
    for thread in closing:
        thread.start()
    for thread in [*closing, computing]:
        thread.join(PATIENCE)
    assert native.frees == 1


@pytest.mark.parametrize("use", [Lifetime.check, Lifetime.__enter__], ids=["check", "enter"])
def test_what_is_closed_begins_nothing(use: Callable[[Lifetime], None]) -> None:
    native = Native()
    native.life.close()
    assert native.life.closed
    with pytest.raises(NativeError, match="expected an open model; got a closed one; load it again"):
        use(native.life)


def test_closing_from_inside_a_call_frees_when_it_is_left() -> None:
    native = Native()
    with native.life:
        native.life.close()
        assert not native.frees
    assert native.frees == 1


def test_a_call_that_fails_is_left_too() -> None:
    native = Native()
    with pytest.raises(ZeroDivisionError), native.life:
        raise ZeroDivisionError
    native.life.close()
    assert native.frees == 1


def test_another_c_library_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl and macOS have no malloc_trim, and Windows nothing by the name of None."""
    give_memory_back()
    for error in (AttributeError, OSError, TypeError):

        def library(_: object, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr("llava_edge.runtime.system.lifetime.ctypes.CDLL", library)
        give_memory_back()
