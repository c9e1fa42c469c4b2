"""What llama.cpp must know of the language model: sizes, attention heads, rotary positions, multipliers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ...runtime.ggml.llm_kinds import LLM_KINDS, Architecture, check_text, exact_context, find_kind
from ...runtime.ggml.rotary import Rotary, read_rotary, rope_settings

LlmType = Literal["f16", "bf16", "f32"]
LLM_TYPES: tuple[LlmType, ...] = ("f16", "bf16", "f32")
"""How matrices may be stored."""


@dataclass(frozen=True)
class LlmSettings:
    """A language model's shape, in llama.cpp's terms.

    ``neighbours`` says that rows of queries and keys change places, ``scales`` are multipliers by GGUF's names.
    """

    architecture: Architecture
    dim: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_epsilon: float
    context_length: int
    rope: Rotary
    neighbours: bool
    scales: dict[str, float] = field(default_factory=dict)


def read_llm_settings(text: Any, where: str = "config.json") -> LlmSettings:
    """Read transformers' text config. Raises :class:`CheckpointError` for what llama.cpp lacks."""
    kind = find_kind(text.model_type, where)
    entries = text.to_dict()
    heads = int(text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    check_text(kind, entries, where=where, head_dim=head_dim)
    positions = int(text.max_position_embeddings)
    rope = read_rotary(kind, rope_settings(entries, where), context=positions, head_dim=head_dim, where=where)
    return LlmSettings(
        architecture=kind.architecture,
        dim=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        feed_forward=int(text.intermediate_size),
        heads=heads,
        kv_heads=int(text.num_key_value_heads or heads),
        head_dim=head_dim,
        norm_epsilon=float(text.rms_norm_eps),
        context_length=exact_context(kind, rope.context, entries),
        rope=rope,
        neighbours=kind.neighbours,
        scales=_scales(kind.model_type, text),
    )


def _scales(model_type: str, text: Any) -> dict[str, float]:
    """Granite's multipliers.

    GGUF wants a divisor of the logits too. transformers' LLaVA-NeXT has a head of its own and leaves the text
    config's ``logits_scaling`` out, unlike its Granite alone, so it is 1: the same tokens at temperature 0, and
    the reference's probabilities. ``tests/export/language/test_granite.py`` notices when that changes.
    """
    named = LLM_KINDS[model_type].multipliers
    found = {name: float(getattr(text, key)) for name, key in named.items()}
    return found | ({"logit_scale": 1.0} if named else {})
