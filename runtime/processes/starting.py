"""A child process is started: by an interpreter of its own, or by the frozen application itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

from ..errors import NativeError
from ..system.native_thread import NativeThread

CHILD_WORD = "--llava-edge-child"
"""First word of a frozen application's command line where it is to be a child process."""
_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import {name}; {name}()"
_frozen_ones_answer = False
_starters: dict[int, NativeThread] = {}


def let_frozen_start() -> None:
    """Note that this frozen application knows what to do when it is started as a child process."""
    global _frozen_ones_answer
    _frozen_ones_answer = True


def can_start() -> bool:
    """Whether child processes can be started: a frozen application would run once more where it does not look."""
    return _frozen_ones_answer or not getattr(sys, "frozen", False)


def open_said() -> IO[bytes]:
    """A file without a name for what a child writes on its standard error. Raises NativeError."""
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise NativeError(
            expected="a folder for temporary files that can be written, for a process of its own",
            got=error.strerror or "an error",
            fix="set TMPDIR to one that has room",
        ) from None


def start_child(main: Callable[[], None], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start ``main``, a function at the top level of a module, with its standard error in ``said``.

    It imports from where we do, whatever the current folder, and inherits nothing but pipes. Raises NativeError in a
    frozen application that never called ``freeze_support``.
    """
    command = _command(main)
    started: list[subprocess.Popen[bytes]] = []
    try:
        # Linux ends a child with the thread that started it, so that is one which lives as long as we do
        _starter().run(lambda: started.append(_open(command, said)))
    except BaseException:
        for process in started:  # interrupted: nobody will have it
            process.kill()
            process.communicate()
        raise
    return started[0]


def _starter() -> NativeThread:
    """The thread that starts processes; a process that was forked from us has no threads of ours."""
    return _starters.setdefault(os.getpid(), NativeThread("starter"))


def _command(main: Callable[[], None]) -> list[str]:
    if getattr(sys, "frozen", False):
        if not can_start():
            raise NativeError(
                expected="freeze_support() of llava_edge.runtime called first by a frozen application",
                got="no such call, without which it would be started a second time",
                fix="call it before anything else where the application begins",
            )
        return [sys.executable, CHILD_WORD, f"{main.__module__}:{main.__name__}"]
    # what is no folder stays as it is: an editable install puts a name there that its own hook understands
    path = [os.path.abspath(entry) if os.path.exists(entry or ".") else entry for entry in sys.path]
    return [sys.executable, "-c", _PROGRAM.format(path=path, module=main.__module__, name=main.__name__)]


def _open(command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    if hasattr(signal, "pthread_sigmask"):  # inherited: the child never hears Ctrl-C, not even before it can say so
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # its abort would start a debugger to print one
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # Windows: Ctrl-C is not for it
    )
