"""``pip install`` with the compiling of llama.cpp on the screen: what goes on, how far it is, how long it will take.

pip says nothing while it compiles, or a megabyte of compiler's command lines. ``make`` runs this file by its path
before anything is installed: ``python -P runtime/ggml/installing.py ARGUMENTS-OF-PIP-INSTALL`` (without ``-P`` this
folder's ``types.py`` would hide Python's).

May import: nothing of ours, and nothing that has to be installed.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

CORE_MINUTES = 5.0
"""What compiling takes of one core, about (docs/install.md has the measurement)."""
SECONDS = 30.0
"""From one line about the compiling to the next."""
STEP = re.compile(r"\s*\[\s*(\d+)(?:/(\d+)|%)\]")
"""How Ninja (``[12/190]``) and make (``[ 12%]``) begin the line of a step."""
BEGUN = re.compile(r"\s*Building wheel for llama[-_]cpp[-_]python\b")
ENDED = re.compile(r"\s*(Created|Stored) wheel for llama[-_]cpp[-_]python\b|\s*Building wheel for llama.*finished")
SHOWN = re.compile(r"(Collecting |\s*Downloading \S+ \(|Installing |Successfully |\s*error: |ERROR: |WARNING: )")
"""Of pip's many lines, those that it shows without ``-v`` and that a person can use."""
KEPT = 60
"""Last lines that are shown where pip fails."""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def minutes(seconds: float) -> str:
    """``2:05`` for 125 seconds."""
    return "{}:{:02}".format(*divmod(max(0, round(seconds)), 60))


class Watched:
    """What pip has said so far. ``line`` takes a line of pip's, and returns what of it is shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = 0.0
        self._share = 0.0
        self.last: collections.deque[str] = collections.deque(maxlen=KEPT)

    def line(self, said: str) -> str:
        """What to show for a line of pip's; empty for nothing."""
        self.last.append(said)
        if self._begun:
            if step := STEP.match(said):
                done, of = int(step[1]), int(step[2] or 100)
                self._share = max(self._share, min(done / max(of, 1), 1.0))
            elif ENDED.match(said):
                took, self._begun = self._clock() - self._begun, 0.0
                return f"llama.cpp: compiled in {minutes(took)} minutes"
            return ""
        if BEGUN.match(said):
            self._begun = self._clock()
            about = max(1, round(CORE_MINUTES / cores()))
            return (
                f"llama.cpp: compiling it for this processor, once; about {about} "
                f"minute{'s' * (about > 1)} on {cores()} core{'s' * (cores() > 1)}"
            )
        return said if SHOWN.match(said) else ""

    def progress(self) -> str:
        """How far the compiling is; empty while there is none."""
        if not self._begun:
            return ""
        gone = self._clock() - self._begun
        if self._share < 0.05:
            return f"llama.cpp: {minutes(gone)} minutes gone"
        left = gone / self._share - gone
        return f"llama.cpp: {self._share:.0%} in {minutes(gone)} minutes, about {minutes(left)} to go"


def install(command: list[str], show: Callable[[str], None], every: float = SECONDS) -> int:
    """Run ``command``, a ``pip install -v``, and return its exit status; its last lines are shown where it fails."""
    watched = Watched()
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(cores()), **os.environ}  # make takes one core if nobody says more
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:

        def read() -> None:
            for said in process.stdout or ():
                if shown := watched.line(said.rstrip()):
                    show(shown)

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive():
            reader.join(every)
            if reader.is_alive() and (shown := watched.progress()):
                show(shown)
        status = process.wait()
    if status:
        show("\n".join(["pip failed; its last lines:", *watched.last]))
    return status


def main() -> None:
    command = [sys.executable, "-m", "pip", "install", "-v", *sys.argv[1:]]
    try:
        sys.exit(install(command, lambda shown: print(shown, flush=True)))
    except KeyboardInterrupt:  # pip has had it too
        sys.exit(130)


if __name__ == "__main__":
    main()
