"""Vision tower and connector to one ONNX file, checked against torch before it is trusted."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.base import ExporterConfig
from optimum.utils import DummyVisionInputGenerator, NormalizedVisionConfig
from torch import nn

from ...runtime.distances import relative_error
from ...runtime.errors import CheckpointError
from ...runtime.pictures.geometry import Geometry
from ...runtime.pictures.tower import FEATURES, PIXELS, VisionEncoder
from ...runtime.pictures.towers import FeatureLayers, find_tower
from .graph import Attention, VisionGraph
from .onnx_file import write_model

OPSET = 20
"""First ONNX opset with Gelu, which the connector needs in one piece."""

TRACED_TILES = 2
"""torch.export takes a batch of one for a constant, so the tile axis is traced with two."""


class PixelGenerator(DummyVisionInputGenerator):  # type: ignore[misc]
    """optimum's vision input generator under our input's name, over CLIP's range of pixels."""

    SUPPORTED_INPUT_NAMES = (PIXELS,)

    def generate(self, input_name: str, **options: Any) -> torch.Tensor:
        """Random pixels (tiles, channels, S, S), the same at every call: uniform in [-2, 2)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pixels: torch.Tensor = super().generate(input_name, **options)
        return 4 * pixels - 2


class VisionExporterConfig(ExporterConfig):  # type: ignore[misc]
    """What optimum wants to know: names, axes, inputs to trace with, tolerance of the check."""

    NORMALIZED_CONFIG_CLASS = NormalizedVisionConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (PixelGenerator,)
    ATOL_FOR_VALIDATION = 1e-5  # relative (Frobenius); 23 layers of CLIP-L measure 1e-6

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Tiles are the only axis whose length is free."""
        return {PIXELS: {0: "tiles"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """One block of features for every tile."""
        return {FEATURES: {0: "tiles"}}


class HalfVisionExporterConfig(VisionExporterConfig):
    """The same with half-precision matrices: 11 bits of mantissa through every layer."""

    ATOL_FOR_VALIDATION = 2e-3


def export_vision(
    tower: nn.Module,
    connector: nn.Module,
    *,
    feature_layer: FeatureLayers,
    path: Path,
    precision: str,
    attention: Attention = "fused",
) -> float:
    """Write tower and connector as one ONNX file that maps pixels to features.

    ``tower`` is a transformers ``CLIPVisionModel`` or ``SiglipVisionModel`` and ``connector`` maps (..., Dv), or
    several times Dv, to (..., D), both with float32 weights. The graph takes ``pixels`` float32 (tiles, 3, S, S), any
    number of tiles, and gives ``features`` float32 (tiles, P*P, D): layers after ``hidden_states[feature_layer]``, or
    the last of several that stand side by side, the post layer norm and CLS are left out. ``attention`` "standard"
    writes ONNX operators only.

    Returns the relative error of the features against torch's. Raises :class:`CheckpointError` where
    it exceeds the tolerance (then no file is left), and MissingExtraError without onnxruntime.
    """
    described = (VisionExporterConfig if precision == "f32" else HalfVisionExporterConfig)(
        tower.config, "feature-extraction"
    )
    with _evaluating(tower, connector):
        graph = VisionGraph(tower, connector, feature_layer=feature_layer, attention=attention, precision=precision)
        _write(graph.eval(), described, path)
        del graph
        error = _validate(tower, connector, described, feature_layer=feature_layer, path=path)
    if not error <= described.ATOL_FOR_VALIDATION:
        path.unlink()
        raise CheckpointError(
            expected=f"features within {described.ATOL_FOR_VALIDATION:g} of torch's, relative",
            got=f"an error of {error:.2g}",
            fix="check the checkpoint for values that are not finite, or report this as a bug",
        )
    return error


def _write(graph: nn.Module, described: VisionExporterConfig, path: Path) -> None:
    """Trace ``graph`` with the inputs and axes that ``described`` gives, into one file at ``path``."""
    inputs = described.generate_dummy_inputs(batch_size=TRACED_TILES)
    axes = {
        name: {axis: torch.export.Dim(label) for axis, label in labels.items()}
        for name, labels in described.inputs.items()
    }
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            tuple(inputs[name] for name in described.inputs),
            dynamo=True,
            dynamic_shapes=tuple(axes.values()),
            input_names=list(described.inputs),
            output_names=list(described.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _forget_origin(program.model)
    write_model(program.model, path)


def _forget_origin(model: Any) -> None:
    """Drop the exporter's notes: stack traces name the files of the machine that exported."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for function in model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def _validate(
    tower: nn.Module, connector: nn.Module, described: VisionExporterConfig, *, feature_layer: FeatureLayers, path: Path
) -> float:
    """Relative error of the file's features for one tile, which is not the count it was traced with."""
    pixels = described.generate_dummy_inputs(batch_size=1)[PIXELS]
    with torch.no_grad():
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        listed = [feature_layer] if isinstance(feature_layer, int) else feature_layer
        hidden = torch.cat([states[layer] for layer in listed], dim=-1)
        config: Any = tower.config
        first = find_tower(config.model_type, "the tower").positions(0)
        expected = connector(hidden[:, first:]).numpy()  # (1, P*P, D)
    geometry = _tile_geometry(described)
    encoder = VisionEncoder(path, dim=expected.shape[-1], geometry=geometry)
    try:
        return relative_error(encoder.encode(pixels.numpy()), expected)
    finally:
        encoder.close()


def _tile_geometry(described: VisionExporterConfig) -> Geometry:
    """The part of the geometry that the tower's configuration knows: tile and patch size."""
    side, patch = described._config.image_size, described._config.patch_size
    return Geometry(side, patch, pinpoints=(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode, and back into the mode they were in."""
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's deprecation notes to itself, and its remarks on torchvision, out of our stderr."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
