"""Graphs respelt for a GPU, run on the CPU; and compiling them, with a TensorRT that is played."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from llava_edge.cli.commands.export import export
from llava_edge.export.vision import gpu
from llava_edge.export.vision.gpu import ERROR_BOUNDS, compile_vision, prepare, tensorrt_options
from llava_edge.export.vision.gpu_graph import standard_attention
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.errors import BundleError, MissingExtraError, NativeError, OptionError
from llava_edge.runtime.onnx_runtime.compiled import GRAPH, RECORD, MachineKey, compiled_folder, find_compiled
from llava_edge.runtime.onnx_runtime.providers import CUDA, TENSORRT
from llava_edge.runtime.onnx_runtime.session import open_session
from llava_edge.runtime.pictures.tower import FEATURES, PIXELS
from support.checkpoints import make_checkpoint
from support.tiny_vision import TinyShape, make_model, make_pixels, reference_features, relative_error, write_graph

pytestmark = pytest.mark.slow

SHAPE = TinyShape()
PINPOINTS = ((64, 64), (32, 64), (64, 32))
MACHINE = MachineKey("NVIDIA Test 1", "550.1", "9.0", "1.31.1", "10.9")


@pytest.fixture(scope="module", params=["f32", "f16"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph(tmp_path_factory.mktemp("graph"), SHAPE, precision=request.param)


def on_cpu(path: Path, pixels: np.ndarray) -> np.ndarray:
    """By the product's own session: on a CPU without VNNI it asks for int8 sums that do not overflow."""
    return np.asarray(open_session(path, providers=["CPUExecutionProvider"]).run(None, {PIXELS: pixels})[0])


# float32: another order of sums; the others: the bound that compiling holds them to on the GPU
@pytest.mark.parametrize(
    ("target", "precision", "bound"),
    [("tensorrt", "f16", 1e-3), ("cuda", "f16", ERROR_BOUNDS["f16"]), ("tensorrt", "int8", ERROR_BOUNDS["int8"])],
)
def test_a_respelt_graph_has_the_features_of_torch(
    graph: Path, tmp_path: Path, target: Any, precision: Any, bound: float
) -> None:
    pixels = make_pixels(SHAPE, 3)
    ready = prepare(graph, tmp_path, target=target, precision=precision, pixels=pixels)
    error = relative_error(on_cpu(ready, pixels), reference_features(*make_model(SHAPE), pixels))
    assert error <= bound
    if target == "cuda" or precision == "int8":
        assert error > 1e-6  # it is another precision, not the old graph again


def test_tensorrt_gets_only_what_it_reads(graph: Path, tmp_path: Path) -> None:
    pixels = make_pixels(SHAPE, 2)
    for precision in ("f16", "int8"):
        model = onnx.load(prepare(graph, tmp_path, target="tensorrt", precision=precision, pixels=pixels))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= {""}
        assert not {"DynamicQuantizeLinear", "MatMulInteger", "Cast"} & {node.op_type for node in model.graph.node}
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    quantizing = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizing
    for node in quantizing:
        zero_point = tensors[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_half_precision_computes_in_half(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(prepare(graph, tmp_path, target="cuda", precision="f16", pixels=make_pixels(SHAPE)))
    types = {one.name: one.data_type for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert products
    assert all(types.get(node.input[1], onnx.TensorProto.FLOAT16) == onnx.TensorProto.FLOAT16 for node in products)


def test_attention_with_biases_is_refused() -> None:
    node = onnx.helper.make_node(
        "MultiHeadAttention", ["q", "k", "v", "bias"], ["y"], domain="com.microsoft", num_heads=2
    )
    value = [onnx.helper.make_tensor_value_info(name, 1, ["n", 4, 8]) for name in ("q", "k", "v", "bias", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:4], value[4:]))
    with pytest.raises(BundleError, match="query, key and value"):
        standard_attention(model)


class PlayedSession:
    """A session that says it runs on a GPU and computes on the CPU."""

    def __init__(self, path: Path, provider: str, *, wrong: float) -> None:
        self.provider, self.wrong = provider, wrong
        self.real = open_session(path, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run(self, *arguments: Any) -> list[np.ndarray]:
        return [features * (1 + self.wrong) for features in self.real.run(*arguments)]


class PlayedOnnxruntime:
    """TensorRT as the provider's page describes it: a context model, and an engine beside it."""

    __version__ = "1.31.1"

    def __init__(self, *, wrong: float = 0.0, partial: bool = False) -> None:
        self.wrong, self.partial = wrong, partial
        self.compiled: list[dict[str, Any]] = []

    SessionOptions = onnxruntime.SessionOptions

    def InferenceSession(
        self, path: str, options: Any, *, providers: list[tuple[str, dict[str, Any]]], enable_fallback: bool
    ) -> Any:
        assert options.intra_op_num_threads >= 1
        provider, settings = providers[0]
        if provider == TENSORRT and "trt_dump_ep_context_model" in settings:
            self.compiled.append(settings)
            context = Path(settings["trt_ep_context_file_path"])
            if not self.partial:
                context.write_bytes(Path(path).read_bytes())
            (context.parent / "kernel.engine").write_bytes(b"engine")
            (Path(settings["trt_timing_cache_path"]) / "kernel.timing").write_bytes(b"timing")
        return PlayedSession(Path(path), provider, wrong=self.wrong)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PlayedOnnxruntime:
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path / "cache"))
    onnx_runtime = PlayedOnnxruntime()
    monkeypatch.setattr(gpu, "_with_provider", lambda _: onnx_runtime)
    monkeypatch.setattr(gpu, "this_machine", lambda _: MACHINE)
    return onnx_runtime


def bundle_of(graph: Path, recipe: str = "f32") -> Any:
    """What compiling asks of a bundle."""
    manifest = SimpleNamespace(
        vision=SimpleNamespace(recipe=recipe), geometry=replace(SHAPE.geometry, pinpoints=PINPOINTS)
    )
    return SimpleNamespace(vision_path=graph, vision_fingerprint="ab" * 32, manifest=manifest)


def test_an_engine_is_kept_in_the_cache_and_found(graph: Path, played: PlayedOnnxruntime, tmp_path: Path) -> None:
    before = sorted(graph.parent.iterdir())
    compiled = compile_vision(bundle_of(graph), target="tensorrt")
    assert find_compiled("tensorrt", "ab" * 32, MACHINE) == compiled.folder / GRAPH
    assert compiled.folder.is_relative_to(tmp_path / "cache")
    assert {path.name for path in compiled.folder.iterdir()} == {GRAPH, RECORD, "kernel.engine", "kernel.timing"}
    assert [path.name for path in compiled.folder.parent.iterdir()] == [compiled.folder.name]  # nothing half-written
    assert sorted(graph.parent.iterdir()) == before  # and nothing beside the bundle's graph
    assert compiled.error <= 1e-3
    record = json.loads((compiled.folder / RECORD).read_text())
    assert (record["machine"]["driver"], record["precision"], record["error"]) == ("550.1", "f16", compiled.error)


def test_compiling_again_only_where_something_changed(
    graph: Path, played: PlayedOnnxruntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile_vision(bundle_of(graph), target="tensorrt")
    again = compile_vision(bundle_of(graph), target="tensorrt")
    assert (again.folder, again.seconds, len(played.compiled)) == (first.folder, 0.0, 1)
    updated = replace(MACHINE, driver="560.2")
    monkeypatch.setattr(gpu, "this_machine", lambda _: updated)
    other = compile_vision(bundle_of(graph), target="tensorrt")
    assert len(played.compiled) == 2
    assert list(other.folder.parent.iterdir()) == [other.folder]  # the old driver's is gone
    compile_vision(bundle_of(graph), target="tensorrt", precision="int8")
    assert played.compiled[-1]["trt_int8_enable"] == "True"


@pytest.mark.parametrize(("wrong", "partial", "said"), [(0.1, False, "feature error"), (0.0, True, "whole graph")])
def test_what_is_wrong_is_not_kept(
    graph: Path, played: PlayedOnnxruntime, wrong: float, partial: bool, said: str
) -> None:
    played.wrong, played.partial = wrong, partial
    with pytest.raises(NativeError, match=said):
        compile_vision(bundle_of(graph), target="tensorrt")
    folder = compiled_folder("tensorrt", "ab" * 32, MACHINE)
    assert not list(folder.parent.iterdir())


def test_options_are_for_one_to_five_tiles_and_relative_to_the_context(tmp_path: Path) -> None:
    """Names and the relative path as onnxruntime's page on the provider has them."""
    options = tensorrt_options(tmp_path, 336, "f16")
    assert options["trt_profile_min_shapes"] == f"{PIXELS}:1x3x336x336"
    assert options["trt_profile_max_shapes"] == f"{PIXELS}:5x3x336x336"
    assert not Path(options["trt_engine_cache_path"]).is_absolute()
    assert Path(options["trt_ep_context_file_path"]).parent == tmp_path
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("True", "False")
    assert FEATURES not in options["trt_profile_opt_shapes"]


def test_int8_bundles_and_odd_precisions_are_refused(graph: Path, played: PlayedOnnxruntime) -> None:
    with pytest.raises(OptionError, match="got int8; optimize the bundle that export wrote"):
        compile_vision(bundle_of(graph, "int8"), target="tensorrt")
    with pytest.raises(OptionError, match="expected f16; got int8"):
        compile_vision(bundle_of(graph), target="cuda", precision="int8")


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA")
@pytest.mark.parametrize("target", ["tensorrt", "cuda"])
def test_without_the_provider_the_error_says_how_to_install_it(graph: Path, target: Any) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install .*(onnxruntime-gpu|llava-edge\[cuda\])"):
        compile_vision(bundle_of(graph), target=target)


def test_export_compiles_too(played: PlayedOnnxruntime, tmp_path: Path) -> None:
    export(
        str(make_checkpoint(tmp_path / "checkpoint", "llama3")), tmp_path / "bundle", vision="tensorrt", verify=False
    )
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.vision.recipe == "f32"
    assert isinstance(find_compiled("tensorrt", bundle.vision_fingerprint, MACHINE), Path)
    assert len(played.compiled) == 1


@pytest.mark.skipif(TENSORRT in onnxruntime.get_available_providers(), reason="this onnxruntime has TensorRT")
def test_export_for_a_gpu_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="TensorRT"):
        export(str(make_checkpoint(tmp_path / "checkpoint", "llama3")), tmp_path / "bundle", vision="tensorrt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
