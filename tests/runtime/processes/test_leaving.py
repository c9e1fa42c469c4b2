"""What each system offers so that a child never outlives its parent: Linux for real, Windows played."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from typing import Any

import pytest
from llava_edge.runtime.processes import leaving
from llava_edge.runtime.processes.parent_side import ChildProcess
from support.played_child import main


class Kernel:
    """kernel32 as far as job objects go: what was called, with the flags that were set."""

    def __init__(self, handle: int) -> None:
        self.calls: list[Any] = []

        def create(*_: object) -> int:
            self.calls.append("create")
            return handle

        self.CreateJobObjectW = create

    def SetInformationJobObject(self, job: Any, kind: int, limits: Any, size: int) -> int:
        basic = ctypes.cast(limits, ctypes.POINTER(leaving._ExtendedLimits)).contents.basic
        self.calls.append(("limit", job.value, kind, basic.flags, size))
        return 1

    def AssignProcessToJobObject(self, job: Any, process: Any) -> int:
        self.calls.append(("assign", job.value, process.value))
        return 1

    def CloseHandle(self, handle: Any) -> int:
        self.calls.append(("close", handle.value))
        return 1


class Started:
    _handle = 77


def test_windows_ends_it_with_the_last_handle_of_its_job() -> None:
    """Numbers and sizes of winnt.h: JobObjectExtendedLimitInformation is 9, KILL_ON_JOB_CLOSE 0x2000."""
    kernel = Kernel(5)
    job = leaving._job_of(Started(), kernel)
    size = 144 if ctypes.sizeof(ctypes.c_void_p) == 8 else 112
    assert kernel.calls == ["create", ("limit", 5, 9, 0x2000, size), ("assign", 5, 77)]
    del job
    assert kernel.calls[-1] == ("close", 5)


def test_windows_without_jobs_goes_on() -> None:
    kernel = Kernel(0)
    assert leaving._job_of(Started(), kernel) is None
    assert kernel.calls == ["create"]


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_not_asked_for_linux_own(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("called"))
    monkeypatch.setattr(leaving, "Path", lambda _: pytest.fail("opened"))
    leaving.end_with_parent()
    leaving.be_killed_first()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")
def test_a_child_outlives_the_thread_that_started_it() -> None:
    started: list[ChildProcess] = []

    def start() -> None:
        started.append(ChildProcess(main))
        started[0].request("echo")  # it runs, and has asked to be ended with who started it

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (child,) = started
    try:
        time.sleep(0.1)
        assert child.request("echo", 1) == ((1,), {})
        assert child.status is None
    finally:
        child.close()


def test_lanes_run_beside_each_other() -> None:
    """Each with its own wish to end, items and result; one that computes does not hold up the others."""
    child = ChildProcess(main)
    try:
        waiting = child.stream_until(None, "wait_for_cancel", lane=0)
        assert next(waiting) == "waiting"
        assert child.ask(None, "echo", 2, lane=1) == ((2,), {})
        counted = child.stream_until(None, "count", 3, lane=2)
        assert list(counted) == [0, 1, 2]
        child.cancel(1)
        assert child.ask(None, "echo", 3, lane=1) == ((3,), {})
        waiting.close()
        assert child.request("echo", 4) == ((4,), {})
    finally:
        child.close()
    assert child.status == 0
