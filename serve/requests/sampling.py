"""The sampling parameters of a request as keywords of the runtime, held to the ranges that the runtime declares."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...runtime.options import GenerationOptions, declared
from ..settings import Limits
from .fields import Fields, clean

TO_THE_LIMIT = 2**24
"""``max_tokens`` of who wants as many as the context has room for: the most that the runtime's option takes."""
SEEDS = 2**32
_BOUNDS = {name: option.bounds or (0, 0) for name, option in declared(GenerationOptions).items()}


def read_sampling(fields: Fields, limits: Limits, *, max_tokens: tuple[str, ...]) -> dict[str, Any]:
    """The keywords of :class:`GenerationOptions` that were given; ``max_tokens`` names that field, the first wins."""
    found: dict[str, Any] = {}
    for name in max_tokens:
        if "max_tokens" not in found and (tokens := fields.whole(name)) is not None:
            found["max_tokens"] = _tokens(fields, name, tokens)
    if (seed := fields.whole("seed")) is not None:
        found["seed"] = seed % SEEDS
    if (top_k := fields.whole("top_k")) is not None:
        found["top_k"] = _top_k(fields, top_k)
    for name in ("temperature", "top_p", "min_p", "repeat_penalty"):
        if (value := fields.number(name, _BOUNDS[name])) is not None:
            found[name] = value
    stop = read_stop(fields, limits)
    return {**found, "stop": stop} if stop else found


def _tokens(fields: Fields, name: str, tokens: int) -> int:
    if tokens < 0:
        return TO_THE_LIMIT
    if tokens == 0:
        fields.refuse(name, "a whole number above 0, or -1 for as many as fit")
    return min(tokens, TO_THE_LIMIT)


def _top_k(fields: Fields, top_k: int) -> int:
    if top_k > _BOUNDS["top_k"][1]:
        fields.refuse("top_k", f"a whole number up to {_BOUNDS['top_k'][1]:.15g}")
    return max(top_k, 0)


def read_stop(fields: Fields, limits: Limits) -> tuple[str, ...]:
    """``stop``: a text or a list of them; empty ones stop nothing."""
    value = fields.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    right = isinstance(stops, list) and all(isinstance(one, str) and len(one) <= limits.stop_length for one in stops)
    if not right or len(stops) > limits.stops:
        fields.refuse("stop", f"at most {limits.stops} texts of at most {limits.stop_length} characters")
    return tuple(clean(one) for one in stops if one)


def sampling_options(given: dict[str, Any] | Any, defaults: GenerationOptions) -> GenerationOptions:
    """What was given laid over the server's defaults."""
    return dataclasses.replace(defaults, **given)
