"""A bundle becomes an engine in this process: workers are called, what is left open is planned, all is loaded."""

from __future__ import annotations

from ..bundle.bundle import Bundle
from ..callbacks import Cancel, Share
from ..options import LoadOptions
from ..planning.auto_placement import auto_options
from ..processes.isolated_llm import worker_process
from .engine import Engine


def open_engine(
    bundle: Bundle, options: LoadOptions, *, on_load: Share | None = None, cancelled: Cancel | None = None
) -> Engine:
    """Load ``bundle``; the callbacks are those of :func:`load`, and so is what it raises."""
    with worker_process(options) as process:
        if process is not None or options.device == "auto":
            options = auto_options(bundle, options, worker_memory=process.worker_memory if process else ())
        return Engine(bundle, options, process, on_load=on_load, cancelled=cancelled)
