"""The big checkpoints' shapes and what they need on paper: bytes by llama.cpp's type rules, rates by bandwidth.

``python -m llava_edge.benchmark.rehearsal.on_paper`` prints the table of ``docs/sharding.md``. The rehearsal
checks the bytes against files that llama.cpp wrote; the rates are estimates from data sheets.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...runtime.ggml.types import tensor_bytes
from ..seeded.big_shapes import CONTEXT, GIB, SHAPES, BigShape

RECIPES = ("f16", "q8_0", "q4_k_m", "iq4_xs")
"""What the table chooses from, best first."""
KV_TYPES = ("f16", "q8_0")


def weight_bytes(shape: BigShape, recipe: str) -> int:
    """Bytes of all matrices in ``recipe``, of the types that llama.cpp's quantizer gives them."""
    types = shape.llm.stored_types(recipe)
    return sum(tensor_bytes(types[name], size) for name, size in shape.matrices().items())


def kv_bytes(shape: BigShape, positions: int, kind: str = "f16") -> int:
    """Bytes of keys and values for ``positions``."""
    return 2 * shape.layers * tensor_bytes(kind, (positions, shape.kv_dim))


@dataclass(frozen=True)
class Machines:
    """GPUs that share a model. ``bandwidth`` bytes/s and ``flops`` of one; ``network`` bytes/s, 0 in one machine."""

    name: str
    count: int
    memory: int
    bandwidth: float
    flops: float
    network: float = 0.0


MACHINES = (
    Machines("2 × 24 GB", 2, 24 * GIB, 936e9, 71e12),
    Machines("2 × 48 GB", 2, 48 * GIB, 768e9, 155e12),
    Machines("4 × 24 GB", 4, 24 * GIB, 936e9, 71e12),
    Machines("8 × 80 GB", 8, 80 * GIB, 2039e9, 312e12),
    Machines("3 desktops, 24 GB each, 10 GbE", 3, 24 * GIB, 936e9, 71e12, 1.1e9),
)
"""RTX 3090, RTX A6000, A100 80 GB by their data sheets (bytes/s; dense f16 operations/s, f32 sums)."""
KEPT_FREE = 2 * GIB
"""Left on each GPU: 1 GiB for computing buffers and the vision tower, 1 GiB for the driver."""
BATCH = 512
HOP_SECONDS = 0.0005
"""One step over a network: a few messages there and back."""
REACHED = {"decode": 0.6, "prefill": 0.4}
"""Shares of bandwidth and arithmetic that llama.cpp usually reaches on such GPUs: an assumption."""


def choose(shape: BigShape, machines: Machines) -> tuple[str, str] | None:
    """The best recipe and KV type that fit ``CONTEXT`` positions; None where nothing does."""
    room = machines.count * (machines.memory - KEPT_FREE)
    for recipe in RECIPES:
        for kind in KV_TYPES:
            if weight_bytes(shape, recipe) + kv_bytes(shape, CONTEXT, kind) <= room:
                return recipe, kind
    return None


def rates(shape: BigShape, machines: Machines, recipe: str) -> tuple[float, float]:
    """Tokens a second when decoding, positions a second of prefill: one GPU after the other."""
    crossings = machines.count if machines.network else 0  # to each machine; the last one returns logits
    carried = shape.dim * 4
    step = weight_bytes(shape, recipe) / (machines.bandwidth * REACHED["decode"]) + crossings * HOP_SECONDS
    batch = 2 * shape.parameters * BATCH / (machines.flops * REACHED["prefill"])
    if machines.network:
        step += crossings * carried / machines.network
        batch += crossings * (HOP_SECONDS + carried * BATCH / machines.network)
    return 1 / step, BATCH / batch


def table() -> str:
    """The Markdown table."""
    lines = [
        "| model | GPUs | weights | KV, 4096 positions | left a GPU | decode | prefill | first load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for shape in SHAPES.values():
        lines += [_row(shape, machines) for machines in MACHINES]
    return "\n".join(lines)


def _row(shape: BigShape, machines: Machines) -> str:
    chosen = choose(shape, machines)
    if chosen is None:
        least = weight_bytes(shape, RECIPES[-1]) + kv_bytes(shape, CONTEXT, "q8_0")
        return f"| {shape.name} | {machines.name} | does not fit: {least / 1e9:.0f} GB at least | | | | | |"
    recipe, kind = chosen
    weights, cache = weight_bytes(shape, recipe), kv_bytes(shape, CONTEXT, kind)
    left = machines.memory - (weights + cache) / machines.count
    decode, prefill = rates(shape, machines, recipe)
    load = f"{weights * (machines.count - 1) / machines.count / machines.network:.0f} s" if machines.network else "disk"
    return (
        f"| {shape.name} | {machines.name} | {recipe} {weights / 1e9:.1f} GB | {kind} {cache / 1e9:.1f} GB "
        f"| {left / 1e9:.1f} GB | {decode:.0f}/s | {prefill:.0f}/s | {load} |"
    )


if __name__ == "__main__":
    print(table())
