"""The program behind a pseudo-terminal, as a person has it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import termios
import time
from pathlib import Path

START = "import sys; from llava_edge.cli.main import main; sys.argv[0] = 'llava-edge'; main()"
WITHOUT_READLINE = "import sys; sys.modules['readline'] = None; "
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A started program: what it shows is waited for, what a person does is typed. Leave it by ``finish``."""

    def __init__(self, *arguments: str, folder: Path, before: str = "", **environment: str) -> None:
        """``before`` is Python to run first. Caches, history and home are in ``folder``, where it starts."""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # pragma: no cover - this is the child
            os.chdir(folder)
            os.environ |= {"HOME": str(folder), "LLAVA_EDGE_CACHE": str(folder / "cache"), "TERM": "xterm"}
            os.environ |= environment
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background has it ignored
            os.execv(sys.executable, [sys.executable, "-c", before + START, *arguments])
        self.seen = ""
        self.all = ""

    def wait_for(self, text: str, seconds: float = 30) -> str:
        """Read until ``text`` has appeared behind what was waited for before; return what came in front of it.

        Escape sequences and carriage returns are not part of what is compared.
        """
        end = time.monotonic() + seconds
        while text not in plain(self.seen):
            assert self._more(end - time.monotonic()), f"no {text!r} in {self.seen!r}"
        before, self.seen = plain(self.seen).split(text, 1)
        return before

    def wait_for_prompt(self) -> str:
        """Read until the program waits for a line."""
        return self.wait_for("> ")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def ask(self, text: str) -> str:
        """Type a line and return what is shown until the next prompt."""
        self.type(text + "\r")
        self.wait_for("\n")
        return self.wait_for_prompt()

    def modes(self) -> int:
        """The terminal's local modes: ECHO and ICANON, where a person sees what he types."""
        modes: int = termios.tcgetattr(self.fd)[3]
        return modes

    def finish(self, seconds: float = 30) -> int:
        """Read to the end and return the exit status; kill what does not end."""
        end = time.monotonic() + seconds
        while self._more(end - time.monotonic()):
            pass
        return self.status(end - time.monotonic())

    def hang_up(self, seconds: float = 30) -> int:
        """Close the terminal under the program, and return the exit status."""
        os.close(self.fd)
        return self.status(seconds)

    def status(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)

    def _more(self, seconds: float) -> bool:
        if not select.select([self.fd], [], [], max(0.0, seconds))[0]:
            return False
        try:
            got = os.read(self.fd, 65536).decode("utf-8", "replace")
        except OSError:  # what Linux says at the end of a terminal
            return False
        self.seen += got
        self.all += got
        return bool(got)


def plain(text: str) -> str:
    """What a person reads of it."""
    return ESCAPES.sub("", text).replace("\r", "")
