"""Kinds of language model: what transformers calls one, what llama.cpp calls it, and what each of them has.

A new kind is a row of :data:`LLM_KINDS`. What transformers reads of a config and llama.cpp has no place for is
refused by name here, for ``plan`` and ``export`` alike; what transformers does not read is not read here either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from ..errors import CheckpointError, shown

Architecture = Literal["llama", "qwen2", "granite"]
"""llama.cpp's names."""
_ATTENTION = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True)
class LlmKind:
    """One kind. ``model_type`` is transformers' name, ``defaults`` what its configs leave out.

    ``neighbours``: llama.cpp rotates neighbouring numbers of a head, transformers the halves against each other.
    ``biases`` are the matrices that always have one (GGUF's names), ``bias_keys`` the keys of a config that
    give more of them one. ``free_head``: heads may be wider or narrower than the model over their number.
    ``whole_heads``: transformers takes no width that is not a multiple of their number, however wide they are.
    ``frequency_factors``: llama.cpp takes a divisor for each rotary frequency. ``window`` says when a
    ``sliding_window`` counts. ``multipliers`` are keys of a config by GGUF's ``add_…`` names without the ``add_``.
    """

    model_type: str
    architecture: Architecture
    defaults: Mapping[str, Any]
    neighbours: bool
    biases: tuple[str, ...] = ()
    bias_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    free_head: bool = True
    whole_heads: bool = False
    frequency_factors: bool = True
    window: Literal["never", "asked", "always"] = "never"
    multipliers: Mapping[str, str] = field(default_factory=dict)


_EVERY_BIAS = {
    "attention_bias": (*_ATTENTION, "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}
_LLAMA_SIZES = {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048}
LLM_KINDS: dict[str, LlmKind] = {
    kind.model_type: kind
    for kind in (
        LlmKind("llama", "llama", _LLAMA_SIZES, neighbours=True, bias_keys=_EVERY_BIAS, whole_heads=True),
        LlmKind(
            "mistral",
            "llama",
            {
                "vocab_size": 32000,
                "intermediate_size": 14336,
                "max_position_embeddings": 131072,
                "num_key_value_heads": 8,
                "sliding_window": 4096,
            },
            neighbours=True,
            window="always",
        ),
        LlmKind(
            "qwen2",
            "qwen2",
            {
                "vocab_size": 151936,
                "intermediate_size": 22016,
                "max_position_embeddings": 32768,
                "num_key_value_heads": 32,
                "sliding_window": 4096,
            },
            neighbours=False,
            biases=_ATTENTION,
            free_head=False,
            frequency_factors=False,
            window="asked",
        ),
        LlmKind(
            "granite",
            "granite",
            _LLAMA_SIZES,
            neighbours=True,
            bias_keys=_EVERY_BIAS,
            # logits_scaling is no part of what LLaVA-NeXT computes: see export/language/settings
            multipliers={
                "embedding_scale": "embedding_multiplier",
                "attention_scale": "attention_multiplier",
                "residual_scale": "residual_multiplier",
            },
        ),
    )
}
"""By the ``model_type`` of a text config."""
ALL_DEFAULTS = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
"""What every kind's config leaves out."""


def find_kind(model_type: Any, where: str) -> LlmKind:
    """The kind of a text config's ``model_type``. Raises :class:`CheckpointError` for one we don't have."""
    if not isinstance(model_type, str) or model_type not in LLM_KINDS:
        raise CheckpointError(
            expected=f"a language model among {', '.join(LLM_KINDS)} in {where}",
            got=shown(model_type),
            fix="choose another checkpoint",
        )
    return LLM_KINDS[model_type]


def biased(kind: LlmKind, text: Mapping[str, Any]) -> tuple[str, ...]:
    """The matrices of a layer that have a bias, by GGUF's names, as transformers reads the text config."""
    keyed = [name for key, names in kind.bias_keys.items() if text.get(key) for name in names]
    return (*kind.biases, *(name for name in keyed if name not in kind.biases))


def exact_context(kind: LlmKind, positions: int, text: Mapping[str, Any]) -> int:
    """Of ``positions`` those that are exact: up to a sliding window, where there is one, attention is full."""
    window = text.get("sliding_window")
    counts = kind.window == "always" or (kind.window == "asked" and bool(text.get("use_sliding_window")))
    return min(positions, int(window)) if window and counts else positions


def check_text(kind: LlmKind, text: Mapping[str, Any], *, where: str, head_dim: int) -> None:
    """Refuse what llama.cpp's graph of this kind lacks. Raises :class:`CheckpointError` that names it."""
    heads, dim = text["num_attention_heads"], text["hidden_size"]
    for key in kind.multipliers.values():
        value = text.get(key)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            _correct(f"{key} as a number", repr(value), where)
    if kind.whole_heads and dim % heads:
        _correct(f"hidden_size as a multiple of num_attention_heads ({heads})", dim, where)
    kv_heads = text.get("num_key_value_heads") or heads
    if heads % kv_heads:
        _correct(f"num_attention_heads ({heads}) as a multiple of num_key_value_heads", kv_heads, where)
    checks = (
        ("hidden_act silu", text.get("hidden_act", "silu"), text.get("hidden_act", "silu") == "silu"),
        (
            f"num_attention_heads x head_dim = hidden_size ({dim}), as llama.cpp's {kind.architecture} has it,",
            f"{heads} x {head_dim}",
            kind.free_head or heads * head_dim == dim,
        ),
        ("an even head_dim", str(head_dim), head_dim % 2 == 0),
    )
    for expected, got, fits in checks:
        if not fits:
            raise CheckpointError(
                expected=f"{expected} in the language model of {where}",
                got=shown(got),
                fix="llama.cpp cannot run this model: choose another checkpoint",
            )


def _correct(expected: str, got: object, where: str) -> NoReturn:
    raise CheckpointError(
        expected=f"{expected} in the language model of {where}", got=shown(got), fix="correct config.json"
    )
