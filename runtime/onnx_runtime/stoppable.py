"""An onnxruntime session that can be stopped, and closed, while it computes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..callbacks import Cancel
from ..errors import Cancelled
from ..system.lifetime import Lifetime
from ..system.native_thread import NativeThread
from .importing import import_onnxruntime


class StoppableSession:
    """Owns ``session``. Runs of several threads take turns; onnxruntime ends one within a node of its graph."""

    def __init__(self, session: Any) -> None:
        self._sessions = [session]
        self._running: list[Any] = []
        self._life = Lifetime("model", self._sessions.clear, partial(_stop_all, self._running))
        self._thread = NativeThread("onnxruntime")
        weakref.finalize(self, _end, self._life, self._thread)

    def get_providers(self) -> list[str]:
        """onnxruntime's names, the one that computes first."""
        with self._life:
            return list(self._sessions[0].get_providers())

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Their options, by name."""
        with self._life:
            return dict(self._sessions[0].get_provider_options())

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any], cancelled: Cancel | None = None) -> list[Any]:
        """As ``InferenceSession.run``; ``cancelled`` is asked meanwhile.

        Raises Cancelled, NativeError where it was closed, and what onnxruntime does.
        """
        self._life.check()
        options = import_onnxruntime().RunOptions()
        stopped: list[bool] = []

        def compute() -> list[Any]:
            with self._life:
                return list(self._sessions[0].run(outputs, inputs, options))

        def stop() -> None:
            stopped.append(True)
            options.terminate = True

        self._running.append(options)
        try:
            return self._thread.run_until(stop, cancelled, compute)
        except Exception:
            self._life.check()  # closed meanwhile
            if stopped:
                raise Cancelled from None
            raise
        finally:
            self._running.remove(options)

    def close(self) -> None:
        """Stop what runs and free the session. Safe to call twice, and from any thread."""
        _end(self._life, self._thread)


class Asked:
    """A session as one caller uses it, who may cancel: with onnxruntime's own ``run``."""

    def __init__(self, session: StoppableSession, cancelled: Cancel | None) -> None:
        self._session, self._cancelled = session, cancelled

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """As :meth:`StoppableSession.run`."""
        return self._session.run(outputs, inputs, self._cancelled)


def _stop_all(running: Sequence[Any]) -> None:
    for options in list(running):
        options.terminate = True


def _end(life: Lifetime, thread: NativeThread) -> None:
    life.close()
    thread.close()
