"""ONNX files written from where the weights are: what the library writes, without its copies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from llava_edge.export.vision import onnx_export as vision
from llava_edge.export.vision.onnx_file import write_model
from llava_edge.runtime.errors import CheckpointError
from support.tiny_vision import TinyShape, write_graph

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_the_file_is_what_the_library_writes(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_both(model: Any, path: Path) -> None:
        write_model(model, path)
        onnx_ir.save(model, tmp_path / "library.onnx")

    monkeypatch.setattr(vision, "write_model", write_both)
    shape = TinyShape(hidden=128, intermediate=512, heads=2, dim=160)  # matrices large enough to stay f16
    path = write_graph(tmp_path, shape, precision=precision)
    ours, library = onnx.load(path), onnx.load(tmp_path / "library.onnx")
    assert ours.ByteSize() == path.stat().st_size  # protobuf would write it with the same lengths
    for model in (ours, library):
        del model.graph.value_info[:]  # the library repeats the weights' shapes here
    assert ours == library
    kinds = {tensor.data_type for tensor in ours.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in kinds) == (precision == "f16")


WRITE = """
import sys
from pathlib import Path
import numpy as np, onnx, onnx_ir
from llava_edge.export.vision.onnx_file import write_model

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

weights = onnx_ir.tensor(np.ones((8192, 8192), np.float32), name="weights")
value = onnx_ir.Value(name="weights", shape=weights.shape, type=onnx_ir.TensorType(weights.dtype), const_value=weights)
node = onnx_ir.node("Identity", [value])
graph = onnx_ir.Graph([], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 20})
model = onnx_ir.Model(graph, ir_version=10)
before = peak()
write_model(model, Path(sys.argv[1]))
print(peak() - before, weights.nbytes)
"""


def test_weights_are_not_copied(tmp_path: Path) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("the peak of a process's memory is read from /proc")
    path = tmp_path / "model.onnx"
    run = subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True, check=True)
    grown, size = map(int, run.stdout.split())
    assert path.stat().st_size > size
    assert grown < size / 4


def test_a_tower_past_protobufs_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """2 GiB and 8 bytes of weights that take no memory; protobuf itself can't read such a file back."""
    numbers = onnx_ir.Tensor(np.broadcast_to(np.float32(1), (2**29 + 2,)), name="weights")
    kind = onnx_ir.TensorType(numbers.dtype)
    value = onnx_ir.Value(name="weights", shape=numbers.shape, type=kind, const_value=numbers)
    graph = onnx_ir.Graph([], [value], nodes=[], initializers=[value], opset_imports={"": 20})
    with pytest.raises(CheckpointError, match=r"at most 2 GiB.*got 2\.00 GiB; export with --vision f16"):
        write_model(onnx_ir.Model(graph, ir_version=10), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
