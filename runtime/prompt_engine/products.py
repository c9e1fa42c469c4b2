"""Products of activations with matrices in int8, by onnxruntime.

Each row of the activations and each row of a matrix has its own scale, so what one position gets does not depend on
its neighbours: rows may be shared out among threads, and read in any chunks.

A few columns of the activations are far above the others, and one scale for all of a row leaves little to the rest.
So activations and matrices are rotated alike, by Hadamard matrices of up to ``ROTATED`` columns: the product stays what
it is, and what was large in one column is spread over all (QuaRot, https://arxiv.org/abs/2404.00456).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
ROTATED = 64
"""Columns rotated together, at most."""
Blocks = Iterator[npt.NDArray[np.float32]]


def weight_top() -> int:
    """The largest magnitude of a quantized weight: 7 bits where the sum of two products of 8 bits overflows."""
    return 63 if int8_sums_overflow() else 127


def open_session(model: bytes, given: Mapping[str, npt.NDArray[Any]] | None = None) -> Any:
    """A session that computes on the thread that calls it; ``given`` are the model's constants of that kind."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # else the arena would keep a second copy of what was packed
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    if given:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in given.values()]
        options.add_external_initializers(list(given), values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.cache
def _share_arena() -> None:
    """One arena for all sessions here: memory for results between products that the system need not clear each time."""
    onnxruntime = import_onnxruntime()
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    exact = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(place, exact)


def hadamard(columns: int) -> npt.NDArray[np.float32]:
    """The rotation of ``columns`` inputs (size, size), size being the largest power of two in them up to ROTATED."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < ROTATED and columns % (2 * len(matrix)) == 0:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(np.sqrt(len(matrix)))


@dataclass(frozen=True)
class Quantized:
    """A matrix (outputs, inputs) rotated and rounded: ``columns`` (inputs, outputs) int8, ``scales`` (outputs,)."""

    columns: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @classmethod
    def of(cls, blocks: Blocks, outputs: int, inputs: int) -> Quantized:
        """``blocks`` are its rows in order."""
        made = cls(np.empty((inputs, outputs), np.int8), np.empty(outputs, np.float32))
        quantize, at = _quantizer(inputs, "w"), 0
        for rows in blocks:
            part = slice(at, at + len(rows))
            made.columns[:, part], made.scales[part] = quantize.run(None, {"w": rows})
            at += len(rows)
        return made


class Product:
    """One matrix (outputs, inputs), packed for onnxruntime's kernels: a byte a weight."""

    def __init__(self, matrix: Quantized) -> None:
        self.inputs, self.outputs = matrix.columns.shape
        given: dict[str, npt.NDArray[Any]] = {"w": matrix.columns, "w_scales": matrix.scales}
        self.size = matrix.columns.nbytes
        self._session = open_session(_product(self.outputs, self.inputs), given)

    def compute(self, quantized: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32], results: int) -> None:
        """Activations of :func:`quantize` to float32 (rows, outputs) at an address."""
        rows = len(quantized)
        binding = self._session.io_binding()
        binding.bind_input("q", "cpu", 0, np.uint8, (rows, self.inputs), quantized.ctypes.data)
        binding.bind_input("scale", "cpu", 0, np.float32, (rows,), scales.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, (rows, self.outputs), results)
        self._session.run_with_iobinding(binding)


class FeedForward:
    """``down(silu(gate(x)) * up(x))``: three matrices and what is between them, a byte a weight."""

    def __init__(self, gate: Quantized, up: Quantized, down: Quantized) -> None:
        self.inputs, self.outputs = down.columns.shape[1], down.columns.shape[1]
        given: dict[str, npt.NDArray[Any]] = {}
        for name, matrix in (("gate", gate), ("up", up), ("down", down)):
            given |= {name: matrix.columns, f"{name}_scales": matrix.scales}
        self.size = gate.columns.nbytes + up.columns.nbytes + down.columns.nbytes
        self._session = open_session(_feed_forward(*gate.columns.shape), given)

    def compute(self, activations: int, rows: int, results: int) -> None:
        """``rows`` activations (rows, inputs) at an address to (rows, inputs) at another, both float32."""
        binding = self._session.io_binding()
        binding.bind_input("x", "cpu", 0, np.float32, (rows, self.inputs), activations)
        binding.bind_output("y", "cpu", 0, np.float32, (rows, self.outputs), results)
        self._session.run_with_iobinding(binding)


def quantize(activations: int, inputs: int, quantized: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32]) -> None:
    """Rotate and round float32 activations at an address, into ``quantized`` (rows, inputs) and ``scales`` (rows,)."""
    rows, session = len(quantized), _quantizer(inputs, "x")
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, (rows, inputs), activations)
    binding.bind_output("q", "cpu", 0, np.uint8, (rows, inputs), quantized.ctypes.data)
    binding.bind_output("scale", "cpu", 0, np.float32, (rows,), scales.ctypes.data)
    session.run_with_iobinding(binding)


def gate(places: Sequence[int], rows: int, columns: int) -> None:
    """silu of numbers times others; addresses of both and of the result, all float32 (rows, columns)."""
    binding = _gating().io_binding()
    for name, address in zip(("gated", "risen"), places, strict=False):
        binding.bind_input(name, "cpu", 0, np.float32, (rows, columns), address)
    binding.bind_output("inner", "cpu", 0, np.float32, (rows, columns), places[-1])
    _gating().run_with_iobinding(binding)


Part = tuple[list[Node], dict[str, Any]]
"""Nodes, and the constants that they need."""


def _rounded(values: str, inputs: int, *, top: int, zero: Any, prefix: str = "") -> Part:
    """Nodes that rotate ``values`` (rows, inputs) and round them, to ``q`` with ``scale`` a row; names get a prefix."""
    name = prefix.__add__
    rotation = hadamard(inputs)
    nodes = [
        Node("Reshape", [values, name("parts")], [name("cut")]),
        Node("MatMul", [name("cut"), name("rotation")], [name("turned")]),
        Node("Reshape", [name("turned"), name("whole")], [name("rotated")]),
        Node("ReduceMax", [name("rotated"), "axes"], [name("high")], {"keepdims": 0}),
        Node("ReduceMin", [name("rotated"), "axes"], [name("low")], {"keepdims": 0}),
        Node("Neg", [name("low")], [name("depth")]),
        Node("Max", [name("high"), name("depth"), "tiny"], [name("largest")]),
        Node("Mul", [name("largest"), "unit"], [name("scale")]),
        Node("Shape", [name("scale")], [name("rows")]),
        Node("Expand", ["zero", name("rows")], [name("zeros")]),
        Node("QuantizeLinear", [name("rotated"), name("scale"), name("zeros")], [name("q")], {"axis": 0}),
    ]
    return nodes, {
        name("parts"): np.array([-1, len(rotation)]),
        name("whole"): np.array([-1, inputs]),
        name("rotation"): rotation,
        "axes": np.array([-1]),
        "tiny": TINY,
        "unit": np.float32(1 / top),
        "zero": zero,
    }


def _multiplied(weights: str, outputs: int, inputs: int, result: str, quantized: str = "q") -> Part:
    """A node for the product of rounded activations and given weights: the scale of each row is still to come."""
    node = Node(
        "MatMulIntegerToFloat", [quantized, weights, "one", f"{weights}_scales", "zero"], [result], domain=CONTRIB
    )
    return [node], {
        "one": np.float32(1),
        "zero": ZERO,
        weights: Given("int8", (inputs, outputs)),
        f"{weights}_scales": Given("float32", (outputs,)),
    }


@functools.cache
def _quantizer(inputs: int, what: str) -> Any:
    """Of weights ("w", to columns), or of activations ("x")."""
    weights = what == "w"
    top, zero = (weight_top(), np.int8(0)) if weights else (ACTIVATION_TOP, ZERO)
    nodes, constants = _rounded(what, inputs, top=top, zero=zero)
    results: dict[str, tuple[str, Sequence[int | str]]]
    results = {"q": ("uint8", ("rows", inputs))}
    if weights:
        nodes.append(Node("Transpose", ["q"], ["columns"]))  # ten times as fast as numpy's
        results = {"columns": ("int8", (inputs, "rows"))}
    model = model_bytes(
        nodes,
        inputs={what: ("float32", ("rows", inputs))},
        outputs={**results, "scale": ("float32", ("rows",))},
        constants=constants,
    )
    return open_session(model)


@functools.cache
def _product(outputs: int, inputs: int) -> bytes:
    nodes, constants = _multiplied("w", outputs, inputs, "sums")
    nodes += [Node("Unsqueeze", ["scale", "axes"], ["column"]), Node("Mul", ["sums", "column"], ["y"])]
    return model_bytes(
        nodes,
        inputs={"q": ("uint8", ("rows", inputs)), "scale": ("float32", ("rows",))},
        outputs={"y": ("float32", ("rows", outputs))},
        constants={**constants, "axes": np.array([-1])},
    )


def _gated(gates: str, rises: str, result: str) -> list[Node]:
    """Nodes for silu(gates) * rises."""
    return [
        Node("Sigmoid", [gates], ["open"]),
        Node("Mul", [gates, "open"], ["silu"]),
        Node("Mul", ["silu", rises], [result]),
    ]


@functools.cache
def _gating() -> Any:
    kind = ("float32", ("rows", "columns"))
    nodes = _gated("gated", "risen", "inner")
    model = model_bytes(nodes, inputs={"gated": kind, "risen": kind}, outputs={"inner": kind}, constants={})
    return open_session(model)


@functools.cache
def _feed_forward(inputs: int, inner: int) -> bytes:
    parts = [
        _rounded("x", inputs, top=ACTIVATION_TOP, zero=ZERO),
        _multiplied("gate", inner, inputs, "gated"),
        _multiplied("up", inner, inputs, "risen"),
        ([Node("Unsqueeze", ["scale", "axes"], ["column"]), Node("Mul", ["gated", "column"], ["pre"])], {}),
        (_gated("pre", "risen", "inner"), {}),  # a row's scale of `risen` is left to the end
        _rounded("inner", inner, top=ACTIVATION_TOP, zero=ZERO, prefix="inner_"),
        _multiplied("down", inputs, inner, "sums", "inner_q"),
        (
            [
                Node("Mul", ["scale", "inner_scale"], ["factors"]),
                Node("Unsqueeze", ["factors", "axes"], ["factor"]),
                Node("Mul", ["sums", "factor"], ["y"]),
            ],
            {},
        ),
    ]
    return model_bytes(
        [node for nodes, _ in parts for node in nodes],
        inputs={"x": ("float32", ("rows", inputs))},
        outputs={"y": ("float32", ("rows", inputs))},
        constants={name: value for _, constants in parts for name, value in constants.items()},
    )
