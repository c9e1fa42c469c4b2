"""ONNX Runtime as everything of ours imports it: with its telemetry off."""

from __future__ import annotations

import os
from typing import Any

from ..errors import needing_extra

TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Read once, by the library's first session (its Privacy page). Who set it to something else is left alone."""


def import_onnxruntime() -> Any:
    """Import ``onnxruntime`` and switch off what it would report. Raises :class:`MissingExtraError`.

    Its wheels keep a database of events in the user's cache and look their collector up at every session.
    """
    os.environ.setdefault(TELEMETRY, "1")
    with needing_extra("cpu", "cuda"):
        import onnxruntime
    if os.environ[TELEMETRY] == "1" and hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    return onnxruntime
