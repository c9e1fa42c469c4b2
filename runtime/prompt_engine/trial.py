"""Which computes a model's products faster here, onnxruntime or llama.cpp: tried once, and kept in the user's cache.

Both multiply a part of the model's own matrix with the rows of half a chunk, on one thread and in turns; what counts is
the least processor time of several, so that what else the machine does moves it little. An answer that is kept stays.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import NativeError
from ..ggml.devices import CPU
from ..ggml.library import ggml_function, library_digest
from ..ggml.rearranged import special_buffers
from ..ggml.tensor import InitParameters
from ..ggml.types import BY_NUMBER, F32
from ..onnx_runtime.importing import import_onnxruntime
from ..system.filesystems import make_private
from ..system.machine import cache_folder, processor_flags, processor_name
from ..system.native_thread import NativeThread
from ..system.storage import write_text
from .products import Product, Quantized, quantize
from .weights import Weights

FILE = "prompt-engine.json"
ROWS = 256
"""Positions multiplied at once."""
OUTPUTS = 1024
"""Rows of the matrix that take part."""
TURNS = 8
CLOSE = 0.05
"""Relative difference of the two results up to which they are the same product; rounding makes some 0.01."""
_ARENA = 2**20
_P, _SIZE = ctypes.c_void_p, ctypes.c_size_t


def speed_up(weights: Weights, *, repack: bool) -> float:
    """How many times as fast as llama.cpp, with weights rearranged or not, onnxruntime computes a model's products.

    Raises :class:`NativeError` where they do not compute the same.
    """
    name = _typical(weights)
    kind = BY_NUMBER[weights.tensors[name].type].name
    label = f"{kind}, {weights.shape(name)[1]} inputs, {'rearranged' if repack else 'plain'}"
    kept = kept_answers()
    if label in kept:
        return kept[label]
    found = round(_measure(weights, name, repack=repack), 2)
    with suppress(OSError):  # nowhere to keep it: the next process tries again, for a part of a second
        path = cache_folder() / FILE
        if not path.parent.exists():
            make_private(path.parent)
        write_text(path, json.dumps({_key(): {**kept, label: found}}))
    return found


def kept_answers() -> dict[str, float]:
    """What was found on this machine with these libraries: times as fast, by type of weights and width."""
    with suppress(OSError, ValueError, AttributeError):
        kept = json.loads((cache_folder() / FILE).read_text(encoding="utf-8")).get(_key(), {})
        return {name: float(one) for name, one in kept.items() if isinstance(one, float | int)}
    return {}


@functools.cache
def _key() -> str:
    """Changes with the libraries of both, and with the CPU's abilities."""
    words = [library_digest(), str(import_onnxruntime().__version__), processor_name(), *sorted(processor_flags())]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _typical(weights: Weights) -> str:
    """The first layer's gate, else its largest matrix."""
    names = weights.of_layers
    gate = next((name for name in names if ".ffn_gate." in name), None)
    return gate or max(names, key=lambda name: math.prod(weights.shape(name)))


def _measure(weights: Weights, name: str, *, repack: bool) -> float:
    outputs = min(weights.shape(name)[0], OUTPUTS)
    inputs = weights.shape(name)[1]
    activations = np.random.default_rng(0).standard_normal((ROWS, inputs), np.float32)
    ours, theirs = NativeThread("trial"), NativeThread("trial")  # a thread's matrix unit is set up for one of them
    times: dict[str, float] = {}
    results: dict[str, npt.NDArray[np.float32]] = {}
    with ExitStack() as ends:
        ends.callback(ours.close)
        ends.callback(theirs.close)
        run = theirs.run(lambda: ends.enter_context(_llama_cpp(weights, name, outputs, activations, repack=repack)))
        product = Product(Quantized.of(_first(weights.blocks(name), outputs), outputs, inputs))
        works: dict[str, tuple[NativeThread, Callable[[], Any]]]
        works = {"llama.cpp": (theirs, run), "onnxruntime": (ours, functools.partial(_multiply, product, activations))}
        for _ in range(TURNS):
            for kind, (thread, work) in works.items():
                seconds, results[kind] = thread.run(_timed, work)
                times[kind] = min(times.get(kind, math.inf), seconds)
    _check_close(results["onnxruntime"], results["llama.cpp"])
    return times["llama.cpp"] / times["onnxruntime"]


def _timed(work: Callable[[], npt.NDArray[np.float32]]) -> tuple[float, npt.NDArray[np.float32]]:
    began = time.thread_time()
    result = work()
    return time.thread_time() - began, result


def _check_close(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
    difference = float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-30))
    if not difference <= CLOSE:
        raise NativeError(
            expected=f"a product like llama.cpp's, within {CLOSE:.0%}",
            got=f"{difference:.0%} between them",
            fix="leave prompt_engine at auto",
        )


# --- onnxruntime's ---


def _first(blocks: Iterator[npt.NDArray[np.float32]], outputs: int) -> Iterator[npt.NDArray[np.float32]]:
    """The first rows of a matrix."""
    for block in blocks:
        yield block[:outputs]
        outputs -= len(block)
        if outputs <= 0:
            return


def _multiply(product: Product, activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """With the rounding, which several products share where the activations are the same."""
    result = np.empty((len(activations), product.outputs), np.float32)
    quantized, scales = np.empty(activations.shape, np.uint8), np.empty(len(activations), np.float32)
    quantize(activations.ctypes.data, product.inputs, quantized, scales)
    product.compute(quantized, scales, result.ctypes.data)
    return result


# --- llama.cpp's ---


@contextmanager
def _llama_cpp(
    weights: Weights, name: str, outputs: int, activations: npt.NDArray[np.float32], *, repack: bool
) -> Iterator[Callable[[], npt.NDArray[np.float32]]]:
    """What multiplies with the first ``outputs`` rows of a matrix, in the buffer that a load would take for it."""
    device = ggml_function("ggml_backend_dev_by_type", _P, ctypes.c_int)(CPU)
    plain = ggml_function("ggml_backend_dev_buffer_type", _P, _P)(device)
    supported = ggml_function("ggml_backend_dev_supports_op", ctypes.c_bool, _P, _P)
    data = weights.stored(name, outputs)
    with ExitStack() as ends:
        for buffer_type in [*(special_buffers() if repack else ()), plain]:
            with ExitStack() as tried:
                graph = _graph(tried, weights, name, outputs, activations, buffer_type, plain)
                if not supported(device, graph.product):
                    continue
                ends.push(tried.pop_all())
                break
        _set(graph.matrix, data)
        _set(graph.rows, np.ascontiguousarray(activations))
        backend = ggml_function("ggml_backend_dev_init", _P, _P, ctypes.c_char_p)(device, None)
        ends.callback(ggml_function("ggml_backend_free", None, _P), backend)
        _set_threads(device, backend)
        result = np.empty((len(activations), outputs), np.float32)

        def compute() -> npt.NDArray[np.float32]:
            ggml_function("ggml_backend_graph_compute", ctypes.c_int, _P, _P)(backend, graph.address)
            ggml_function("ggml_backend_tensor_get", None, _P, _P, _SIZE, _SIZE)(
                graph.product, result.ctypes.data, 0, result.nbytes
            )
            return result

        yield compute


class _Graph:
    """Addresses of tensors, and of the graph that has one product."""

    def __init__(self, matrix: int, rows: int, product: int, address: int) -> None:
        self.matrix, self.rows, self.product, self.address = matrix, rows, product, address


def _graph(
    ends: ExitStack, weights: Weights, name: str, outputs: int, activations: Any, buffer_type: int, plain: int
) -> _Graph:
    inputs = weights.shape(name)[1]
    start = ggml_function("ggml_init", _P, InitParameters)
    first, second = (start(InitParameters(_ARENA, None, True)) for _ in range(2))
    for context in (first, second):
        ends.callback(ggml_function("ggml_free", None, _P), context)
    new = ggml_function("ggml_new_tensor_2d", _P, _P, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    matrix = new(first, weights.tensors[name].type, inputs, outputs)
    rows = new(second, F32, inputs, len(activations))
    _allocate(ends, first, buffer_type)
    product = ggml_function("ggml_mul_mat", _P, _P, _P, _P)(second, matrix, rows)
    _allocate(ends, second, plain)
    graph = ggml_function("ggml_new_graph", _P, _P)(second)
    ggml_function("ggml_build_forward_expand", None, _P, _P)(graph, product)
    return _Graph(matrix, rows, product, graph)


def _allocate(ends: ExitStack, context: int, buffer_type: int) -> None:
    buffer = ggml_function("ggml_backend_alloc_ctx_tensors_from_buft", _P, _P, _P)(context, buffer_type)
    if not buffer:
        raise NativeError(expected="memory for a trial", got="too little", fix="choose prompt_engine llama.cpp")
    ends.callback(ggml_function("ggml_backend_buffer_free", None, _P), buffer)


def _set(tensor: int, data: npt.NDArray[Any]) -> None:
    ggml_function("ggml_backend_tensor_set", None, _P, _P, _SIZE, _SIZE)(tensor, data.ctypes.data, 0, data.nbytes)


def _set_threads(device: int, backend: int) -> None:
    registry = ggml_function("ggml_backend_dev_backend_reg", _P, _P)(device)
    address = ggml_function("ggml_backend_reg_get_proc_address", _P, _P, ctypes.c_char_p)(
        registry, b"ggml_backend_set_n_threads"
    )
    ctypes.CFUNCTYPE(None, _P, ctypes.c_int)(address)(backend, 1)
