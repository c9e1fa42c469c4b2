"""Rotary positions: a text config's settings in the terms of a GGUF file.

llama.cpp scales frequencies by one number (linear), as YaRN does, or by a divisor for each, which is a tensor of
the file. transformers' other kinds are constant up to some position, and up to there they are one of these:
``dynamic`` is unscaled up to ``max_position_embeddings``, ``longrope`` takes its short factors up to
``original_max_position_embeddings``. The context ends there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ..errors import CheckpointError, shown
from .llm_kinds import LlmKind

ROPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
"""Kinds of transformers that can be written."""
_THETA = 10000.0
"""transformers' base where a config names none."""
_FAST, _SLOW = 32.0, 1.0
"""llama.cpp's turns between which YaRN goes over from one frequency to the other; its models' keys for others are
read by none of our kinds."""


@dataclass(frozen=True)
class Rotary:
    """``factors`` divide each frequency, one for every pair of a head's numbers; ``attention`` multiplies what is
    rotated, beside what llama.cpp multiplies for YaRN itself. All positions below ``context`` are exact.
    """

    base: float
    context: int
    scaling: Literal["none", "linear", "yarn"] = "none"
    factor: float = 1.0
    original_context: int = 0
    factors: tuple[float, ...] | None = None
    attention: float = 1.0


def rope_settings(text: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries of a text config in one table, in either spelling: ``rope_parameters``, or what older ones wrote."""
    spelt = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    rope = text.get(spelt) or {}
    if not isinstance(rope, Mapping):
        _correct(f"{spelt} as an object", rope, where)
    found = {key: value for key, value in rope.items() if value is not None}
    for key in ("rope_theta", "partial_rotary_factor"):
        if text.get(key) is not None:
            found.setdefault(key, text[key])
    if text.get("original_max_position_embeddings") is not None:
        found["original_max_position_embeddings"] = text["original_max_position_embeddings"]
    return found


def read_rotary(kind: LlmKind, rope: Mapping[str, Any], *, context: int, head_dim: int, where: str) -> Rotary:
    """What a GGUF file of ``kind`` says of :func:`rope_settings`, ``context`` being ``max_position_embeddings``.

    Raises :class:`CheckpointError` that names what llama.cpp has no place for.
    """
    name = rope.get("rope_type") or rope.get("type") or "default"
    base = _number({"rope_theta": _THETA, **rope}, "rope_theta", where)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        _refuse("rotary positions on whole heads", f"a partial_rotary_factor of {rope['partial_rotary_factor']}", where)
    original = _original(rope, context, where)
    if name in ("default", "dynamic"):
        return Rotary(base, context)
    if name == "linear":
        return Rotary(base, context, "linear", _number(rope, "factor", where))
    if name == "yarn":
        return _yarn(kind, rope, Rotary(base, context, original_context=original), head_dim, where)
    if name == "llama3":
        _check_factors(kind, name, where)
        return Rotary(base, context, factors=_llama3_factors(rope, base, head_dim, original, where))
    if name == "longrope":
        _check_factors(kind, name, where)
        listed = rope.get("short_factor")
        if not isinstance(listed, list | tuple) or len(listed) != head_dim // 2:
            _correct(f"a short_factor of {head_dim // 2} numbers in the rotary settings", listed, where)
        factors = tuple(_number({"short_factor": one}, "short_factor", where) for one in listed)
        return Rotary(base, min(context, original), factors=factors, attention=_longrope_scale(rope, context, original))
    return _refuse(f"a rope_type among {', '.join(ROPES)}", shown(name), where)


def _number(rope: Mapping[str, Any], key: str, where: str) -> float:
    value = rope.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        _correct(f"{key} as a number above 0 in the rotary settings", value, where)
    return float(value)


def _original(rope: Mapping[str, Any], context: int, where: str) -> int:
    key = "original_max_position_embeddings"
    return int(_number(rope, key, where)) if rope.get(key) is not None else context


def _check_factors(kind: LlmKind, what: str, where: str) -> None:
    if not kind.frequency_factors:
        others = "default, linear, dynamic or plain yarn"
        _refuse(f"a rope_type that llama.cpp has for {kind.architecture} ({others})", what, where)


def _yarn(kind: LlmKind, rope: Mapping[str, Any], plain: Rotary, head_dim: int, where: str) -> Rotary:
    """By llama.cpp's own YaRN where it has no settings but the usual, else as factors.

    Source: https://arxiv.org/abs/2309.00071, as transformers' ``_compute_yarn_parameters`` has it.
    """
    context, original = plain.context, plain.original_context
    factor = _number({"factor": context / original, **rope}, "factor", where)
    fast, slow = float(rope.get("beta_fast") or _FAST), float(rope.get("beta_slow") or _SLOW)
    whole = bool(rope.get("truncate", True))
    scale = _yarn_scale(rope, factor)
    if (fast, slow, whole) == (_FAST, _SLOW, True):
        return Rotary(plain.base, context, "yarn", factor, original, attention=scale / _mscale(factor))
    _check_factors(kind, "yarn with its own beta_fast, beta_slow or truncate", where)
    ends = [
        head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(plain.base)) for turns in (fast, slow)
    ]
    low, high = (math.floor(ends[0]), math.ceil(ends[1])) if whole else ends
    low, high = max(low, 0), min(high, head_dim - 1)
    width = (high - low) or 0.001
    kept = [1 - min(max((index - low) / width, 0.0), 1.0) for index in range(head_dim // 2)]
    factors = tuple(1 / ((1 - share) / factor + share) for share in kept)
    return Rotary(plain.base, context, factors=factors, attention=scale)


def _mscale(factor: float, scale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _yarn_scale(rope: Mapping[str, Any], factor: float) -> float:
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    one, every = rope.get("mscale"), rope.get("mscale_all_dim")
    return _mscale(factor, float(one)) / _mscale(factor, float(every)) if one and every else _mscale(factor)


def _longrope_scale(rope: Mapping[str, Any], context: int, original: int) -> float:
    """Source: https://arxiv.org/abs/2402.13753, as transformers' ``_compute_longrope_parameters`` has it."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    factor = float(rope.get("factor") or context / original)
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _llama3_factors(
    rope: Mapping[str, Any], base: float, head_dim: int, original: int, where: str
) -> tuple[float, ...]:
    """Llama-3.1's scaling by wavelength: short waves stay, long ones stretch, between them a ramp.

    Source: Meta's ``apply_scaling`` in the Llama-3.1 reference code.
    """
    factor, low, high = (_number(rope, key, where) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if high <= low:
        _correct(f"a high_freq_factor above low_freq_factor ({low:g}) in the rotary settings", high, where)
    factors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * base ** (index / head_dim)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)


def _correct(expected: str, got: object, where: str) -> NoReturn:
    raise CheckpointError(
        expected=f"{expected} of the language model of {where}", got=shown(repr(got)), fix="correct config.json"
    )


def _refuse(expected: str, got: str, where: str) -> NoReturn:
    raise CheckpointError(
        expected=f"{expected} in the language model of {where}",
        got=got,
        fix="llama.cpp cannot run this model: choose another checkpoint",
    )
