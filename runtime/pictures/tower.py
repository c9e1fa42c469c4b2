"""The vision session: tiles of pixels to features, on the best provider there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..callbacks import Cancel, Progress
from ..errors import BundleError, Cancelled, LlavaEdgeError, OptionError
from ..onnx_runtime.importing import import_onnxruntime
from ..onnx_runtime.providers import ProviderChoice, start_first
from ..onnx_runtime.session import create_session, find_attempts, onnxruntime_error
from ..onnx_runtime.stoppable import Asked, StoppableSession
from .geometry import Geometry

PIXELS = "pixels"
"""Name of the graph's only input, float32 (tiles, 3, S, S)."""

FEATURES = "features"
"""Name of the graph's only output, float32 (tiles, P*P, dim)."""


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
        attempts = find_attempts(import_onnxruntime(), providers or (), fingerprint)
        session, self.choice = start_first(attempts, lambda one: create_session(path, one, threads))
        side = geometry.image_size
        self._tile_shape = (3, side, side)
        self._feature_shape = (geometry.features_per_tile, dim)
        _check(session.get_inputs(), PIXELS, self._tile_shape, path)
        _check(session.get_outputs(), FEATURES, self._feature_shape, path)
        self._session = StoppableSession(session)

    @property
    def provider(self) -> str:
        """onnxruntime's name of the provider that runs the graph, as "CPUExecutionProvider"."""
        return str(self._session.get_providers()[0])

    @property
    def providers(self) -> list[str]:
        """All providers of the session, by onnxruntime's names and options: nodes go to the first that has them."""
        options = self._session.get_provider_options()
        return [f"{name} {sorted(options.get(name, {}).items())}" for name in self._session.get_providers()]

    def encode(
        self,
        pixels: npt.NDArray[np.float32],
        *,
        on_progress: Progress | None = None,
        on_features: Callable[[npt.NDArray[np.float32], int], None] | None = None,
        cancelled: Cancel | None = None,
    ) -> npt.NDArray[np.float32]:
        """Encode normalised pixels (tiles, 3, S, S) to features (tiles, P*P, dim), both float32.

        On a CPU tiles run one by one, which measures faster than a batch. Elsewhere it is the
        overview, so that the language model can begin with it, and then the others, up to
        :data:`LARGEST_BATCH` at once. Meanwhile ``cancelled`` is asked (raising
        :class:`Cancelled`), in between ``on_progress`` told how many of how many are done, and ``on_features``
        given the result so far and how many of its tiles hold. Raises :class:`OptionError` for
        pixels of another shape or type and :class:`NativeError` where onnxruntime fails.
        """
        session = Asked(self._session, cancelled)
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
        """Stop what is computed and free the session; closing twice is harmless."""
        self._session.close()

    def _check_pixels(self, pixels: npt.NDArray[np.float32]) -> None:
        if pixels.dtype != np.float32 or pixels.shape[1:] != self._tile_shape:
            raise OptionError(
                expected=f"float32 pixels of shape (tiles, {', '.join(map(str, self._tile_shape))})",
                got=f"{pixels.dtype} {pixels.shape}",
                fix="cut and normalise tiles with the bundle's own geometry",
            )


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
    except (Cancelled, LlavaEdgeError):
        raise
    except Exception as error:
        raise onnxruntime_error("onnxruntime to encode a tile", error) from error
    return features
