"""What a child process serves in the tests of processes: answers, items, and every way to go wrong."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from llava_edge.runtime.errors import Cancelled, OptionError
from llava_edge.runtime.processes.child_side import Child, become_child


def main() -> None:
    child = become_child()
    child.serve(Played(child))


def main_without_posix() -> None:
    """As on Windows: no limits of resources, and the parent's number stays when the parent goes."""
    sys.modules["resource"] = None  # type: ignore[assignment]
    parent = os.getppid()
    os.getppid = lambda: parent
    main()


class Played:
    def __init__(self, child: Child) -> None:
        self._child = child
        self._sent = 0

    def echo(self, *values: Any, **keywords: Any) -> Any:
        return values, keywords

    def print(self, text: str) -> str:
        """As native code does it, past Python."""
        os.write(1, text.encode())
        return text

    def count(self, last: int, *, polite: bool = True) -> str:
        """Send numbers; polite ones stop where nobody wants more."""
        self._sent = 0
        while self._sent < last:
            if polite and self._child.cancelled():
                raise Cancelled
            self._child.send(self._sent)
            self._sent += 1
        return "all"

    def sent(self) -> int:
        return self._sent

    def wait_for_cancel(self) -> None:
        self._child.send("waiting")
        while not self._child.cancelled():
            time.sleep(0.01)
        raise Cancelled

    def compute(self, seconds: int) -> None:
        """Native code, which never looks around."""
        self._child.send("computing")
        ctypes.CDLL(None).sleep(seconds)

    def refuse(self) -> None:
        raise OptionError(expected="a", got="b", fix="c")

    def fail(self) -> None:
        raise ZeroDivisionError("ours")

    def handle(self) -> Any:
        """Nothing that could be sent."""
        return lambda: None

    def abort(self, last_words: str) -> None:
        print(f"first\n{last_words}\n", file=sys.stderr, flush=True)
        os.abort()

    def grandchild(self) -> int:
        """Start a process that inherits whatever may be inherited, and outlives this one."""
        return subprocess.Popen(["sleep", "30"], close_fds=False).pid

    def facts(self) -> dict[str, Any]:
        return {
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "backtrace": os.environ.get("GGML_NO_BACKTRACE"),
            "folder": os.getcwd(),
            "files": [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()],
        }

    def close(self) -> None:
        print("closed", file=sys.stderr)
