"""A child process, whatever it serves: answers and items, and how it ends or is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.callbacks import finish
from llava_edge.runtime.errors import BusyError, Cancelled, NativeError, OptionError
from llava_edge.runtime.processes import parent_side
from llava_edge.runtime.processes.parent_side import ChildProcess, status_name
from support.played_child import main, main_without_posix

FIRST_REPLY = 30.0
"""Seconds that a machine under load may take to start Python."""


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    process = ChildProcess(main)
    yield process
    process.close()


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_within(seconds: float, process: int) -> bool:
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(process)


def test_values_there_and_back(child: ChildProcess) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    (text, back, path), keywords = child.request("echo", "ä", rows, Path("a"), method="one of its own", every=True)
    assert (text, path, keywords) == ("ä", Path("a"), {"method": "one of its own", "every": True})
    np.testing.assert_array_equal(back, rows)
    assert child.request("print", "between the replies\n") == "between the replies\n"
    assert child.request("echo") == ((), {})


def test_items_come_before_the_result(child: ChildProcess) -> None:
    replies = child.stream("count", 3)
    assert [next(replies) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopIteration) as end:
        next(replies)
    assert end.value.value == "all"
    assert child.request("count", 5) == "all"  # who asks for no items gets none


def test_a_stream_closed_early_is_cancelled_and_nothing_of_it_is_left(child: ChildProcess) -> None:
    replies = child.stream("count", 10**9)
    next(replies)
    replies.close()
    assert 0 < child.request("sent") < 10**9
    deaf = child.stream("count", 2000, polite=False)
    next(deaf)
    deaf.close()
    assert child.request("sent") == 2000
    assert child.request("count", 10) == "all"  # a wish to end is forgotten with its request


def test_another_thread_may_cancel(child: ChildProcess) -> None:
    child.request("echo")
    child.cancel()  # nothing is under way
    replies = child.stream("wait_for_cancel")
    next(replies)
    threading.Timer(0.1, child.cancel).start()
    with pytest.raises(Cancelled):
        next(replies)
    assert child.request("echo", 1) == ((1,), {})


def test_one_request_at_a_time(child: ChildProcess) -> None:
    replies = child.stream("count", 3)
    next(replies)
    with pytest.raises(BusyError):
        child.request("echo")
    assert list(replies) == [1, 2]
    assert child.request("echo") == ((), {})


def test_errors_are_those_of_the_other_side(child: ChildProcess) -> None:
    with pytest.raises(OptionError) as caught:
        child.request("refuse")
    assert (caught.value.expected, caught.value.got, caught.value.fix) == ("a", "b", "c")
    with pytest.raises(RuntimeError, match=r"(?s)in fail.*ZeroDivisionError: ours"):
        child.request("fail")
    with pytest.raises(RuntimeError, match="no_such_method"):
        child.request("no_such_method")
    with pytest.raises(RuntimeError, match="pickle"):
        child.request("handle")
    with pytest.raises(Exception, match="pickle"):
        child.request("echo", bytes(2**20), lambda: None)
    assert child.request("echo") == ((), {})  # none of these cost the process


def test_its_end_is_an_error_with_its_last_words(child: ChildProcess) -> None:
    with pytest.raises(NativeError, match=r"native code's process \(SIGABRT\): GGML_ASSERT\(x\) failed;") as caught:
        child.request("abort", "GGML_ASSERT(x) failed")
    assert child.gone
    assert child.status == -signal.SIGABRT
    with pytest.raises(NativeError) as again:
        child.request("echo")
    assert again.value is caught.value
    child.cancel()


def test_what_takes_too_long_is_ended() -> None:
    class Limited(ChildProcess):
        def limit(self, method: str) -> float:
            return 0.5 if method == "compute" else FIRST_REPLY

    child = Limited(main)
    try:
        child.request("echo")
        began = time.monotonic()
        with pytest.raises(NativeError, match=r"no answer within 0\.5 s"):
            child.request("compute", 60)
        assert time.monotonic() - began < 5
    finally:
        child.close()


STOPS = [b"", bytes(2**23)]
"""Requests that a pipe holds, and that it does not."""
SIZES = pytest.mark.parametrize("sent", STOPS, ids=["small", "large"])


def stopped(child: ChildProcess) -> ChildProcess:
    """Let it stand still, as a debugger or a machine without memory may."""
    child.request("echo")
    os.kill(child.pid, signal.SIGSTOP)
    return child


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_side, "PATIENCE_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
@SIZES
def test_who_asks_a_stopped_process_can_change_their_mind(child: ChildProcess, sent: bytes) -> None:
    stopped(child)
    began = time.monotonic()
    said = r"native code to go on; got no end within 0\.3 s after it was asked to; load the model again"
    with pytest.raises(NativeError, match=said):
        child.ask(lambda: time.monotonic() > began + 0.2, "echo", sent)
    assert time.monotonic() - began < 5
    with pytest.raises(NativeError, match="no end within"):
        child.request("echo", 1)


@pytest.mark.usefixtures("impatient")
@SIZES
def test_who_waits_behind_a_stuck_request_can_too(child: ChildProcess, sent: bytes) -> None:
    """Another thread's request fills the pipe, and nobody ends that one."""
    stopped(child)
    ends: list[str] = []

    def stuck() -> None:
        with pytest.raises(NativeError) as caught:
            child.ask(None, "echo", sent, lane=1)
        ends.append(str(caught.value))

    other = threading.Thread(target=stuck)
    other.start()
    with pytest.raises(NativeError):
        child.ask(lambda: True, "echo", b"more" * 2**18)
    other.join(5)
    assert ends[0].startswith("expected native code to go on; got ")


@pytest.mark.usefixtures("impatient")
def test_a_turn_that_a_stuck_request_holds_is_given_up(child: ChildProcess) -> None:
    stopped(child)
    turn, began = threading.Lock(), threading.Event()

    def stuck() -> None:
        with turn:
            began.set()
            with pytest.raises(NativeError, match="SIGKILL"):
                child.request("echo", 1)

    other = threading.Thread(target=stuck)
    other.start()
    began.wait()
    with child.taking(turn, lambda: True), pytest.raises(NativeError, match="SIGKILL"):
        child.request("echo", 1)
    other.join(5)
    assert not other.is_alive()


@pytest.mark.usefixtures("impatient")
def test_a_stream_of_a_stopped_process_can_be_closed(child: ChildProcess) -> None:
    items = child.stream("wait_for_cancel")
    next(items)
    os.kill(child.pid, signal.SIGSTOP)
    items.close()
    assert child.gone


@pytest.mark.usefixtures("impatient")
def test_what_ends_in_time_is_not_ended(child: ChildProcess) -> None:
    child.request("echo")
    for _ in range(3):
        with pytest.raises(Cancelled):
            finish(child.stream_until(lambda: True, "wait_for_cancel"))
    assert child.request("echo", 5) == ((5,), {})


@SIZES
def test_wishes_stay_behind_their_requests(child: ChildProcess, sent: bytes) -> None:
    """One that came before its request would be lost, one that came after its end would end the next."""
    for _ in range(10):
        assert child.ask(lambda: True, "echo", sent) == ((sent,), {})
        with pytest.raises(Cancelled):
            child.ask(lambda: True, "wait_for_cancel")


@SIZES
def test_a_stopped_process_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_side, "_CLOSE_SECONDS", 0.3)
    child = stopped(ChildProcess(main))
    ends: list[str] = []

    def ask() -> None:
        with pytest.raises(NativeError) as caught:
            child.request("echo", sent)
        ends.append(str(caught.value))

    other = threading.Thread(target=ask)
    other.start()
    time.sleep(0.1)
    child.close()
    other.join(5)
    assert ends == ["expected an open model; got a closed one; load it again"]
    assert gone_within(5, child.pid)


def test_who_reads_on_when_the_interpreter_has_closed_it_gets_an_error(child: ChildProcess) -> None:
    items = child.stream("count", 10**6)
    next(items)
    child._end()  # its finalizer runs at exit, before the last iterators go
    assert child.gone
    items.close()
    with pytest.raises(NativeError, match="an open model; got a closed one"):
        child.request("echo", 1)


def test_closing_ends_what_native_code_computes(child: ChildProcess) -> None:
    """By itself, at the end of its input: it need not be killed."""
    replies = child.stream("compute", 60)
    next(replies)
    threading.Timer(0.2, child.close).start()
    with pytest.raises(NativeError, match="a closed one"):
        next(replies)
    assert child.status == 1
    replies.close()


def test_closed_between_two_items_is_closed(child: ChildProcess) -> None:
    replies = child.stream("count", 10**9)
    next(replies)
    child.close()
    replies.close()
    with pytest.raises(NativeError, match="a closed one"):
        child.request("echo")


def application(main_name: str, after: str) -> tuple[subprocess.Popen[bytes], int]:
    """An application whose child computes, and the child's number."""
    code = (
        f"import os, sys, time; sys.path[:] = {sys.path!r}\n"
        "from llava_edge.runtime.processes.parent_side import ChildProcess\n"
        f"from support.played_child import {main_name} as main\n"
        "child = ChildProcess(main); replies = child.stream('compute', 60); next(replies)\n"
        f"{after}\nprint(child.pid, flush=True); time.sleep(60)"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert started.stdout is not None
    return started, int(started.stdout.readline())


HOLD_THE_PIPE = "if not os.fork():\n    os.close(1); time.sleep(5); os._exit(0)"


@pytest.mark.parametrize(
    ("main_name", "after"), [("main", HOLD_THE_PIPE), ("main_without_posix", "")], ids=["new parent", "end of input"]
)
def test_it_leaves_with_the_application_while_native_code_computes(main_name: str, after: str) -> None:
    """Noticed in either way alone: another process holds the pipe open; the system tells of no new parent."""
    started, child = application(main_name, after)
    started.kill()
    started.communicate()
    assert gone_within(2.5, child)


def test_systems_without_limits_have_children_too() -> None:
    child = ChildProcess(main_without_posix)
    assert child.request("echo", 1) == ((1,), {})
    child.close()
    assert child.status == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_it_inherits_nothing_but_the_pipes(child: ChildProcess, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        late = ChildProcess(main)
        facts = late.request("facts")
        late.close()
    assert sum(name.startswith("pipe:") for name in facts["files"]) == 2
    assert not any("secret" in name for name in facts["files"])
    assert facts["core"] == (0, 0)
    assert facts["interrupt"]
    assert facts["backtrace"] == "1"


def test_what_it_started_does_not_hide_its_end(child: ChildProcess) -> None:
    grandchild = child.request("grandchild")
    try:
        os.kill(child.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(NativeError, match="SIGKILL"):
            child.request("echo")
        assert time.monotonic() - began < 5
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_it_imports_what_we_do_not_what_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llava_edge.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    child = ChildProcess(main)
    try:
        assert child.request("facts")["folder"] == str(tmp_path)
    finally:
        child.close()


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (-signal.SIGSEGV, "SIGSEGV"),
        (-(signal.SIGRTMIN + 1), f"signal {signal.SIGRTMIN + 1}"),
        (1, "status 1"),
        (0xC0000005, "status 0xc0000005"),
    ],
)
def test_ways_to_end_have_names(status: int, name: str) -> None:
    """Of POSIX, and of Windows, whose exceptions are documented in hex."""
    assert status_name(status) == name
