"""Processes that do nothing but compute, to see what a contestant loses beside them: a desktop is never idle.

``python -m llava_edge.benchmark.speed.busy`` is one of them. It says a line when it begins, and ends when its
standard input does: with who started it, however that one ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...runtime.errors import NativeError, amount
from ...runtime.processes.leaving import end_with_parent

COMMAND = (sys.executable, "-m", "llava_edge.benchmark.speed.busy")


@dataclass
class Busy:
    """``cpu`` is the seconds of the cores that the busy processes used, once they have ended."""

    cpu: float = 0.0


def beside(count: int) -> str:
    """In words: "beside 1 busy process"."""
    return f"beside {amount(count, 'busy process', 'busy processes')}"


@contextmanager
def busy_processes(count: int) -> Iterator[Busy]:
    """Have ``count`` processes compute in the block, each as much as one core can, with our own niceness.

    Raises NativeError where one did not start, or ended before the block did.
    """
    busy = Busy()
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            # in a session of its own, as a desktop's other programs are: Linux shares the cores out among sessions
            started.append(
                subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            )
        for process in started:
            if process.stdout is None or not process.stdout.readline():
                raise _ended()
        yield busy
        if any(process.poll() is not None for process in started):
            raise _ended()
    finally:
        for process in started:
            busy.cpu += _end(process)


def _ended() -> NativeError:
    return NativeError(
        expected="busy processes beside the contest", got="one ended", fix="see what ends processes here"
    )


def _end(process: subprocess.Popen[bytes]) -> float:
    """Kill it; the seconds of CPU time that it used."""
    process.kill()
    used = 0.0
    if process.returncode is None:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        used = usage.ru_utime + usage.ru_stime
    process.communicate()
    return used


def _compute() -> None:
    end_with_parent()
    threading.Thread(target=_leave_with_input, daemon=True).start()
    print("busy", flush=True)
    while True:
        pass


def _leave_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _compute()
