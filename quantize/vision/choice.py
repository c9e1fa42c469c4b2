"""``--vision auto``: the recipe for this machine (``docs/vision.md``)."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from ...runtime.onnx_runtime.graphs import CONTRIB, Node, Value, model_bytes
from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.onnx_runtime.session import session_options
from ...runtime.pictures.vision_recipes import choose_vision
from ...runtime.system.machine import processor_flags

ROWS, WIDTH = 577, 1024
"""The product that is tried: one of CLIP-L/336's layers."""
TIMES = 7


def choose_vision_here() -> str:
    """The recipe for this machine. Where the processor's flags are unknown, that is "f16"."""
    onnxruntime = import_onnxruntime()

    return choose_vision(processor_flags(), onnxruntime.get_available_providers(), integer_gain)


def integer_gain() -> float:
    """How many times as fast as in float32 a product is in int8, quantizing its input included.

    Computed as in a session of ours, so with exact sums where they would overflow. It takes some tenths of a second;
    the median of pairs, so that other work on the machine falls on both.
    """
    generator = np.random.default_rng(0)
    given = {"x": generator.standard_normal((ROWS, WIDTH), np.float32)}
    matrix = generator.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8)
    floats = _session([Node("MatMul", ["x", "w"], ["y"])], {"w": matrix.astype(np.float32)})
    integers = _session(
        [Node("DynamicQuantizeMatMul", ["x", "w", "scales"], ["y"], domain=CONTRIB)],
        {"w": matrix, "scales": np.ones(WIDTH, np.float32)},
    )
    for session in (floats, integers):
        session.run(None, given)
    return statistics.median(_seconds(floats, given) / _seconds(integers, given) for _ in range(TIMES))


def _session(nodes: list[Node], constants: dict[str, Value]) -> Any:
    shape = ("float32", (ROWS, WIDTH))
    model = model_bytes(nodes, inputs={"x": shape}, outputs={"y": shape}, constants=constants)
    onnxruntime = import_onnxruntime()
    options = session_options(onnxruntime, None)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _seconds(session: Any, given: dict[str, Any]) -> float:
    began = time.perf_counter()
    session.run(None, given)
    return time.perf_counter() - began
