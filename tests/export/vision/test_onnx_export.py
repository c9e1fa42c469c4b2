"""Vision export: the ONNX file gives torch's features, whatever the shape, layer and tile count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from llava_edge.export.vision import onnx_export as vision
from llava_edge.export.vision.onnx_export import VisionExporterConfig, export_vision
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.pictures.tower import VisionEncoder
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

pytestmark = pytest.mark.slow

F32_TOLERANCE = 1e-5
"""Rung 2 of the fidelity ladder: relative, Frobenius. Measured here: under 1e-6."""

F16_TOLERANCE = 2e-3
"""Half-precision matrices have 11 bits of mantissa: 5e-4 a number. Measured here: 4e-4."""

SHAPES = [
    TinyShape(),
    TinyShape(image_size=28, patch_size=14, hidden=48, intermediate=96, layers=1, heads=3, dim=80),
    TinyShape(image_size=50, patch_size=8, hidden=32, intermediate=64, layers=2, heads=2, dim=32),
    TinyShape(hidden=96, heads=1, activation="gelu"),
    TinyShape(siglip=True, image_size=30, hidden=144, intermediate=200, heads=2, activation="gelu_pytorch_tanh"),
]


def encode(path: Path, shape: TinyShape, pixels: np.ndarray) -> np.ndarray:
    encoder = VisionEncoder(path, dim=shape.dim, geometry=shape.geometry)
    try:
        return encoder.encode(pixels)
    finally:
        encoder.close()


@pytest.mark.parametrize("attention", ["fused", "standard"])
@pytest.mark.parametrize("feature_layer", [-2, -1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_are_those_of_torch(tmp_path: Path, shape: TinyShape, feature_layer: int, attention: str) -> None:
    tower, connector = make_model(shape)
    path = tmp_path / "vision.onnx"
    error = export_vision(
        tower, connector, feature_layer=feature_layer, path=path, precision="f32", attention=attention
    )
    pixels = make_pixels(shape)
    expected = reference_features(tower, connector, pixels, feature_layer)
    assert error <= F32_TOLERANCE
    assert relative_error(encode(path, shape, pixels), expected) <= F32_TOLERANCE


@pytest.mark.parametrize("siglip", [True, False])
@pytest.mark.parametrize("layers", [[-2, -1], [-1, 1, -4], [1, 1]])
def test_several_layers_side_by_side(tmp_path: Path, layers: list[int], siglip: bool) -> None:
    """-4 of three layers is what enters the first; a layer may be named twice."""
    activation = "gelu_pytorch_tanh" if siglip else "quick_gelu"
    shape = TinyShape(siglip=siglip, states=len(layers), activation=activation)
    tower, connector = make_model(shape)
    path = tmp_path / "vision.onnx"
    export_vision(tower, connector, feature_layer=layers, path=path, precision="f32")
    pixels = make_pixels(shape)
    assert relative_error(encode(path, shape, pixels), reference_features(tower, connector, pixels, layers)) <= 1e-5
    used = max(layer if layer >= 0 else 4 + layer for layer in layers)
    assert [node.op_type for node in onnx.load(path).graph.node].count("MultiHeadAttention") == used


def test_a_layer_counted_from_the_front(tmp_path: Path) -> None:
    shape = TinyShape()
    tower, connector = make_model(shape)
    path = tmp_path / "vision.onnx"
    export_vision(tower, connector, feature_layer=1, path=path, precision="f32")
    pixels = make_pixels(shape)
    expected = reference_features(tower, connector, pixels, 1)
    assert relative_error(encode(path, shape, pixels), expected) <= F32_TOLERANCE
    assert [node.op_type for node in onnx.load(path).graph.node].count("MultiHeadAttention") == 1


def test_features_are_those_of_the_whole_reference_model(tmp_path: Path) -> None:
    shape = TinyShape()
    tower, _ = make_model(shape)
    model = reference_model(tower.config)
    path = tmp_path / "vision.onnx"
    export_vision(
        model.model.vision_tower, model.model.multi_modal_projector, feature_layer=-2, path=path, precision="f32"
    )
    pixels = make_pixels(shape, tiles=5)
    side = 2 * shape.image_size
    with torch.no_grad():
        packed = model.get_image_features(
            torch.from_numpy(pixels)[None],
            torch.tensor([[side, side]]),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        ).pooler_output[0]
    patches = shape.geometry.patches_per_side
    features = encode(path, shape, pixels)
    grid = features[1:].reshape(2, 2, patches, patches, shape.dim).swapaxes(1, 2).reshape(2 * patches, 2 * patches, -1)
    rows = packed[patches**2 :].numpy().reshape(2 * patches, 2 * patches + 1, -1)
    assert relative_error(features[0], packed[: patches**2].numpy()) <= F32_TOLERANCE
    assert relative_error(grid, rows[:, :-1]) <= F32_TOLERANCE


def reference_model(vision: CLIPVisionConfig) -> LlavaNextForConditionalGeneration:
    torch.manual_seed(1)
    side = vision.image_size
    text = LlamaConfig(hidden_size=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
    config = LlavaNextConfig(
        vision_config=vision, text_config=text, image_grid_pinpoints=[[2 * side, 2 * side]], image_token_index=31
    )
    return LlavaNextForConditionalGeneration(config).eval()


def test_any_number_of_tiles_in_one_run(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    shape = TinyShape()
    session = onnxruntime.InferenceSession(str(write_graph(tmp_path, shape)), providers=["CPUExecutionProvider"])
    tower, connector = make_model(shape)
    for tiles in range(1, 6):
        pixels = make_pixels(shape, tiles)
        features = session.run(["features"], {"pixels": pixels})[0]
        assert relative_error(features, reference_features(tower, connector, pixels)) <= F32_TOLERANCE


@pytest.mark.parametrize("attention", ["fused", "standard"])
def test_half_precision_stays_close_and_small(tmp_path: Path, attention: str) -> None:
    shape = TinyShape(hidden=128, intermediate=512, heads=2, dim=160)
    half = write_graph(tmp_path, shape, precision="f16", attention=attention)
    full = write_graph(tmp_path, shape, attention=attention)
    pixels = make_pixels(shape)
    error = relative_error(encode(half, shape, pixels), reference_features(*make_model(shape), pixels))
    assert 0 < error <= F16_TOLERANCE
    assert half.stat().st_size < 0.6 * full.stat().st_size


def test_half_precision_does_not_overflow(tmp_path: Path) -> None:
    shape = TinyShape()
    tower, connector = make_model(shape)
    with torch.no_grad():
        tower.encoder.layers[0].mlp.fc2.weight.mul_(1e6)  # the matrix itself, and what it gives
        tower.encoder.layers[1].self_attn.q_proj.weight.mul_(1e3)
        connector[2].weight.mul_(1e5)
    largest = float(np.finfo(np.float16).max)
    assert tower.encoder.layers[0].mlp.fc2.weight.abs().max() > largest
    path = tmp_path / "vision.onnx"
    export_vision(tower, connector, feature_layer=-2, path=path, precision="f16")
    pixels = make_pixels(shape)
    expected = reference_features(tower, connector, pixels)
    assert np.abs(expected).max() > largest
    assert relative_error(encode(path, shape, pixels), expected) <= F16_TOLERANCE


def test_the_graph_leaves_out_what_is_not_needed(tmp_path: Path) -> None:
    shape = TinyShape()
    graph = onnx.load(write_graph(tmp_path, shape)).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MultiHeadAttention") == shape.layers - 1
    assert operators.count("LayerNormalization") == 1 + 2 * (shape.layers - 1)
    assert {axis.dim_param for axis in graph.input[0].type.tensor_type.shape.dim} == {"tiles", ""}


def test_the_standard_graph_uses_onnx_operators_only(tmp_path: Path) -> None:
    model = onnx.load(write_graph(tmp_path, TinyShape(), attention="standard"))
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    tower, connector = make_model(TinyShape())
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    tower.train()
    export_vision(tower, connector, feature_layer=-2, path=tmp_path / "vision.onnx", precision="f16")
    assert tower.training
    assert not connector.training
    assert len(tower.encoder.layers) == TinyShape().layers
    assert type(tower.encoder.layers[0].mlp.fc1) is nn.Linear
    assert before.keys() == tower.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())


@pytest.mark.parametrize("attention", ["fused", "standard"])
def test_the_file_does_not_say_where_it_was_exported(attention: str, tmp_path: Path) -> None:
    """torch's exporter notes the stack of every node: paths of ours, of torch's and of the test."""
    written = write_graph(tmp_path, TinyShape(), attention=attention).read_bytes()
    checkout, packages = Path(vision.__file__).parent, Path(torch.__file__).parents[1]
    folders = {folder for one in (tmp_path, checkout, packages, Path.home()) for folder in (one, one.resolve())}
    found = [folder for folder in folders if len(folder.parts) > 1 and str(folder).encode() in written]
    assert not found


@pytest.mark.parametrize("feature_layer", [4, -5])
def test_a_layer_that_is_not_there(tmp_path: Path, feature_layer: int) -> None:
    tower, connector = make_model(TinyShape())
    with pytest.raises(CheckpointError, match="between -4 and 3"):
        export_vision(tower, connector, feature_layer=feature_layer, path=tmp_path / "v.onnx", precision="f32")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    tower, connector = make_model(TinyShape())
    with torch.no_grad():
        tower.encoder.layers[0].mlp.fc1.weight[0, 0] = torch.nan
    path = tmp_path / "vision.onnx"
    with pytest.raises(CheckpointError, match="not finite"):
        export_vision(tower, connector, feature_layer=-2, path=path, precision="f32")
    assert not path.exists()


def test_a_file_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VisionExporterConfig, "ATOL_FOR_VALIDATION", 0.0)
    tower, connector = make_model(TinyShape())
    with pytest.raises(CheckpointError, match="within 0 of torch's"):
        export_vision(tower, connector, feature_layer=-2, path=tmp_path / "vision.onnx", precision="f32")
