"""Rotary settings in a GGUF file's terms, against the frequencies that transformers works out of the same config."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.errors import CheckpointError
from llava_edge.runtime.ggml.llm_kinds import LLM_KINDS
from llava_edge.runtime.ggml.rotary import Rotary, read_rotary, rope_settings

HEAD, CONTEXT = 32, 4096
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
SHORT = [1.0 + 0.1 * index for index in range(HEAD // 2)]
LONG = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": [9.0] * (HEAD // 2)}
FACTORS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {**LLAMA3, "original_max_position_embeddings": 512},
    "llama3 of Llama-3.2": {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 256},
    "llama3, whole context": LLAMA3,
    "yarn, other turns": {**YARN, "beta_fast": 16.0, "beta_slow": 2.0},
    "yarn, turns that meet": {**YARN, "beta_fast": 3.0, "beta_slow": 3.0},
    "yarn, not truncated": {**YARN, "truncate": False},
    "yarn, not truncated, attention": {**YARN, "truncate": False, "attention_factor": 0.7},
    "longrope": {**LONG, "original_max_position_embeddings": 1024},
    "longrope, attention": {**LONG, "original_max_position_embeddings": 1024, "attention_factor": 1.3},
    "longrope, factor": {**LONG, "factor": 2.0},
}
ATTENTION: dict[str, dict[str, Any]] = {
    "plain": YARN,
    "its own": {**YARN, "attention_factor": 1.5},
    "mscale": {**YARN, "mscale": 0.707, "mscale_all_dim": 1.0},
    "mscale alone": {**YARN, "mscale": 0.707},
    "shrunk": {**YARN, "factor": 0.5},
}


def transformers_rope(rope: dict[str, Any], theta: float) -> tuple[np.ndarray[Any, Any], float]:
    """Frequencies and the scale of what is rotated, by transformers' own module."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=2 * HEAD,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={**rope, "rope_theta": theta},
    )
    module = LlamaRotaryEmbedding(config)
    return module.inv_freq.numpy().astype(np.float64), float(module.attention_scaling)


def read(rope: dict[str, Any], *, kind: str = "llama", theta: float = 1e4) -> Rotary:
    settings = rope_settings({"rope_parameters": {**rope, "rope_theta": theta}}, "here")
    return read_rotary(LLM_KINDS[kind], settings, context=CONTEXT, head_dim=HEAD, where="here")


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("name", FACTORS)
def test_frequencies_are_those_of_transformers(name: str, theta: float) -> None:
    expected, attention = transformers_rope(FACTORS[name], theta)
    found = read(FACTORS[name], theta=theta)
    frequencies = found.base ** -(np.arange(0, HEAD, 2) / HEAD) / np.array(found.factors or 1.0) / found.factor
    assert found.scaling == ("linear" if name == "linear" else "none")
    assert np.allclose(frequencies, expected, rtol=2e-6)
    assert found.attention == pytest.approx(attention)


@pytest.mark.parametrize("name", ATTENTION)
def test_what_yarn_multiplies(name: str) -> None:
    """llama.cpp multiplies 1 + 0.1 ln(factor) by itself, from a factor of 1 on; the file says what is missing."""
    found = read(ATTENTION[name])
    assert (found.scaling, found.factors, found.original_context) == ("yarn", None, 1024)
    itself = 1 + 0.1 * np.log(max(found.factor, 1.0))
    assert found.attention * itself == pytest.approx(transformers_rope(ATTENTION[name], 1e4)[1])


@pytest.mark.parametrize(
    ("rope", "context"),
    [
        ({"rope_type": "dynamic", "factor": 3.0}, CONTEXT),
        (YARN, CONTEXT),
        ({**LONG, "original_max_position_embeddings": 1024}, 1024),
        ({**LONG, "original_max_position_embeddings": 2 * CONTEXT}, CONTEXT),
    ],
)
def test_where_the_context_ends(rope: dict[str, Any], context: int) -> None:
    """Beyond it transformers goes over to other frequencies, for all positions at once."""
    assert read(rope).context == context


@pytest.mark.parametrize("kind", LLM_KINDS)
@pytest.mark.parametrize(
    "rope", [{"rope_type": "default"}, {"rope_type": "linear", "factor": 2}, FACTORS["dynamic"], YARN]
)
def test_every_kind_has_these(kind: str, rope: dict[str, Any]) -> None:
    assert read(rope, kind=kind).factors is None


@pytest.mark.parametrize("name", ["llama3", "longrope", "yarn, other turns", "yarn, not truncated"])
def test_qwen2_has_no_factors(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"llama.cpp has for qwen2 .* got {name.split(',')[0]}"):
        read(FACTORS[name], kind="qwen2")


@pytest.mark.parametrize(
    ("rope", "said"),
    [
        ({"rope_type": "mrope"}, "a rope_type among default, linear, dynamic, llama3, yarn, longrope .* got mrope"),
        ({"type": "su"}, "a rope_type among"),
        ({"rope_type": "proportional"}, "a rope_type among"),
        ({"rope_type": "linear"}, "factor as a number above 0"),
        ({"rope_type": "linear", "factor": "4"}, "factor as a number above 0"),
        ({**LLAMA3, "low_freq_factor": 0}, "low_freq_factor as a number above 0"),
        ({**LONG, "short_factor": [1.0]}, "a short_factor of 16 numbers"),
        ({"rope_type": "longrope"}, "a short_factor of 16 numbers"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "whole heads .* got a partial_rotary_factor of 0.5"),
    ],
)
def test_others_are_refused_by_name(rope: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        read(rope)
    assert "\n" not in str(caught.value)


def test_older_spellings() -> None:
    """transformers 4 wrote ``rope_theta`` beside ``rope_scaling``, Phi-3 the original length beside both."""
    old = {"rope_theta": 2e4, "rope_scaling": {"type": "linear", "factor": 4.0}, "partial_rotary_factor": None}
    found = read_rotary(LLM_KINDS["llama"], rope_settings(old, "here"), context=CONTEXT, head_dim=HEAD, where="here")
    assert (found.base, found.scaling, found.factor) == (2e4, "linear", 4.0)
    assert rope_settings({"original_max_position_embeddings": 7}, "here")["original_max_position_embeddings"] == 7
    with pytest.raises(CheckpointError, match="rope_parameters as an object"):
        rope_settings({"rope_parameters": "yarn"}, "here")
