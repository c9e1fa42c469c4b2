"""Sessions of ONNX Runtime on the best provider there is, with this package's settings."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from ..errors import NativeError, first_line
from ..system.machine import int8_sums_overflow, physical_cores
from .compiled import find_compiled, this_machine
from .importing import import_onnxruntime
from .providers import CUDA, DIRECTML, OPENVINO, TENSORRT, Attempt, order_attempts, short_name, start_first

LOG_ERRORS_ONLY = 3
LOG_FATAL_ONLY = 4
LOG_WARNINGS = 2
"""onnxruntime's severity scale: 0 verbose, 1 info, 2 warning (what it begins with), 3 error, 4 fatal."""


def open_session(path: Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> Any:
    """Open an ``onnxruntime.InferenceSession`` on an ONNX file, with this package's settings.

    Arguments and errors as for :class:`VisionEncoder`, which adds the check of names and shapes.
    """
    attempts = find_attempts(import_onnxruntime(), providers or (), "")
    return start_first(attempts, lambda one: create_session(path, one, threads))[0]


def find_attempts(onnxruntime: Any, wanted: Sequence[str], fingerprint: str) -> list[Attempt]:
    """The providers to try, with what was compiled for them."""
    available = onnxruntime.get_available_providers()
    compiled: Mapping[str, Path | str] = {}
    if fingerprint and {TENSORRT, CUDA} & set(available):
        machine = this_machine(onnxruntime)
        compiled = {one: find_compiled(short_name(one), fingerprint, machine) for one in (TENSORRT, CUDA)}
    return order_attempts(available, wanted, compiled=compiled)


def create_session(path: Path, attempt: Attempt, threads: int | None) -> Any:
    """One provider's session; :class:`NativeError` where onnxruntime would go on without it."""
    onnxruntime = import_onnxruntime()
    load_libraries(onnxruntime, attempt.provider)
    if attempt.provider == TENSORRT and attempt.graph is None:
        raise NativeError(
            expected="a TensorRT engine for this GPU", got="none in the cache", fix="run: llava-edge optimize BUNDLE"
        )
    options = session_options(onnxruntime, threads)
    if attempt.provider == DIRECTML:
        options.enable_mem_pattern = False  # DirectML refuses it
    providers = [(attempt.provider, dict(attempt.options))]
    if attempt.provider == OPENVINO:
        providers[0][1]["num_of_threads"] = str(threads or physical_cores())
    if attempt.provider == TENSORRT:
        providers.append((CUDA, dict(attempt.options)))
    onnxruntime.set_default_logger_severity(LOG_FATAL_ONLY)  # it would say in six lines what we say in one
    try:
        session = onnxruntime.InferenceSession(
            str(attempt.graph or path), options, providers=providers, enable_fallback=False
        )
    except Exception as error:  # onnxruntime's own classes share no other base
        raise onnxruntime_error(f"a vision graph onnxruntime can load at {path}", error) from error
    finally:
        onnxruntime.set_default_logger_severity(LOG_WARNINGS)
    if session.get_providers()[0] != attempt.provider:
        raise NativeError(
            expected=f"{attempt.name} to start",
            got="its libraries or its device are missing",
            fix="install what onnxruntime's page on it asks for, or name another provider",
        )
    return session


def load_libraries(onnxruntime: Any, provider: str) -> None:
    """Load CUDA, cuDNN and TensorRT where pip put them: onnxruntime alone looks in the system only."""
    if provider == TENSORRT:
        with suppress(ImportError):
            importlib.import_module("tensorrt")
    if provider in (TENSORRT, CUDA) and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls(directory="")


def session_options(onnxruntime: Any, threads: int | None) -> Any:
    """A CPU session's options: ``threads``, by default one a physical core, and exact int8 sums."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    # a thread that spins for the others keeps them from a core where other programs compute too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if int8_sums_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def onnxruntime_error(expected: str, error: Exception) -> NativeError:
    """One line of onnxruntime's message, which may have several."""
    return NativeError(expected=expected, got=first_line(error), fix="verify the bundle, or export it again")
