"""The plan in words: a table for people, a dictionary for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...runtime.planning.planner import Plan
from ...runtime.planning.rates import rates
from ...runtime.planning.suggestions import Suggestion
from .answers import LEAST_POSITIONS
from .visible import name_of

_GIGA = 2**30
_COLUMNS = ("total", "weights", "kv", "compute", "vision", "int8", "free")


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
        **({} if plan.fits else {"reasons": list(plan.reasons)}),
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
                "prompts": one.prompts,
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


def plan_table(plan: Plan, nearest: Sequence[Suggestion], *, short: bool = False) -> str:
    """The plan as text; sizes in GiB where no unit is said.

    ``short`` says that ``ask`` reads short prompts without the prompt engine's weights.
    """
    speed = rates(plan)
    example = "--gpu a=24G@1008" if any(one.device.kind == "gpu" for one in plan.uses) else "--host 64G@60"
    lines = [
        f"{name_of(plan.model.name)}: {_count(plan.model.llm.parameters)} language model in {plan.recipe},"
        f" vision {plan.vision_recipe}",
        f"context {plan.context} positions, pictures {plan.images} of at most {plan.picture_tokens}",
        "",
        *_devices(plan),
        "",
        f"placement  {name_of(plan.placement.describe())}",
        *([_SHORT] if short and any(one.prompts for one in plan.uses) else []),
        f"at most    {_speed(speed.prefill, speed.decode, example)}",
        f"fits       {'yes' if plan.fits else 'no'}",
    ]
    if not plan.fits:
        lines += _under("because", [name_of(one) for one in plan.reasons])
        lines += _under("would fit" if nearest else "", [one.text for one in nearest] or [_NOTHING])
    return "\n".join(lines)


_SHORT = f"{'':<11}(ask reads a prompt of less than some {LEAST_POSITIONS} positions without the column int8)"
_NOTHING = "nothing near: another model, or a larger machine"


def _under(name: str, said: Sequence[str]) -> list[str]:
    """Sentences in a column, the name of the column in front of the first."""
    return [f"{name if index == 0 else '':<11}{text}" for index, text in enumerate(said)]


def _devices(plan: Plan) -> list[str]:
    """The table of devices; a column is as wide as what stands in it. The prompt engine's weights have one if any."""
    names = [name for name in _COLUMNS if name != "int8" or any(one.prompts for one in plan.uses)]
    rows = [["GiB", "layers", *names]]
    for one in plan.uses:
        sizes = [one.device.memory, one.weights, one.kv, one.compute, one.vision]
        sizes += [one.prompts, one.free] if "int8" in names else [one.free]
        rows.append([name_of(one.device.name), str(one.layers), *map(_size, sizes)])
    least = [22, 7, *[9] * len(names)]
    widths = [max(wide, *(len(row[index]) + 2 for row in rows)) for index, wide in enumerate(least)]
    marks = ["", *("" if one.fits else f"  below the reserve of {_size(one.device.reserve)}" for one in plan.uses)]
    return [
        f"{row[0]:<{widths[0]}}"
        + "".join(f"{cell:>{wide}}" for cell, wide in zip(row[1:], widths[1:], strict=True))
        + mark
        for row, mark in zip(rows, marks, strict=True)
    ]


def _size(size: int) -> str:
    """Bytes in GiB, or in a smaller unit that is said where they would be 0.00."""
    if size == 0 or abs(size) >= _GIGA // 100:
        return f"{size / _GIGA:.2f}"
    return f"{size / 2**20:.2f} MiB" if abs(size) >= 2**20 // 100 else f"{size} B"


def _count(number: int) -> str:
    """Parameters in billions, or below a hundredth of one in millions."""
    return f"{number / 1e9:.2f}B" if number >= 1e7 else f"{number / 1e6:.2f}M" if number >= 1e4 else str(number)


def _speed(prefill: float | None, decode: float | None, example: str) -> str:
    if decode is None:
        return f"unknown: state the devices' bandwidth, as in {example} (GB/s), and TFLOP/s after a comma"
    read = f"prefill {_rate(prefill, 0)} tokens/s, " if prefill is not None else "prefill unknown (no TFLOP/s), "
    return f"{read}decode {_rate(decode, 1)} tokens/s with a full context"


def _rate(rate: float, digits: int) -> str:
    """Tokens a second; slow ones are not rounded to nothing."""
    return f"{rate:,.{digits}f}" if rate >= 1 else f"{rate:.2g}"
