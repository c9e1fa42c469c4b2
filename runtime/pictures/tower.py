"""The vision session: tiles of pixels to features, on the best provider there is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, Cancelled, MissingExtraError, NativeError, OptionError
from ..onnx_runtime.compiled import find_compiled, this_machine
from ..onnx_runtime.providers import (
    CUDA,
    DIRECTML,
    OPENVINO,
    TENSORRT,
    Attempt,
    ProviderChoice,
    order_attempts,
    short_name,
    start_first,
)
from ..options import physical_cores
from .geometry import Geometry

PIXELS = "pixels"
"""Name of the graph's only input, float32 (tiles, 3, S, S)."""

FEATURES = "features"
"""Name of the graph's only output, float32 (tiles, P*P, dim)."""

LOG_ERRORS_ONLY = 3
LOG_FATAL_ONLY = 4
LOG_WARNINGS = 2
"""onnxruntime's severity scale: 0 verbose, 1 info, 2 warning (what it begins with), 3 error, 4 fatal."""

CPU_FLAGS = Path("/proc/cpuinfo")
"""Where Linux lists what the processor can do."""

LARGEST_BATCH = 5
"""Tiles a GPU gets at once, and a TensorRT engine is compiled for: an overview and four grid tiles."""


class VisionEncoder:
    """Owns one onnxruntime session over a bundle's vision graph.

    ``dim`` is the width of the features and ``geometry`` gives tile and patch size; a graph that
    disagrees is refused. ``threads`` are onnxruntime's own, physical cores by default.
    ``providers`` are names as in :func:`order_attempts`, by default the best there are.
    ``fingerprint`` is the file's SHA-256: with it a graph that was compiled for this machine is
    looked for. ``choice`` says which provider it became, and why.

    Raises :class:`MissingExtraError` without onnxruntime, :class:`OptionError` for a provider it
    does not have, :class:`NativeError` for a file it can't load, :class:`BundleError` for a graph of
    other names or shapes.
    """

    choice: ProviderChoice

    def __init__(
        self,
        path: Path,
        *,
        dim: int,
        geometry: Geometry,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        fingerprint: str = "",
    ) -> None:
        attempts = _attempts(_import_onnxruntime(), providers or (), fingerprint)
        self._session, self.choice = start_first(attempts, lambda one: _create(path, one, threads))
        side = geometry.image_size
        self._tile_shape = (3, side, side)
        self._feature_shape = (geometry.features_per_tile, dim)
        _check(self._session.get_inputs(), PIXELS, self._tile_shape, path)
        _check(self._session.get_outputs(), FEATURES, self._feature_shape, path)

    @property
    def provider(self) -> str:
        """onnxruntime's name of the provider that runs the graph, as "CPUExecutionProvider"."""
        return str(self._open().get_providers()[0])

    def encode(
        self,
        pixels: npt.NDArray[np.float32],
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_features: Callable[[npt.NDArray[np.float32], int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Encode normalised pixels (tiles, 3, S, S) to features (tiles, P*P, dim), both float32.

        On a CPU tiles run one by one, which measures faster than a batch. Elsewhere it is the
        overview, so that the language model can begin with it, and then the others, up to
        :data:`LARGEST_BATCH` at once. In between ``cancelled`` is asked (raising
        :class:`Cancelled`), ``on_progress`` told how many of how many are done, and ``on_features``
        given the result so far and how many of its tiles hold. Raises :class:`OptionError` for
        pixels of another shape or type and :class:`NativeError` where onnxruntime fails.
        """
        session = self._open()
        self._check_pixels(pixels)
        features = np.empty((len(pixels), *self._feature_shape), np.float32)
        begin = 0
        while begin < len(pixels):
            if cancelled is not None and cancelled():
                raise Cancelled(f"after {begin} of {len(pixels)} tiles")
            end = min(begin + (1 if self.choice.on_cpu or not begin else LARGEST_BATCH), len(pixels))
            features[begin:end] = _run(session, pixels[begin:end])
            begin = end
            if on_progress is not None:
                on_progress(end, len(pixels))
            if on_features is not None:
                on_features(features, end)
        return features

    def close(self) -> None:
        """Free the session and its memory; closing twice is harmless."""
        self._session = None

    def _open(self) -> Any:
        if self._session is None:
            raise NativeError(expected="an open vision session", got="a closed one", fix="load it again")
        return self._session

    def _check_pixels(self, pixels: npt.NDArray[np.float32]) -> None:
        if pixels.dtype != np.float32 or pixels.shape[1:] != self._tile_shape:
            raise OptionError(
                expected=f"float32 pixels of shape (tiles, {', '.join(map(str, self._tile_shape))})",
                got=f"{pixels.dtype} {pixels.shape}",
                fix="cut and normalise tiles with the bundle's own geometry",
            )


def open_session(path: Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> Any:
    """Open an ``onnxruntime.InferenceSession`` on an ONNX file, with this package's settings.

    Arguments and errors as for :class:`VisionEncoder`, which adds the check of names and shapes.
    """
    attempts = _attempts(_import_onnxruntime(), providers or (), "")
    return start_first(attempts, lambda one: _create(path, one, threads))[0]


def _attempts(onnxruntime: Any, wanted: Sequence[str], fingerprint: str) -> list[Attempt]:
    """The providers to try, with what was compiled for them."""
    available = onnxruntime.get_available_providers()
    compiled: Mapping[str, Path | str] = {}
    if fingerprint and {TENSORRT, CUDA} & set(available):
        machine = this_machine(onnxruntime)
        compiled = {one: find_compiled(short_name(one), fingerprint, machine) for one in (TENSORRT, CUDA)}
    return order_attempts(available, wanted, compiled=compiled)


def _create(path: Path, attempt: Attempt, threads: int | None) -> Any:
    """One provider's session; :class:`NativeError` where onnxruntime would go on without it."""
    onnxruntime = _import_onnxruntime()
    load_libraries(onnxruntime, attempt.provider)
    if attempt.provider == TENSORRT and attempt.graph is None:
        raise NativeError(
            expected="a TensorRT engine for this GPU", got="none in the cache", fix="run: llava-edge optimize BUNDLE"
        )
    options = _session_options(onnxruntime, threads)
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
        raise _native_error(f"a vision graph onnxruntime can load at {path}", error) from error
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


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            expected="onnxruntime",
            got="no such package",
            fix='run: pip install "llava-edge[cpu]" (or "llava-edge[cuda]" for an NVIDIA device)',
        ) from error
    return onnxruntime


def _session_options(onnxruntime: Any, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_ERRORS_ONLY
    if _saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _saturates() -> bool:
    """Whether uint8 x int8 products can overflow here: x86 without VNNI, where Linux tells.

    onnxruntime has an exact spelling for such processors. It must not be asked for elsewhere: on one
    with AMX it measures 3.5 times as slow, because it turns the int8 weights into uint8.
    """
    try:
        flags = {
            flag for line in CPU_FLAGS.read_text().splitlines() if line.startswith("flags") for flag in line.split()
        }
    except OSError:
        return False
    return "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni"}


def _check(described: Sequence[Any], name: str, shape: tuple[int, ...], path: Path) -> None:
    """Refuse a graph whose only input or output is not float32 ``name`` (tiles, *shape)."""
    found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in described)
    one = described[0]
    fixed = tuple(one.shape[1:])
    if len(described) != 1 or (one.name, one.type, fixed) != (name, "tensor(float)", shape):
        raise BundleError(
            expected=f"{name} tensor(float) (tiles, {', '.join(map(str, shape))}) in {path}",
            got=found,
            fix="export the bundle again",
        )


def _run(session: Any, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    try:
        features: npt.NDArray[np.float32] = session.run([FEATURES], {PIXELS: pixels})[0]
    except Exception as error:
        raise _native_error("onnxruntime to encode a tile", error) from error
    return features


def _native_error(expected: str, error: Exception) -> NativeError:
    """One line of onnxruntime's message, which may have several."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return NativeError(expected=expected, got=lines[0][:200], fix="verify the bundle, or export it again")
