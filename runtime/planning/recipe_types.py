"""llama.cpp's rule for which tensor gets which type.

The rule is that of ``src/llama-quant.cpp`` in the llama.cpp of llama-cpp-python 0.3.36
(``llama_tensor_get_type_impl`` and ``tensor_type_fallback``), reduced to dense Llama and Qwen2 models
without an importance matrix, which keep a name's recipe in the same size class. Tests hold it to
what ``llama_model_quantize`` does.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import OptionError
from ..ggml.llm_recipes import FULL_PRECISION, LLM_RECIPES
from ..ggml.types import BY_NAME

_FALLBACK = {"iq4_xs": "iq4_nl", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}


def check_recipe(recipe: str) -> str:
    """The type most tensors of a recipe get. Raises :class:`OptionError` for an unknown recipe."""
    if recipe not in LLM_RECIPES:
        raise OptionError(expected=f"an LLM type among {', '.join(LLM_RECIPES)}", got=recipe, fix="choose one of those")
    return LLM_RECIPES[recipe].type


def tensor_types(
    tensors: Iterable[tuple[str, tuple[int, ...]]], recipe: str, *, layers: int, heads_per_kv: int, type_70b: bool
) -> dict[str, str]:
    """The stored type of each (name, shape (rows, columns)), with GGUF's names, in ``recipe``.

    ``heads_per_kv`` is query heads a key head; ``type_70b`` whether llama.cpp takes the model for its
    70B size, whose value matrices it treats better. Vectors stay f32.
    """
    base = check_recipe(recipe)
    listed = list(tensors)
    tied = all(name != "output.weight" for name, _ in listed)
    found = {}
    for name, shape in listed:
        if len(shape) < 2:
            found[name] = "f32"
        elif base in FULL_PRECISION:
            found[name] = base
        else:
            kind = _chosen(name, shape, recipe, base, tied, layers, heads_per_kv, type_70b)
            found[name] = _fitted(kind, shape[-1])
    return found


def _chosen(
    name: str, shape: tuple[int, ...], recipe: str, base: str, tied: bool, layers: int, gqa: int, type_70b: bool
) -> str:
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "q8_0" if base == "q8_0" or shape[-1] % BY_NAME[base].weights else "q6_k"
    if not name.startswith("blk."):
        return base
    layer, part = int(name.split(".")[1]), name.split(".")[2]
    if part == "attn_v":
        return _value_type(layer, recipe, base, layers, gqa, type_70b)
    if part == "ffn_down":
        return _down_type(layer, recipe, base, layers)
    return base


def _value_type(layer: int, recipe: str, base: str, layers: int, gqa: int, type_70b: bool) -> str:
    kind = base
    if recipe == "iq4_xs" and gqa >= 4:
        kind = "q5_k"
    elif recipe in ("q4_k_m", "q5_k_m") and _more_bits(layer, layers):
        kind = "q6_k"
    return "q5_k" if type_70b and kind == "q4_k" else kind


def _down_type(layer: int, recipe: str, base: str, layers: int) -> str:
    if recipe in ("q4_k_m", "q5_k_m") and _more_bits(layer, layers):
        return "q6_k"
    if recipe == "iq4_xs" and layer < layers // 8:
        return "q5_k"
    return base


def _more_bits(layer: int, layers: int) -> bool:
    """llama.cpp's ``use_more_bits``: the first and last eighth, and every third layer between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitted(kind: str, columns: int) -> str:
    """``kind``, or what llama.cpp falls back to where rows do not fill its blocks."""
    if columns % BY_NAME[kind].weights == 0:
        return kind
    smaller = _FALLBACK.get(kind, kind)
    return smaller if columns % BY_NAME[smaller].weights == 0 else "f16"
