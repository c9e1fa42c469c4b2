"""What an exported bundle must reach on the fidelity ladder, by the types it was exported with."""

from __future__ import annotations

from collections.abc import Mapping

from ...runtime.errors import CheckpointError

PIXELS = 1e-6
"""Largest difference of a normalised pixel."""
FEATURES = {"f32": 1e-5, "f16": 5e-3}
"""Relative error of features and packed embeddings, by the vision part's type."""
LOGITS = 1e-4
"""KL divergence of the first answer token (nats), f32 vision with an f32 or f16 LLM."""
LOGITS_LOOSE = 5e-3
"""The same where bf16 or f16 vision rounds more."""


def check_rungs(measured: Mapping[str, float], *, llm_type: str, vision_type: str) -> None:
    """Raise :class:`CheckpointError` naming the first rung that ``measured`` fails, lowest first."""
    logits = LOGITS if vision_type == "f32" and llm_type in ("f32", "f16") else LOGITS_LOOSE
    limits = (
        ("pixels", PIXELS),
        ("features", FEATURES[vision_type]),
        ("embeddings", FEATURES[vision_type]),
        ("logits_kl", logits),
    )
    for name, least in (("grids", 1.0), ("tiles", 1.0), ("prompt_ids", 1.0)):
        if measured.get(name, least) < least:
            _fail(name, "equal to the reference's", "different")
    for name, limit in limits:
        if not measured.get(name, 0.0) <= limit:  # NaN fails too
            _fail(name, f"within {limit:g} of the reference's", f"{measured[name]:.3g}")
    strict = logits == LOGITS
    if strict and measured.get("argmax", 1.0) < 1.0:
        _fail("first token", "equal to the reference's", "different")
    greedy, expected = measured.get("greedy", 0.0), measured.get("greedy_expected", 0.0)
    if strict and greedy < expected:
        _fail("greedy tokens", f"equal to the reference's for {expected:.0f} tokens", f"{greedy:.0f}")


def _fail(name: str, expected: str, got: str) -> None:
    raise CheckpointError(expected=f"{name} {expected}", got=got, fix="report this checkpoint; nothing was written")
