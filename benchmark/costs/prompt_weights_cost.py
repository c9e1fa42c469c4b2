"""Where the prompt engine's int8 weights come from: packed in memory, a mapped file, or made again for each prompt.

``python -m llava_edge.benchmark.costs.prompt_weights_cost MODEL.gguf`` takes the matrices of one layer and multiplies a
prompt of 2048 positions with each, in chunks of 512 and at once. Times are processor time of one thread.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.onnx_runtime.graphs import CONTRIB, Given, Node, model_bytes
from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.prompt_engine.products import Quantized
from ...runtime.prompt_engine.weights import Weights
from ..speed.machine import describe_machine, machine_line
from .prompt_engine_trials import least_milliseconds

POSITIONS, CHUNK, TURNS = 2048, 512, 2
BLOB = "packed.bin"


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of several turns."""
    return least_milliseconds(work, TURNS) / 1e3


def graph(inputs: int, outputs: int, *, constant: bool) -> bytes:
    """A product of uint8 rows with int8 weights, which are a constant or an input."""
    needed: dict[str, Any] = {"one": np.float32(1), "scale": np.float32(1), "zero": np.uint8(128)}
    asked: dict[str, tuple[str, tuple[int | str, ...]]] = {"x": ("uint8", ("rows", inputs))}
    if constant:
        needed["w"] = Given("int8", (inputs, outputs))
    else:
        asked["w"] = "int8", (inputs, outputs)
    node = Node("MatMulIntegerToFloat", ["x", "w", "one", "scale", "zero"], ["y"], domain=CONTRIB)
    return model_bytes([node], inputs=asked, outputs={"y": ("float32", ("rows", outputs))}, constants=needed)


def opened(model: bytes | str, weights: npt.NDArray[np.int8] | None = None, keep: Path | None = None) -> Any:
    """A session on one thread; with ``keep`` it leaves there a model with the weights as it packed them."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    if weights is not None:
        options.add_external_initializers(["w"], [onnxruntime.OrtValue.ortvalue_from_numpy(weights)])
    if keep is not None:
        options.optimized_model_filepath = str(keep)
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", BLOB)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def prompt(session: Any, rows: npt.NDArray[np.uint8], **weights: Any) -> list[float]:
    """Seconds of a prompt by chunks, and at once."""

    def run(step: int) -> None:
        for first in range(0, len(rows), step):
            session.run(None, {"x": rows[first : first + step], **weights})

    return [seconds(lambda step=step: run(step)) for step in (CHUNK, POSITIONS)]  # type: ignore[misc]


def measure(weights: Weights, name: str, folder: Path) -> dict[str, list[float]]:
    """Of one matrix, for each way: seconds of making, of a prompt by chunks and at once, bytes on disk."""
    outputs, inputs = weights.shape(name)
    rows = np.random.default_rng(0).integers(0, 256, (POSITIONS, inputs), np.uint8)
    rounding = seconds(lambda: Quantized.of(weights.blocks(name), outputs, inputs))
    matrix = Quantized.of(weights.blocks(name), outputs, inputs).columns
    model = graph(inputs, outputs, constant=True)
    packing = seconds(lambda: opened(model, matrix))
    memory = prompt(opened(model, matrix), rows)
    opened(model, matrix, folder / "packed.onnx")
    opening = seconds(lambda: opened(str(folder / "packed.onnx")))
    mapped = prompt(opened(str(folder / "packed.onnx")), rows)
    np.save(folder / "plain.npy", matrix)
    plain = np.load(folder / "plain.npy", mmap_mode="r")
    unpacked = prompt(opened(graph(inputs, outputs, constant=False)), rows, w=plain)
    blob = (folder / BLOB).stat().st_size
    making = rounding + packing
    return {
        "packed in memory": [making, *memory, 0],
        "file with what onnxruntime packed": [opening, *mapped, blob],
        "file of int8, packed at each product": [0, *unpacked, matrix.nbytes],
        "made again for each prompt": [0, *(making + one for one in memory), 0],
    }


def report(found: Sequence[dict[str, list[float]]], layers: int, weights: int) -> str:
    """A table of what ``layers`` such layers take."""
    lines = ["| | making, s | prompt by 512, s | prompt at once, s | disk, bytes a weight |", "|---|---|---|---|---|"]
    for kind in found[0]:
        making, chunks, once, disk = (sum(one[kind][index] for one in found) for index in range(4))
        times = " | ".join(f"{layers * one:.2f}" for one in (making, chunks, once))
        lines.append(f"| {kind} | {times} | {disk / weights:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a GGUF file")
    with closing(Weights(parser.parse_args().model)) as weights, tempfile.TemporaryDirectory() as folder:
        names = [name for name in weights.tensors if name.startswith("blk.0.")]
        layers = 1 + max(int(name.split(".")[1]) for name in weights.tensors if name.startswith("blk."))
        found = [measure(weights, name, Path(folder)) for name in names]
        size = sum(math.prod(weights.shape(name)) for name in names)
    print(f"{machine_line(describe_machine())}\n\n{report(found, layers, size)}")


if __name__ == "__main__":
    main()
