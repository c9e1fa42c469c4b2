"""How fast a plan can be at most, from what its devices are said to do: bandwidth and arithmetic.

Decoding a token reads every weight and the cache once, device after device. Prefill reads the
weights once for each batch, or is bound by arithmetic: two operations a weight and position.
"""

from __future__ import annotations

from dataclasses import dataclass

from .planner import Plan


@dataclass(frozen=True)
class Rates:
    """Tokens a second, upper bounds; None where a device's bandwidth, or for prefill its arithmetic, is not stated."""

    prefill: float | None
    decode: float | None


def rates(plan: Plan, *, micro_batch: int = 512) -> Rates:
    """Bounds with a full context. Time on the network between workers is not in them."""
    busy = [one for one in plan.uses if one.layers]
    if any(not one.device.bandwidth for one in busy):
        return Rates(None, None)
    read = [(one.weights - one.embedding, one) for one in busy]
    decode = 1 / sum((weights + one.kv) / one.device.bandwidth for weights, one in read)
    if any(not one.device.flops for one in busy):
        return Rates(None, decode)
    total = sum(weights for weights, _ in read)
    parameters = plan.model.llm.parameters - plan.model.llm.vocabulary * plan.model.llm.dim
    seconds = 0.0
    for weights, one in read:
        work = 2 * parameters * (weights / total) * micro_batch
        seconds += max(weights / one.device.bandwidth, work / one.device.flops)
    return Rates(micro_batch / seconds, decode)
