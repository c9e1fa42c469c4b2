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


_REPORT = "report this checkpoint"
_IMAGES = "compare its preprocessor_config.json with what it was trained with"


def check_rungs(measured: Mapping[str, float], *, llm_type: str, vision_type: str) -> None:
    """Raise :class:`CheckpointError` naming the first rung that ``measured`` fails, lowest first."""
    logits = LOGITS if vision_type == "f32" and llm_type in ("f32", "f16") else LOGITS_LOOSE
    tower, whole = _wider_tower(vision_type), _wider_llm(llm_type, vision_type)
    limits = (
        ("pixels", PIXELS, _IMAGES),
        ("features", FEATURES[vision_type], tower),
        ("embeddings", FEATURES[vision_type], tower),
        ("logits_kl", logits, whole),
    )
    template = "compare its tokenizer's files and its chat template with what it was trained with"
    for name, least, fix in (("grids", 1.0, _IMAGES), ("tiles", 1.0, _IMAGES), ("prompt_ids", 1.0, template)):
        if measured.get(name, least) < least:
            _fail(name, "equal to the reference's", "different", fix)
    for name, limit, fix in limits:
        if not measured.get(name, 0.0) <= limit:  # NaN fails too
            _fail(name, f"within {limit:g} of the reference's", f"{measured[name]:.3g}", fix)
    strict = logits == LOGITS
    if strict and measured.get("argmax", 1.0) < 1.0:
        _fail("first token", "equal to the reference's", "different", whole)
    greedy, expected = measured.get("greedy", 0.0), measured.get("greedy_expected", 0.0)
    if strict and greedy < expected:
        _fail("greedy tokens", f"equal to the reference's for {expected:.0f} tokens", f"{greedy:.0f}", whole)


def _wider_tower(vision_type: str) -> str:
    """What helps where the tower's values do not fit its type; empty where it is the widest."""
    return "" if vision_type == "f32" else "store the tower wider: --vision f32"


def _wider_llm(llm_type: str, vision_type: str) -> str:
    """The same for the language model, behind a tower of another type."""
    wider = {"f16": "store the language model with a wider range: --llm bf16, or f32", "bf16": "try --llm f32"}
    return wider.get(llm_type) or _wider_tower(vision_type)


def _fail(name: str, expected: str, got: str, fix: str) -> None:
    advice = f"{fix}; if that changes nothing, {_REPORT}" if fix else _REPORT
    raise CheckpointError(expected=f"{name} {expected}", got=got, fix=f"{advice}; nothing was written")
