"""What was tried for the prompt engine, beside what it does: speed by shapes of a 1B model, accuracy by a real one.

``python -m llava_edge.benchmark.costs.prompt_engine_trials`` prints CPU times of one thread;
``--reference F16.gguf --candidate Q4.gguf TEXT`` prints the divergence with other rotations, with weights of 7 bits,
and with int8 products of one kind alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from ...runtime.distances import kl_divergence
from ...runtime.onnx_runtime.graphs import CONTRIB, Node, model_bytes
from ...runtime.prompt_engine import attention, products
from ...runtime.prompt_engine.prompt_engine import PromptEngine
from ..speed.machine import describe_machine, machine_line
from .prompt_engine_cost import read_pieces

DIM, INNER, HEADS, GROUPS, SIZE = 2048, 8192, 32, 8, 64
"""The 1B shape."""
POSITIONS = 1978
KINDS = {
    "queries, keys, values": ("attn_q", "attn_k", "attn_v"),
    "attention's output": ("attn_output",),
    "gate and up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}
Row = tuple[str, float]
Numbers = npt.NDArray[Any]


def least_milliseconds(action: Callable[[], object], runs: int = 5) -> float:
    """CPU time of the calling thread, in the run that took least; one before it warms up."""
    found = []
    for _ in range(runs + 1):
        began = time.thread_time()
        action()
        found.append(time.thread_time() - began)
    return min(found[1:]) * 1e3


def feed_forward_rows(rows: int = 512) -> Iterator[Row]:
    """A feed-forward at once, in pieces, and as the products that it consists of."""
    draw = np.random.default_rng(0)
    shapes = (INNER, DIM), (INNER, DIM), (DIM, INNER)
    made = [products.Quantized.of(iter([draw.standard_normal(shape, np.float32)]), *shape) for shape in shapes]
    whole, parts = products.FeedForward(*made), [products.Product(one) for one in made]
    x, y = draw.standard_normal((rows, DIM), np.float32), np.empty((rows, DIM), np.float32)

    def in_pieces(step: int) -> None:
        for first in range(0, rows, step):
            whole.compute(x[first:].ctypes.data, step, y[first:].ctypes.data)

    for step in (64, 128, 256, rows):
        yield f"feed-forward of {rows} rows, {step} at a time", least_milliseconds(lambda: in_pieces(step))  # noqa: B023
    wide = np.empty((3, rows, INNER), np.float32)

    def alone() -> None:
        for activations, inputs, product, results in (
            (x, DIM, parts[0], wide[0]), (x, DIM, parts[1], wide[1]), (wide[2], INNER, parts[2], y),
        ):  # fmt: skip
            numbers, scales = np.empty((rows, inputs), np.uint8), np.empty(rows, np.float32)
            products.quantize(activations.ctypes.data, inputs, numbers, scales)
            product.compute(numbers, scales, results.ctypes.data)
            if results is wide[1]:
                products.gate([one.ctypes.data for one in wide], rows, INNER)

    yield "the same, product after product", least_milliseconds(alone)


def attention_rows(keys: int = 1024, rows: int = 64) -> Iterator[Row]:
    """Scores of a block, and attention of a whole layer by onnxruntime's own operator."""
    draw = np.random.default_rng(0)
    shared = HEADS // GROUPS
    q, k, v = (draw.standard_normal(shape, np.float32) for shape in ((shared, rows, SIZE), (keys, SIZE), (keys, SIZE)))
    session, mask = attention._session(0.125), np.zeros((rows, keys), np.float32)
    block = least_milliseconds(lambda: session.run(None, {"q": q, "k": k, "v": v, "m": mask}), 20)
    count = POSITIONS * (POSITIONS + rows) / 2 * HEADS
    yield (
        f"attention, one layer of {POSITIONS} positions, from a block of {shared} heads",
        block * count / mask.size / shared,
    )
    names = ("query", "key", "value", "past_key", "past_value", "lengths", "total")
    grouped = Node(
        "GroupQueryAttention", names, ["y", "keys", "values"], {"num_heads": HEADS, "kv_num_heads": GROUPS}, CONTRIB
    )
    past = ("float32", (1, GROUPS, "past", SIZE))
    wide = {
        name: ("float32", (1, "rows", heads * SIZE))
        for name, heads in zip(names, (HEADS, GROUPS, GROUPS), strict=False)
    }
    model = model_bytes(
        [grouped],
        inputs={**wide, "past_key": past, "past_value": past, "lengths": ("int32", (1,)), "total": ("int32", ())},
        outputs={"y": wide["query"], "keys": past, "values": past},
        constants={},
    )
    given = {
        name: draw.standard_normal((1, POSITIONS, heads * SIZE), np.float32)
        for name, heads in (("query", HEADS), ("key", GROUPS), ("value", GROUPS))
    }
    given |= dict.fromkeys(("past_key", "past_value"), np.empty((1, GROUPS, 0, SIZE), np.float32))
    given |= {"lengths": np.array([POSITIONS - 1], np.int32), "total": np.array(POSITIONS, np.int32)}
    whole = products.open_session(model)
    yield "the same by GroupQueryAttention", least_milliseconds(lambda: whole.run(["y"], given), 2)


@contextmanager
def only(kind: tuple[str, ...]) -> Iterator[None]:
    """int8 products of these matrices alone; the others and attention are llama.cpp's."""
    claimed = PromptEngine.claims

    def claims(self: PromptEngine, node: int) -> bool:
        self._plain = False
        name = products_name(node)
        return claimed(self, node) and (name is None or name in kind)

    with mock.patch.object(PromptEngine, "claims", claims):
        yield


def products_name(node: int) -> str | None:
    """``attn_q`` where a node multiplies with that matrix."""
    from ...runtime.prompt_engine.structures import OPERATIONS, raw

    tensor = raw(node)
    if tensor.op != OPERATIONS["MUL_MAT"]:
        return None
    return str(raw(tensor.src[0]).name.decode()).removesuffix(".weight").rpartition(".")[2]


@contextmanager
def rotated(columns: int, top: int = 127) -> Iterator[None]:
    """Pieces of so many columns rotated together, 1 for none, and the largest magnitude of a weight."""
    made: tuple[Any, ...] = (products._quantizer, products._product, products._feed_forward)
    with mock.patch.object(products, "ROTATED", columns), mock.patch.object(products, "weight_top", return_value=top):
        for one in made:
            one.cache_clear()
        yield
    for one in made:
        one.cache_clear()


def accuracy_rows(reference: Path, candidate: Path, text: str, *, positions: int, pieces: int) -> Iterator[Row]:
    """Mean KL from the reference read by llama.cpp."""
    counts = {"positions": positions, "pieces": pieces}
    expected = list(read_pieces(reference, text, engine="llama.cpp", **counts))

    def divergence(engine: Any) -> float:
        found = read_pieces(candidate, text, engine=engine, **counts)
        return float(np.mean([kl_divergence(one, other) for one, other in zip(expected, found, strict=True)]))

    yield "llama.cpp", divergence("llama.cpp")
    for columns in (1, 32, 64, 128):
        with rotated(columns):
            yield f"rotated by {columns}" if columns > 1 else "not rotated", divergence("onnxruntime")
    with rotated(products.ROTATED, 63):
        yield "weights of 7 bits", divergence("onnxruntime")
    for kind, names in KINDS.items():
        with rotated(1), only(names):
            yield f"not rotated, only {kind}", divergence("onnxruntime")


def main() -> None:
    """Parse the command line, measure and print the rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, help="GGUF in f16 or f32")
    parser.add_argument("--candidate", type=Path, help="the same model quantized")
    parser.add_argument("--positions", type=int, default=256, help="tokens a piece, at least 64")
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("text", type=Path, nargs="?", help="a file of text")
    arguments = parser.parse_args()
    print(f"{machine_line(describe_machine())}\n", flush=True)
    if arguments.reference and arguments.candidate and arguments.text:
        text = arguments.text.read_text(encoding="utf-8")
        counts = {"positions": arguments.positions, "pieces": arguments.pieces}
        for name, value in accuracy_rows(arguments.reference, arguments.candidate, text, **counts):
            print(f"| {name} | {value:.2e} |", flush=True)
    else:
        for trial in (feed_forward_rows, attention_rows):
            for name, value in trial():
                print(f"| {name} | {value:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()
