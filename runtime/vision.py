"""The vision session: tiles of pixels to features, one tile at a time, on the best provider there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import Geometry
from .errors import BundleError, Cancelled, MissingExtraError, NativeError, OptionError
from .options import physical_cores

PIXELS = "pixels"
"""Name of the graph's only input, float32 (tiles, 3, S, S)."""

FEATURES = "features"
"""Name of the graph's only output, float32 (tiles, P*P, dim)."""

LOG_ERRORS_ONLY = 3
"""onnxruntime's severity scale: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal."""

CPU_FLAGS = Path("/proc/cpuinfo")
"""Where Linux lists what the processor can do."""

PREFERRED_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Tried in this order where the installed onnxruntime has them."""


class VisionEncoder:
    """Owns one onnxruntime session over a bundle's vision graph.

    ``dim`` is the width of the features and ``geometry`` gives tile and patch size; a graph that
    disagrees is refused. ``threads`` are onnxruntime's own, physical cores by default.
    ``providers`` are onnxruntime's names, by default CUDA where it is installed, else the CPU.

    Raises :class:`MissingExtraError` without onnxruntime, :class:`OptionError` for a provider it
    does not have, :class:`NativeError` for a file it can't load, :class:`BundleError` for a graph of
    other names or shapes.
    """

    def __init__(
        self,
        path: Path,
        *,
        dim: int,
        geometry: Geometry,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        self._session = open_session(path, threads=threads, providers=providers)
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
        cancelled: Callable[[], bool] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Encode normalised pixels (tiles, 3, S, S) to features (tiles, P*P, dim), both float32.

        Tiles run one by one: on a CPU that measures faster than a batch, and it is between tiles
        that ``cancelled`` is asked (raising :class:`Cancelled`) and ``on_progress`` told how many
        of how many are done. Raises :class:`OptionError` for pixels of another shape or type and
        :class:`NativeError` where onnxruntime fails.
        """
        session = self._open()
        self._check_pixels(pixels)
        features = np.empty((len(pixels), *self._feature_shape), np.float32)
        for index in range(len(pixels)):
            if cancelled is not None and cancelled():
                raise Cancelled(f"after {index} of {len(pixels)} tiles")
            features[index] = _run(session, pixels[index : index + 1])
            if on_progress is not None:
                on_progress(index + 1, len(pixels))
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
    onnxruntime = _import_onnxruntime()
    chosen = _choose_providers(onnxruntime.get_available_providers(), providers)
    options = _session_options(onnxruntime, threads)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except Exception as error:  # onnxruntime's own classes share no other base
        raise _native_error(f"a vision graph onnxruntime can load at {path}", error) from error


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


def _choose_providers(available: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Wanted providers, or the preferred ones, of those that this onnxruntime was built with."""
    if missing := [name for name in wanted or () if name not in available]:
        raise OptionError(
            expected=f"providers among {', '.join(available)}",
            got=", ".join(missing),
            fix='choose one of those, or install another onnxruntime ("llava-edge[cuda]")',
        )
    return list(wanted) if wanted else [name for name in PREFERRED_PROVIDERS if name in available]


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
