"""What the machine can do at best: bytes a second from memory, and operations a second in matrix products.

    python -m llava_edge.benchmark.speed.roofline

Memory: every thread goes through its own part of a buffer far larger than any cache that is this
process's own; *read* takes the largest of 64-bit integers (numpy, nothing written), *copy* copies
and counts both directions. Products: onnxruntime's MatMul in float32 and MatMulInteger (uint8 times
int8), and ggml's bfloat16, of matrices of the size that a tower or an LLM has. Each is the best of
several tries, so other work on the machine lowers it less than it lowers an average. They are the
rates of these libraries: what a share of them misses is overhead, what they miss themselves is not shown.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.ggml.library import ggml_function
from ...runtime.ggml.tensor import InitParameters
from ...runtime.ggml.types import BF16, F32
from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.system.machine import physical_cores
from ...runtime.system.outputs import check_output_file
from ...runtime.system.storage import write_text
from .machine import describe_machine, machine_line

ROWS, INNER, COLUMNS = 576, 4096, 4096
"""A tile's patches, or a prefill chunk, times one layer's matrix."""
BUFFER = 1 << 30
TRIES = 5


@dataclass(frozen=True)
class Roofline:
    """Bytes a second (``read``, ``copy``) and operations a second (a multiply and an add are two)."""

    threads: int
    read: float
    copy: float
    f32: float
    int8: float
    bf16: float


def measure_roofline(threads: int = 0, *, size: int = BUFFER, rows: int = ROWS, inner: int = INNER) -> Roofline:
    """Measure all of it, on ``threads`` (0: one a physical core); ``size`` bytes of memory buffer."""
    threads = threads or physical_cores()
    read, copy = _memory(threads, size)
    f32 = _onnxruntime(threads, rows, inner, integer=False)
    int8 = _onnxruntime(threads, rows, inner, integer=True)
    return Roofline(threads, read, copy, f32, int8, _ggml(threads, rows, inner))


def _best(action: Callable[[], object]) -> float:
    """Seconds of the fastest try, after one that warms up."""
    seconds = []
    for _ in range(TRIES + 1):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _memory(threads: int, size: int) -> tuple[float, float]:
    """(read, copy) in bytes a second; numpy lets go of the interpreter in both."""
    parts = [np.arange(size // 8 // threads, dtype=np.int64) for _ in range(threads)]
    halves = [(part[: len(part) // 2], part[len(part) // 2 : len(part) // 2 * 2]) for part in parts]
    total = sum(part.nbytes for part in parts)
    with ThreadPoolExecutor(threads) as pool:
        read = _best(lambda: list(pool.map(np.max, parts)))
        copy = _best(lambda: list(pool.map(lambda pair: np.copyto(*pair), halves)))
    return total / read, total / copy


def _onnxruntime(threads: int, rows: int, inner: int, *, integer: bool) -> float:
    """Operations a second of one product with a constant matrix, as in a vision graph."""
    onnxruntime = import_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = _product(rows, inner, integer=integer)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    left = draw.integers(0, 256, (rows, inner), np.uint8) if integer else draw.random((rows, inner), np.float32)
    return 2.0 * rows * inner * COLUMNS / _best(lambda: session.run(None, {"left": left}))


def _product(rows: int, inner: int, *, integer: bool) -> bytes:
    """A graph of one product: (rows, inner) times a stored (inner, columns)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(1)
    if integer:
        matrix: Any = draw.integers(-127, 128, (inner, COLUMNS), np.int8)
        operator, kind, result = "MatMulInteger", TensorProto.UINT8, TensorProto.INT32
    else:
        matrix = draw.random((inner, COLUMNS), np.float32)
        operator, kind, result = "MatMul", TensorProto.FLOAT, TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", kind, (rows, inner))],
        [helper.make_tensor_value_info("product", result, (rows, COLUMNS))],
        [numpy_helper.from_array(matrix, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _ggml(threads: int, rows: int, inner: int) -> float:
    """Operations a second of ggml's product of a bfloat16 matrix with float32 activations."""
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    make = ggml_function("ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, count, count)
    data = ggml_function("ggml_get_data", pointer, pointer)
    compute = ggml_function("ggml_graph_compute_with_ctx", ctypes.c_int, pointer, pointer, ctypes.c_int)
    bytes_needed = 2 * inner * COLUMNS + 4 * rows * (inner + COLUMNS) + (64 << 20)
    context = ggml_function("ggml_init", pointer, InitParameters)(InitParameters(bytes_needed, None, False))
    matrix, left = make(context, BF16, inner, COLUMNS), make(context, F32, inner, rows)
    # any bytes that are numbers of ordinary size will do: 0x3c3c is 0.011 in bfloat16
    ctypes.memset(data(matrix), 0x3C, 2 * inner * COLUMNS)
    ctypes.memset(data(left), 0x3C, 4 * rows * inner)
    product = ggml_function("ggml_mul_mat", pointer, pointer, pointer, pointer)(context, matrix, left)
    graph = ggml_function("ggml_new_graph", pointer, pointer)(context)
    ggml_function("ggml_build_forward_expand", None, pointer, pointer)(graph, product)
    try:
        seconds = _best(lambda: compute(context, graph, threads))
    finally:
        ggml_function("ggml_free", None, pointer)(context)
    return 2.0 * rows * inner * COLUMNS / seconds


def main() -> None:
    """Print the rates as JSON (and the machine on stderr), or write them to ``--result``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    if arguments.result:
        check_output_file(arguments.result, "--result")
    text = json.dumps(dataclasses.asdict(measure_roofline(arguments.threads)))
    if arguments.result:
        write_text(arguments.result, text)
    else:
        print(machine_line(describe_machine()), file=sys.stderr)
        print(text)


if __name__ == "__main__":
    main()
