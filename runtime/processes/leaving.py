"""A child process never outlives who started it: what each system offers beside the end of its standard input.

The leash is the child's standard input, which ends with the parent on every system and is read by a thread that does
nothing else. This closes its gaps: another process may hold the pipe open, or the thread may not come to run.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_KILL_ON_JOB_CLOSE, _EXTENDED_LIMITS = (
    0x2000,
    9,
)
_OOM_SCORE = 500
"""Of 1000: the model is what the memory is for, and the application can start it again."""


def end_with_parent() -> None:
    """In the child: let the kernel end this process with the thread that started it. Linux has that alone."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def be_killed_first() -> None:
    """In the child: where memory runs out, Linux ends this process, and not the application."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            path = Path("/proc/self/oom_score_adj")
            path.write_text(str(max(int(path.read_text(encoding="ascii")), _OOM_SCORE)), encoding="ascii")


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("per_process_time", ctypes.c_int64),
        ("per_job_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("least_working_set", ctypes.c_size_t),
        ("largest_working_set", ctypes.c_size_t),
        ("processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority", ctypes.c_uint32),
        ("scheduling", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("basic", _BasicLimits),
        ("counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


def end_child_with_us(process: subprocess.Popen[bytes]) -> Any:
    """In the parent: what has to be kept so that Windows ends ``process`` when this one ends. None elsewhere."""
    if sys.platform != "win32":
        return None
    return _job_of(process, ctypes.WinDLL("kernel32", use_last_error=True))  # type: ignore[attr-defined,unused-ignore]


def _job_of(process: Any, kernel: Any) -> Job | None:
    """A job object that holds ``process``: its last handle closes with us, and ends what is in it."""
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    if not (handle := kernel.CreateJobObjectW(None, None)):
        return None
    limits = _ExtendedLimits()
    limits.basic.flags = _KILL_ON_JOB_CLOSE
    job = ctypes.c_void_p(handle)
    kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
    kernel.AssignProcessToJobObject(job, ctypes.c_void_p(int(process._handle)))
    return Job(handle, kernel)


class Job:
    """A handle of Windows, closed when it is forgotten."""

    def __init__(self, handle: int, kernel: Any) -> None:
        self._handle, self._kernel = handle, kernel

    def __del__(self) -> None:
        self._kernel.CloseHandle(ctypes.c_void_p(self._handle))
