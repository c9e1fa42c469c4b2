"""The sampling parameters of a request as keywords of the runtime, held to the ranges that the runtime declares."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...runtime.errors import OptionError
from ...runtime.option_checks import picture_share
from ...runtime.options import GenerationOptions, declared
from ..settings import Limits
from .fields import Fields, clean

_BOUNDS = {name: option.bounds or (0, 0) for name, option in declared(GenerationOptions).items()}
TO_THE_LIMIT = int(_BOUNDS["max_tokens"][1])
"""``max_tokens`` of who wants as many as the context has room for."""
SEEDS = 2**32
_ANY_SEED = (-(2**63), 2**63 - 1)
"""Seeds that OpenAI's clients may send."""
_OTHER_NAMES = {"repetition_penalty": "repeat_penalty"}


def read_sampling(
    fields: Fields, limits: Limits, *, max_tokens: tuple[str, ...], others: bool = False, unlimited: int = -1
) -> dict[str, Any]:
    """The keywords of :class:`GenerationOptions` that were given.

    ``max_tokens`` names that field, the first wins; ``unlimited`` is the least number that means as many as fit.
    ``others`` also takes the names that other servers have.
    """
    found: dict[str, Any] = {}
    for name in max_tokens:
        if "max_tokens" not in found and (tokens := fields.whole(name, (unlimited, TO_THE_LIMIT))) is not None:
            found["max_tokens"] = _tokens(fields, name, tokens)
    if (seed := fields.whole("seed", _ANY_SEED)) is not None:
        found["seed"] = None if seed == -1 else seed % SEEDS  # -1 is a new one, for llama-server and Ollama too
    if (top_k := fields.whole("top_k", (-1, _BOUNDS["top_k"][1]))) is not None:
        found["top_k"] = max(top_k, 0)
    names = {name: name for name in ("temperature", "top_p", "min_p", "repeat_penalty")}
    for name, option in {**names, **(_OTHER_NAMES if others else {})}.items():
        if (value := fields.number(name, _BOUNDS[option])) is not None:
            found.setdefault(option, value)
    if (kept := read_share(fields)) is not None:
        found["picture_tokens"] = kept
    stop = read_stop(fields, limits)
    return {**found, "stop": stop} if stop else found


def read_share(fields: Fields) -> int | str | None:
    """``picture_tokens``, as the runtime has it. Raises RequestError."""
    try:
        return picture_share(fields.get("picture_tokens"))
    except OptionError as error:
        return fields.refuse("picture_tokens", error.expected.removeprefix("picture_tokens as "), fix=error.fix)


def _tokens(fields: Fields, name: str, tokens: int) -> int:
    if tokens == 0:
        fields.refuse(name, "1 or more, or -1 (as many as fit),")
    return TO_THE_LIMIT if tokens < 0 else tokens


def read_stop(fields: Fields, limits: Limits) -> tuple[str, ...]:
    """``stop``: a text or a list of them; empty ones stop nothing."""
    value = fields.get("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    right = isinstance(stops, list) and all(isinstance(one, str) and len(one) <= limits.stop_length for one in stops)
    if not right or len(stops) > limits.stops:
        fields.refuse("stop", f"a text, or at most {limits.stops} of them, of at most {limits.stop_length} characters,")
    return tuple(clean(one) for one in stops if one)


def sampling_options(given: dict[str, Any] | Any, defaults: GenerationOptions) -> GenerationOptions:
    """What was given laid over the server's defaults."""
    return dataclasses.replace(defaults, **given)
