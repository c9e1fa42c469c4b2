"""How a language model is stored: llama.cpp's recipes under the names that users type, the one table of them."""

from __future__ import annotations

from typing import NamedTuple


class LlmRecipe(NamedTuple):
    """The type that most tensors get, and llama.cpp's number of the recipe (``enum llama_ftype``).

    The rest is what llama.cpp is told instead of leaving it to its own rule: the type of the ``head`` (of a tied
    model's token table), and those of matrices by regular expressions over their GGUF names.
    """

    type: str
    file_type: int
    head: str = ""
    others: tuple[tuple[str, str], ...] = ()


LLM_RECIPES = {
    "f32": LlmRecipe("f32", 0),
    "bf16": LlmRecipe("bf16", 32),
    "f16": LlmRecipe("f16", 1),
    "q8_0": LlmRecipe("q8_0", 7),
    "q6_k": LlmRecipe("q6_k", 18),
    "q5_k_m": LlmRecipe("q5_k", 17),
    "q4_k_m": LlmRecipe("q4_k", 15),
    "q4_0": LlmRecipe("q4_0", 2),
    "iq4_xs": LlmRecipe("iq4_xs", 30),
}
"""From large to small."""
FULL_PRECISION = ("f32", "f16", "bf16")
LEAST_FOR_INT8 = 2**26
"""Weights of layers below which a prompt's products take less than handing them to the prompt engine does."""
"""What ``export`` writes, and what may be quantized: quantizing a quantized model again adds up two errors."""
QUANTIZED = tuple(name for name in LLM_RECIPES if name != "f32")
"""What ``quantize`` writes."""
MACHINES = ("avx2", "avx512", "amx", "arm", "cuda")
"""Kinds of machine that ``quantize --for`` has recipes for."""
