"""The recipes' numbers and types are llama.cpp's."""

from __future__ import annotations

import gguf
import llama_cpp.llama_cpp as lib
from llava_edge.quantize.language.layout import PLAIN
from llava_edge.runtime.ggml.llm_recipes import FULL_PRECISION, LLM_RECIPES, QUANTIZED
from llava_edge.runtime.ggml.types import BY_NAME


def test_every_recipe_is_llama_cpps() -> None:
    for name, recipe in LLM_RECIPES.items():
        constant = "ALL_F32" if name == "f32" else f"MOSTLY_{name.upper()}"
        assert recipe.file_type == getattr(lib, f"LLAMA_FTYPE_{constant}") == gguf.LlamaFileType[constant]
        assert recipe.type == name.removesuffix("_m")
        assert recipe.type in BY_NAME


def test_full_precision_and_what_is_made_of_it() -> None:
    assert {BY_NAME[name].number for name in FULL_PRECISION} == set(PLAIN)
    assert set(QUANTIZED) | set(FULL_PRECISION) == set(LLM_RECIPES)
    bits = [BY_NAME[recipe.type].size / BY_NAME[recipe.type].weights for recipe in LLM_RECIPES.values()]
    assert bits == sorted(bits, reverse=True)  # suggestions go down the table
