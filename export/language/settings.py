"""What llama.cpp must know of the language model: sizes, attention heads and rotary positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from ...runtime.errors import CheckpointError
from ...runtime.planning.checkpoint_config import exact_context

LlmType = Literal["f16", "bf16", "f32"]
LLM_TYPES: tuple[LlmType, ...] = ("f16", "bf16", "f32")
"""How matrices may be stored."""
ARCHITECTURES: dict[str, Literal["llama", "qwen2"]] = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""transformers' model types and llama.cpp's architectures."""


@dataclass(frozen=True)
class Rope:
    """Rotary positions. ``factors`` divide each frequency (Llama-3.1's scaling), shape (head_dim / 2,)."""

    base: float
    scaling: Literal["none", "linear", "yarn"] = "none"
    factor: float = 1.0
    original_context: int = 0
    factors: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class LlmSettings:
    """A language model's shape, in llama.cpp's terms."""

    architecture: Literal["llama", "qwen2"]
    dim: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_epsilon: float
    context_length: int
    rope: Rope


def read_llm_settings(text: Any) -> LlmSettings:
    """Read transformers' text config. Raises :class:`CheckpointError` for what llama.cpp lacks."""
    heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    return LlmSettings(
        architecture=ARCHITECTURES[text.model_type],
        dim=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        feed_forward=int(text.intermediate_size),
        heads=heads,
        kv_heads=int(text.num_key_value_heads or heads),
        head_dim=head_dim,
        norm_epsilon=float(text.rms_norm_eps),
        context_length=exact_context(
            text.model_type,
            int(text.max_position_embeddings),
            getattr(text, "sliding_window", None),
            windowed=bool(getattr(text, "use_sliding_window", False)),
        ),
        rope=_read_rope(text.rope_parameters, int(text.max_position_embeddings), head_dim),
    )


def _read_rope(parameters: dict[str, Any], context: int, head_dim: int) -> Rope:
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    base = float(parameters["rope_theta"])
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        _refuse("rotary positions on whole heads", f"{parameters['partial_rotary_factor']}")
    if kind == "default":
        return Rope(base)
    factor = float(parameters.get("factor", 1.0))
    original = int(parameters.get("original_max_position_embeddings") or context)
    if kind == "linear":
        return Rope(base, "linear", factor)
    if kind == "llama3":
        return Rope(base, factors=_llama3_factors(parameters, base, head_dim, original))
    if kind == "yarn":
        changed = {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}
        if named := sorted(key for key in changed & set(parameters) if parameters[key] is not None):
            _refuse("YaRN with its default parameters", ", ".join(named))
        return Rope(base, "yarn", factor, original)
    return _refuse("rope type default, linear, llama3 or yarn", str(kind))


def _llama3_factors(parameters: dict[str, Any], base: float, head_dim: int, original: int) -> npt.NDArray[np.float32]:
    """Llama-3.1's scaling by wavelength: short waves stay, long ones stretch, between them a ramp.

    Source: Meta's ``apply_scaling`` in the Llama-3.1 reference code.
    """
    factor = float(parameters["factor"])
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
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
    return np.array(factors, np.float32)


def _refuse(expected: str, got: str) -> NoReturn:
    raise CheckpointError(expected=f"{expected} in the text config", got=got, fix="this checkpoint can't be exported")
