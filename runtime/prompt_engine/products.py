"""Products of activations with a matrix in int8, by onnxruntime.

Each row of the activations and each row of the matrix has its own scale, so what one position gets does not depend on
its neighbours: rows may be shared out among threads, and read in any chunks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..onnx_runtime.graphs import CONTRIB, Given, Node, model_bytes
from ..onnx_runtime.importing import import_onnxruntime
from ..system.machine import int8_sums_overflow

ACTIVATION_TOP = 127
"""The largest magnitude of a quantized activation; 128 is added, as onnxruntime's kernels take uint8."""
ZERO = np.uint8(128)
TINY = np.float32(1e-30)
"""In the place of the largest magnitude of a row of zeros."""


def weight_top() -> int:
    """The largest magnitude of a quantized weight: 7 bits where the sum of two products of 8 bits overflows."""
    return 63 if int8_sums_overflow() else 127


def open_session(model: bytes, given: Mapping[str, npt.NDArray[Any]] | None = None) -> Any:
    """A session that computes on the thread that calls it; ``given`` are the model's constants of that kind."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep a second copy of what was packed
    if given:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in given.values()]
        options.add_external_initializers(list(given), values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Product:
    """One matrix (outputs, inputs), packed for onnxruntime's kernels: a byte a weight."""

    def __init__(self, blocks: Iterator[npt.NDArray[np.float32]], outputs: int, inputs: int, *, precise: bool) -> None:
        """``blocks`` are its rows. ``precise`` multiplies what rounding leaves of the activations too."""
        self.outputs, self.inputs = outputs, inputs
        columns, scales = np.empty((inputs, outputs), np.int8), np.empty(outputs, np.float32)
        quantize, at = _quantizer(), 0
        for rows in blocks:
            part = slice(at, at + len(rows))
            columns[:, part], scales[part] = quantize.run(None, {"w": rows})
            at += len(rows)
        self._session = open_session(_product(outputs, inputs, precise), {"w": columns, "scales": scales})

    def compute(self, activations: int, rows: int, results: int) -> None:
        """``rows`` activations (rows, inputs) at an address to (rows, outputs) at another, both float32."""
        binding = self._session.io_binding()
        binding.bind_input("x", "cpu", 0, np.float32, (rows, self.inputs), activations)
        binding.bind_output("y", "cpu", 0, np.float32, (rows, self.outputs), results)
        self._session.run_with_iobinding(binding)


def _row_scales(values: str, top: np.float32) -> tuple[list[Node], dict[str, Any]]:
    """Nodes for ``scale``, the largest magnitude of each row over ``top``, and what they need."""
    nodes = [
        Node("ReduceMax", [values, "axes"], ["high"], {"keepdims": 0}),
        Node("ReduceMin", [values, "axes"], ["low"], {"keepdims": 0}),
        Node("Neg", ["low"], ["depth"]),
        Node("Max", ["high", "depth", "tiny"], ["largest"]),
        Node("Mul", ["largest", "unit"], ["scale"]),
        Node("Shape", ["scale"], ["rows"]),
        Node("Expand", ["zero", "rows"], ["zeros"]),
        Node("QuantizeLinear", [values, "scale", "zeros"], ["quantized"], {"axis": 0}),
    ]
    return nodes, {"axes": np.array([-1]), "tiny": TINY, "unit": np.float32(1 / top)}


@functools.cache
def _quantizer() -> Any:
    nodes, constants = _row_scales("w", np.float32(weight_top()))
    nodes.append(Node("Transpose", ["quantized"], ["columns"]))  # ten times as fast as numpy's
    model = model_bytes(
        nodes,
        inputs={"w": ("float32", ("outputs", "inputs"))},
        outputs={"columns": ("int8", ("inputs", "outputs")), "scale": ("float32", ("outputs",))},
        constants={**constants, "zero": np.int8(0)},
    )
    return open_session(model)


@functools.cache
def _product(outputs: int, inputs: int, precise: bool) -> bytes:
    nodes, constants = _row_scales("x", np.float32(ACTIVATION_TOP))
    constants |= {
        "zero": ZERO,
        "one": np.float32(1),
        "w": Given("int8", (inputs, outputs)),
        "scales": Given("float32", (outputs,)),
    }
    if precise:
        nodes += [
            Node("DequantizeLinear", ["quantized", "scale", "zeros"], ["near"], {"axis": 0}),
            Node("Sub", ["x", "near"], ["rest"]),
            Node("Mul", ["scale", "finer"], ["fine"]),
            Node("QuantizeLinear", ["rest", "fine", "zeros"], ["remainder"], {"axis": 0}),
            Node("Concat", ["quantized", "remainder"], ["left"], {"axis": 0}),  # one product: w is packed once
        ]
        constants["finer"] = np.float32(0.5 / ACTIVATION_TOP)
    nodes.append(
        Node(
            "MatMulIntegerToFloat",
            ["left" if precise else "quantized", "w", "one", "scales", "zero"],
            ["sums"],
            domain=CONTRIB,
        )
    )
    if precise:
        nodes += [
            Node("Reshape", ["sums", "parts"], ["both"]),
            Node("Concat", ["scale", "fine"], ["factors"], {"axis": 0}),
            Node("Reshape", ["factors", "columns"], ["column"]),
            Node("Mul", ["both", "column"], ["scaled"]),
            Node("ReduceSum", ["scaled", "first"], ["y"], {"keepdims": 0}),
        ]
        constants |= {"parts": np.array([2, -1, outputs]), "columns": np.array([2, -1, 1]), "first": np.array([0])}
    else:
        nodes += [Node("Unsqueeze", ["scale", "axes"], ["column"]), Node("Mul", ["sums", "column"], ["y"])]
    return model_bytes(
        nodes,
        inputs={"x": ("float32", ("rows", inputs))},
        outputs={"y": ("float32", ("rows", outputs))},
        constants=constants,
    )
