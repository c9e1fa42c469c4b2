"""The plan in words: a table for people, a dictionary for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...runtime.planning.planner import Plan
from ...runtime.planning.rates import rates
from ...runtime.planning.suggestions import Suggestion
from .visible import visible

_GIGA = 2**30
_COLUMNS = ("total", "weights", "kv", "compute", "vision", "free")


def plan_dictionary(plan: Plan, nearest: Sequence[Suggestion]) -> dict[str, Any]:
    """The object of ``plan --json``; sizes in bytes, rates in tokens a second or null."""
    speed = rates(plan)
    return {
        "model": plan.model.name,
        "llm": plan.recipe,
        "vision": plan.vision_recipe,
        "parameters": plan.model.llm.parameters,
        "context": plan.context,
        "images": plan.images,
        "picture_tokens": plan.picture_tokens,
        "fits": plan.fits,
        "devices": [
            {
                "name": one.device.name,
                "kind": one.device.kind,
                "layers": one.layers,
                "total": one.device.memory,
                "weights": one.weights,
                "kv": one.kv,
                "compute": one.compute,
                "vision": one.vision,
                "free": one.free,
                "reserve": one.device.reserve,
            }
            for one in plan.uses
        ],
        "placement": dataclasses.asdict(plan.placement),
        "rates": dataclasses.asdict(speed),
        **({} if plan.fits else {"suggestion": _suggestion(nearest), "alternatives": [_entry(one) for one in nearest]}),
    }


def _suggestion(nearest: Sequence[Suggestion]) -> dict[str, Any] | None:
    return _entry(nearest[0]) if nearest else None


def _entry(one: Suggestion) -> dict[str, Any]:
    return {"text": one.text, **one.change}


def plan_table(plan: Plan, nearest: Sequence[Suggestion]) -> str:
    """The plan as text; sizes in GiB."""
    speed = rates(plan)
    lines = [
        f"{visible(plan.model.name)}: {plan.model.llm.parameters / 1e9:.2f}B language model in {plan.recipe},"
        f" vision {plan.vision_recipe}",
        f"context {plan.context} positions, pictures {plan.images} of at most {plan.picture_tokens}",
        "",
        f"{'GiB':<22}{'layers':>7}" + "".join(f"{name:>9}" for name in _COLUMNS),
    ]
    for one in plan.uses:
        sizes = (one.device.memory, one.weights, one.kv, one.compute, one.vision, one.free)
        mark = "" if one.fits else f"  below the reserve of {one.device.reserve / _GIGA:.2f}"
        numbers = "".join(f"{size / _GIGA:>9.2f}" for size in sizes)
        lines.append(f"{visible(one.device.name):<22}{one.layers:>7}{numbers}{mark}")
    lines += ["", f"placement  {plan.placement.describe()}", f"at most    {_speed(speed.prefill, speed.decode)}"]
    lines.append(f"fits       {'yes' if plan.fits else 'no'}")
    if not plan.fits:
        said = [one.text for one in nearest] or ["nothing near: a smaller model, or a larger machine"]
        lines += [f"{'would fit' if index == 0 and nearest else '':<11}{text}" for index, text in enumerate(said)]
    return "\n".join(lines)


def _speed(prefill: float | None, decode: float | None) -> str:
    if decode is None:
        return "unknown: state the devices' bandwidth, as in --gpu a=24G@1008 (GB/s), and TFLOP/s after a comma"
    read = f"prefill {prefill:,.0f} tokens/s, " if prefill is not None else "prefill unknown (no TFLOP/s), "
    return f"{read}decode {decode:,.1f} tokens/s with a full context"
