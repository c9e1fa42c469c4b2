"""What to change where a plan does not fit: the nearest plans that do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..ggml.llm_recipes import LLM_RECIPES
from ..options import CONTEXT_STEP, padded_context
from .placement import Device
from .planner import Plan, Request, make_plan
from .shapes import ModelShape

SHORTEST_TEXT = 256
"""Positions beside one picture that a shortened context must leave."""

MOST_GPUS = 8
"""GPUs that are proposed in addition."""

USUAL_GPU = 24 * 2**30
"""Memory of a proposed GPU where none is given to take after."""


@dataclass(frozen=True)
class Suggestion:
    """A change in words and as options of ``llava-edge plan``, with the plan it leads to."""

    text: str
    change: dict[str, Any]
    plan: Plan


def suggestions(plan: Plan, devices: Sequence[Device], request: Request) -> list[Suggestion]:
    """Changes that make it fit, the nearest first: cache, type, context, one more GPU, two at once."""
    if plan.fits:
        return []
    return list(_changes(plan, devices, dataclasses.replace(request, recipe=plan.recipe, context=plan.context)))


def _changes(plan: Plan, devices: Sequence[Device], request: Request) -> Iterator[Suggestion]:
    model = plan.model
    if (most := (model.llm.context_length - SHORTEST_TEXT) // model.picture_tokens) < request.images:
        request = dataclasses.replace(request, images=most)
        yield from _try(f"at most {most} pictures", {"images": most}, model, devices, request)
    if request.kv_type_k or request.kv_type_v:
        change: dict[str, Any] = {"kv_type": "q8_0"}
        yield from _try("q8_0 for the KV cache", change, model, devices, request)
    smaller = list(LLM_RECIPES)[list(LLM_RECIPES).index(plan.recipe) + 1 :]
    found: list[Suggestion] = []
    for recipe in smaller:
        found = list(_try(f"{recipe} instead of {plan.recipe}", {"llm": recipe}, model, devices, request))
        yield from found
        if found:
            break
    yield from _shorter(model, devices, request, {})
    if not any(one.kind == "gpu" for one in devices):
        yield from _more_memory(plan, devices, request)
    yield from _more_gpus(model, devices, request)
    if smaller and not found:
        yield from _shorter(model, devices, request, {"llm": smaller[-1]})


def _try(
    text: str, change: dict[str, Any], model: ModelShape, devices: Sequence[Device], request: Request
) -> Iterator[Suggestion]:
    """The suggestion, if it fits."""
    plan = make_plan(model, devices, _changed(request, change))
    if plan.fits:
        yield Suggestion(text, change, plan)


def _changed(request: Request, change: dict[str, Any]) -> Request:
    values: dict[str, Any] = {
        "recipe": change.get("llm", request.recipe),
        "context": change.get("ctx", request.context),
        "images": change.get("images", request.images),
    }
    if "kv_type" in change:
        values |= {"kv_type_k": change["kv_type"], "kv_type_v": change["kv_type"], "flash_attention": None}
    return dataclasses.replace(request, **values)


def _shorter(
    model: ModelShape, devices: Sequence[Device], request: Request, change: dict[str, Any]
) -> Iterator[Suggestion]:
    """The longest context that fits and holds a picture."""
    low = padded_context(model.picture_tokens + SHORTEST_TEXT) // CONTEXT_STEP
    high = min(request.context, model.llm.context_length) // CONTEXT_STEP
    best: Suggestion | None = None
    while low <= high:
        middle = (low + high) // 2
        context = middle * CONTEXT_STEP
        text = f"a context of {context}" + (f" and {change['llm']}" if change else "")
        found = list(_try(text, {**change, "ctx": context}, model, devices, request))
        if found:
            best, low = found[0], middle + 1
        else:
            high = middle - 1
    if best is not None:
        yield best


def _more_memory(plan: Plan, devices: Sequence[Device], request: Request) -> Iterator[Suggestion]:
    """More free memory on the host, rounded up to whole GiB: what helps where there is no GPU."""
    lacking = sum(max(0, one.device.reserve - one.free) for one in plan.uses)
    for share in (1.0, 1.1, 1.25):  # what is kept in reserve grows with the memory
        more = math.ceil(lacking * share / 2**30) * 2**30
        larger = [dataclasses.replace(one, memory=one.memory + more * (one.kind == "cpu")) for one in devices]
        total = next(one.memory for one in larger if one.kind == "cpu")
        found = list(_try(f"{more >> 30} GiB more free memory", {"host": total}, plan.model, larger, request))
        if found and more:
            yield found[0]
            return


def _more_gpus(model: ModelShape, devices: Sequence[Device], request: Request) -> Iterator[Suggestion]:
    """The fewest more GPUs like the largest one here."""
    largest = max(
        (one for one in devices if one.kind == "gpu"),
        key=lambda one: one.memory,
        default=Device("gpu", "gpu", USUAL_GPU),
    )
    if request.tensor_split or request.gpu_layers == 0 or request.split_mode == "none":
        return
    more = list(devices)
    for count in range(1, MOST_GPUS + 1):
        more.append(dataclasses.replace(largest, name=f"{largest.name}+{count}"))
        size = f"{largest.memory / 2**30:g}G"
        text = f"{count} more GPU{'s' if count > 1 else ''} of {size}"
        found = list(_try(text, {"gpus": count, "memory": largest.memory}, model, more, request))
        if found:
            yield found[0]
            return
