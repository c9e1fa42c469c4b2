"""What to change where a plan does not fit: the nearest plans that do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ggml.llm_recipes import LLM_RECIPES
from ..options import CONTEXT_STEP, DEFAULT_MAX_TOKENS, padded_context
from .placement import Device
from .planner import QUESTION, SHORTEST_TEXT, Plan, Request, make_plan
from .shapes import ModelShape

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


@dataclass(frozen=True)
class _Start:
    """Where changes set out from: what was asked for, or that with a ``change`` that does not do alone."""

    model: ModelShape
    devices: Sequence[Device]
    request: Request
    text: str = ""
    change: dict[str, Any] = field(default_factory=dict)

    def after(self, text: str, change: dict[str, Any]) -> _Start:
        """The start with ``change`` made."""
        return dataclasses.replace(
            self,
            request=_changed(self.request, change),
            text=" and ".join(filter(None, (self.text, text))),
            change={**self.change, **change},
        )

    def plan(self) -> Plan:
        """What the planner makes of it."""
        return make_plan(self.model, self.devices, self.request)


def suggestions(plan: Plan, devices: Sequence[Device], request: Request) -> list[Suggestion]:
    """Changes that make it fit, the nearest first; each is whole, and a plan with it fits.

    Of the context: a longer one, fewer pictures, pictures without tiles. Of memory: cache, type, a shorter context,
    fewer pictures, memory, more GPUs, two at once. Both where it takes both.
    """
    if plan.fits:
        return []
    model = plan.model
    if request.detail == "auto":  # with another context or number of pictures these may have their tiles
        model = dataclasses.replace(model, overview_only=False)
    start = _Start(model, devices, dataclasses.replace(request, recipe=plan.recipe))
    if plan.pictures_fit:
        return list(_for_memory(start, plan))
    starts = [start.after(text, change) for text, change in _for_context(plan, request)]
    if found := [one for after in starts for one in _try(after)]:
        return found
    return [one for after in starts for one in _for_memory(after, after.plan())]


def _for_context(plan: Plan, request: Request) -> Iterator[tuple[str, dict[str, Any]]]:
    """Changes after which the pictures fit the context, and the context the model."""
    limit, tokens = plan.model.llm.context_length, plan.model.picture_tokens
    context: dict[str, Any] = {}
    room, words = plan.room, ""
    if plan.context > padded_context(limit):
        context, words = {"ctx": limit}, f"a context of {limit}"
    needed = request.images * tokens
    if needed + SHORTEST_TEXT <= limit:
        longer = min(padded_context(needed + QUESTION + DEFAULT_MAX_TOKENS), limit)
        yield (words, context) if context else (f"a context of {longer}", {"ctx": longer})
        if needed + SHORTEST_TEXT <= room:
            return
    elif request.context and room < limit:  # what the model has is not asked for, and not enough either
        context, words, room = {"ctx": limit}, f"a context of {limit}", limit
    if 0 < (most := (room - SHORTEST_TEXT) // tokens) < request.images:
        fewer = f"at most {most} picture{'s' if most > 1 else ''}"
        yield " and ".join(filter(None, (fewer, words))), {"images": most, **context}
    low = dataclasses.replace(plan.model, overview_only=True).picture_tokens
    if low < tokens and request.images * low + SHORTEST_TEXT <= room:
        yield " and ".join(filter(None, ("pictures without tiles (--detail low)", words))), {"detail": "low", **context}


def _for_memory(start: _Start, plan: Plan) -> Iterator[Suggestion]:
    """Changes after which every device keeps its reserve; ``plan`` is what ``start`` leads to."""
    request = start.request
    if request.prompt_engine == "onnxruntime":
        yield from _try(start.after("llama.cpp as the prompt engine", {"prompt_engine": "llama.cpp"}))
    if request.kv_type_k or request.kv_type_v:
        yield from _try(start.after("q8_0 for the KV cache", {"kv_type": "q8_0"}))
    smaller = [
        start.after(f"{recipe} instead of {plan.recipe}", {"llm": recipe})
        for recipe in list(LLM_RECIPES)[list(LLM_RECIPES).index(plan.recipe) + 1 :]
    ]
    found = next((found for one in smaller if (found := list(_try(one)))), [])
    yield from found
    yield from _shorter(start, plan)
    if "images" not in start.change:
        yield from _largest(
            1,
            request.images - 1,
            lambda most: start.after(f"at most {most} picture{'s' * (most > 1)}", {"images": most}),
        )
    if not any(one.kind == "gpu" for one in start.devices):
        yield from _more_memory(start, plan)
    if request.prompt_engine != "onnxruntime":  # which reads prompts where all layers are on the host
        yield from _more_gpus(start)
    if smaller and not found:
        yield from _shorter(smaller[-1], plan)


def _try(start: _Start, change: dict[str, Any] | None = None) -> Iterator[Suggestion]:
    """What ``start`` has changed, if it fits; ``change`` is said beside it."""
    plan = start.plan()
    if plan.fits:
        yield Suggestion(start.text, {**start.change, **(change or {})}, plan)


def _changed(request: Request, change: dict[str, Any]) -> Request:
    names = {"llm": "recipe", "ctx": "context"} | {name: name for name in ("images", "detail", "prompt_engine")}
    values = {names[key]: value for key, value in change.items() if key in names}
    if "kv_type" in change:
        values |= {"kv_type_k": change["kv_type"], "kv_type_v": change["kv_type"], "flash_attention": None}
    return dataclasses.replace(request, **values)


def _largest(low: int, high: int, at: Callable[[int], _Start]) -> Iterator[Suggestion]:
    """The suggestion ``at`` the largest number from ``low`` to ``high`` that fits, if one does."""
    best: Suggestion | None = None
    while low <= high:
        middle = (low + high) // 2
        if found := list(_try(at(middle))):
            best, low = found[0], middle + 1
        else:
            high = middle - 1
    if best is not None:
        yield best


def _shorter(start: _Start, plan: Plan) -> Iterator[Suggestion]:
    """The longest context below the plan's that fits and holds its pictures."""
    if "ctx" in start.change:
        return
    low = padded_context(plan.images * plan.picture_tokens + SHORTEST_TEXT) // CONTEXT_STEP
    high = (plan.context - 1) // CONTEXT_STEP

    def at(steps: int) -> _Start:
        return start.after(f"a context of {steps * CONTEXT_STEP}", {"ctx": steps * CONTEXT_STEP})

    yield from _largest(low, high, at)


def _more_memory(start: _Start, plan: Plan) -> Iterator[Suggestion]:
    """More free memory on the host, rounded up to whole GiB: what helps where there is no GPU."""
    lacking = sum(max(0, one.device.reserve - one.free) for one in plan.uses)
    for share in (1.0, 1.1, 1.25):  # what is kept in reserve grows with the memory
        more = math.ceil(lacking * share / 2**30) * 2**30
        larger = [dataclasses.replace(one, memory=one.memory + more * (one.kind == "cpu")) for one in start.devices]
        total = next(one.memory for one in larger if one.kind == "cpu")
        after = dataclasses.replace(start.after(f"{more >> 30} GiB more free memory", {}), devices=larger)
        found = list(_try(after, {"host": total}))
        if found and more:
            yield found[0]
            return


def _more_gpus(start: _Start) -> Iterator[Suggestion]:
    """The fewest more GPUs like the largest one here."""
    request, usual = start.request, Device("gpu", "gpu", USUAL_GPU)
    largest = max((one for one in start.devices if one.kind == "gpu"), key=lambda one: one.memory, default=usual)
    if request.tensor_split or request.gpu_layers == 0 or request.split_mode == "none":
        return
    more = list(start.devices)
    for count in range(1, MOST_GPUS + 1):
        more.append(dataclasses.replace(largest, name=f"{largest.name}+{count}"))
        text = f"{count} more GPU{'s' if count > 1 else ''} of {largest.memory / 2**30:g}G"
        after = dataclasses.replace(start.after(text, {}), devices=list(more))
        if found := list(_try(after, {"gpus": count, "memory": largest.memory})):
            yield found[0]
            return
