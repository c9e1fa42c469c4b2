"""The process of an isolated engine, and how often it may be started again."""

from __future__ import annotations

import math
import time
from collections import deque

from ..errors import EngineCrashed, LlavaEdgeError
from ..processes.parent_side import ChildProcess
from ..processes.starting import open_said

RESTARTS, WITHIN_SECONDS = 3, 60.0
"""What keeps ending is started again so often in so many seconds, and then only after a pause."""
PATIENCE = {"answers": 5.0, "save": 2.0}
"""How long what is quickly done may take to end once it was asked to: saving was given its time before."""


def check_folder() -> None:
    """Raises NativeError where no process could be started, because it has nowhere to write its errors."""
    open_said().close()


class EngineProcess(ChildProcess):
    """A process for a whole engine. Its end by itself is :class:`EngineCrashed`."""

    holds = "the engine"

    def why_gone(self, reason: str) -> LlavaEdgeError:
        """The error for a process that has ended for ``reason``."""
        return EngineCrashed(
            expected="the engine to go on", got=reason, fix="ask again: the next request starts it anew"
        )

    def patience(self, method: str) -> float:
        """As :class:`ChildProcess`; less for some."""
        return PATIENCE.get(method, super().patience(method))


class Crashes:
    """When processes ended by themselves, lately."""

    def __init__(self) -> None:
        self.count = 0
        """All that were followed by another one."""
        self._latest: deque[float] = deque(maxlen=RESTARTS)

    def note(self, ending: str) -> None:
        """Note one, which was ``ending``. Raises :class:`EngineCrashed` where too many came before."""
        now = time.monotonic()
        if len(self._latest) == RESTARTS and now - self._latest[0] < WITHIN_SECONDS:
            left = max(1, math.ceil(WITHIN_SECONDS - (now - self._latest[0])))
            raise EngineCrashed(
                expected="an engine that goes on once it is started",
                got=f"the {RESTARTS + 1}th end within {WITHIN_SECONDS:g} s ({ending})",
                fix=f"ask again in {left} s, or load with less: a smaller context, fewer layers on the GPU",
                retry_after=left,
            )
        self._latest.append(now)
        self.count += 1
