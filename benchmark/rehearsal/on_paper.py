"""What fits where, and how fast at best: the planner's answers for the largest models, as a table.

``python -m llava_edge.benchmark.rehearsal.on_paper`` prints the table of ``docs/sharding.md``. The bytes are the
planner's, which its tests hold against llama.cpp; the rates are estimates from data sheets.
"""

from __future__ import annotations

from ...runtime.planning.llm_memory import kv_bytes
from ...runtime.planning.placement import Device
from ...runtime.planning.planner import Plan, Request, make_plan
from ...runtime.planning.rates import rates
from ...runtime.planning.shape_sources import preset_shape
from ...runtime.planning.shapes import ModelShape, llm_bytes

MODELS = ("llava-72b", "llava-110b")
RECIPES = ("f16", "q8_0", "q4_k_m", "iq4_xs")
"""What the table chooses from, best first."""
CONTEXT, MICRO_BATCH = 4096, 512
GIB = 2**30
DECODE_SHARE, PREFILL_SHARE = 0.6, 0.4
"""Shares of bandwidth and arithmetic that llama.cpp usually reaches on such GPUs: an assumption."""
NETWORK, HOP_SECONDS = 1.1e9, 0.0005
"""Bytes a second of 10 GbE, and one step over it: a few messages there and back."""
HOST = Device("host", "cpu", 64 * GIB)


def _gpus(count: int, gib: int, bandwidth: float, flops: float, *, workers: int = 0) -> tuple[Device, ...]:
    """GPUs of one kind, the first ``workers`` of them in other machines, by their data sheet."""
    return tuple(
        Device(
            f"GPU {index}", "rpc" if index < workers else "gpu", gib * GIB, bandwidth * DECODE_SHARE,
            flops * PREFILL_SHARE,
        )
        for index in range(count)
    )  # fmt: skip


MACHINES = {
    "2 × 24 GB": _gpus(2, 24, 936e9, 71e12),
    "2 × 48 GB": _gpus(2, 48, 768e9, 155e12),
    "4 × 24 GB": _gpus(4, 24, 936e9, 71e12),
    "8 × 80 GB": _gpus(8, 80, 2039e9, 312e12),
    "3 desktops, 24 GB each, 10 GbE": _gpus(3, 24, 936e9, 71e12, workers=2),
}
"""RTX 3090, RTX A6000, A100 80 GB by their data sheets (bytes/s; dense f16 operations/s, f32 sums)."""


def best_plan(model: ModelShape, gpus: tuple[Device, ...]) -> Plan | None:
    """The plan of the best recipe whose layers all fit on ``gpus`` with ``CONTEXT`` positions; None without one."""
    for recipe in RECIPES:
        plan = make_plan(model, [*gpus, HOST], Request(recipe=recipe, context=CONTEXT, micro_batch=MICRO_BATCH))
        if plan.fits and plan.placement.gpu_layers > model.llm.layers:
            return plan
    return None


def seconds(plan: Plan) -> tuple[float, float]:
    """Of one decoded token and of one batch of prefill: the planner's bounds, and what a network adds."""
    bound = rates(plan, micro_batch=MICRO_BATCH)
    assert bound.decode is not None
    assert bound.prefill is not None
    crossings = len(plan.placement.workers)
    hidden_state = plan.model.llm.dim * 4 / NETWORK
    return (
        1 / bound.decode + crossings * (HOP_SECONDS + hidden_state),
        MICRO_BATCH / bound.prefill + crossings * (HOP_SECONDS + MICRO_BATCH * hidden_state),
    )


def table() -> str:
    """The Markdown table."""
    lines = [
        "| model | GPUs | weights | KV, 4096 positions | left a GPU | decode | prefill | first load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in map(preset_shape, MODELS):
        lines += [_row(model, name, gpus) for name, gpus in MACHINES.items()]
    return "\n".join(lines)


def _row(model: ModelShape, name: str, gpus: tuple[Device, ...]) -> str:
    plan = best_plan(model, gpus)
    if plan is None:
        cache = model.llm.layers * kv_bytes(model.llm, CONTEXT, ("q8_0", "q8_0"))
        least = llm_bytes(model.llm, RECIPES[-1]).total + cache
        return f"| {model.name} | {name} | does not fit: {least / 1e9:.0f} GB at least | | | | | |"
    used = [use for use in plan.uses if use.device.kind != "cpu"]
    weights, cache = sum(use.weights for use in plan.uses), sum(use.kv for use in plan.uses)
    sent = sum(use.weights for use in used if use.device.kind == "rpc")
    token, batch = seconds(plan)
    load = f"{sent / NETWORK:.0f} s" if sent else "disk"
    return (
        f"| {model.name} | {name} | {plan.recipe} {weights / 1e9:.1f} GB | {plan.placement.kv_type_k} "
        f"{cache / 1e9:.1f} GB | {min(use.free for use in used) / 1e9:.1f} GB | {1 / token:.0f}/s "
        f"| {MICRO_BATCH / batch:.0f}/s | {load} |"
    )


if __name__ == "__main__":
    print(table())
