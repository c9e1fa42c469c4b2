"""How the numbers of a vision graph are stored: the one table of recipes, and which of them a machine gets."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple


class VisionRecipe(NamedTuple):
    """Bytes a weight takes in the file and once loaded on a CPU, who writes it, and what the graph computes.

    Both bytes are averages over tower and connector, measured at the CLIP-L/336 shape. ``loaded`` is
    more than ``stored``: a part of the matrices is kept twice, the second time packed for the
    processor, and half precision is widened when a session starts.
    """

    stored: float
    loaded: float
    exported: bool
    quantized: bool
    graph: str


VISION_RECIPES = {
    "f32": VisionRecipe(4.0, 4.8, True, False, "everything in float32"),
    "f16": VisionRecipe(2.0, 4.8, True, True, "matrices stored in float16, products in float32"),
    "int8": VisionRecipe(1.0, 1.45, False, True, "products of uint8 activations and int8 matrices"),
    "w8": VisionRecipe(1.05, 1.9, False, True, "matrices in blocks of 128 at 8 bits (MatMulNBits)"),
    "w4": VisionRecipe(0.66, 1.35, False, True, "matrices in blocks of 32 at 4 bits (MatMulNBits)"),
}
EXPORTED = tuple(name for name, recipe in VISION_RECIPES.items() if recipe.exported)
"""What ``export`` writes."""
QUANTIZED = tuple(name for name, recipe in VISION_RECIPES.items() if recipe.quantized)
"""What ``quantize`` writes."""

INTEGER_UNITS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
"""Flags of processors that multiply eight-bit integers faster than floats: Intel and AMD, then Arm."""
WORTH = 1.25
"""What int8 products must gain where that has to be tried: below it, exactness is worth more."""


def choose_vision(flags: Collection[str], providers: Collection[str], gain: Callable[[], float] | None = None) -> str:
    """ "f16" where a GPU computes or integer products are not fast, else "int8" (``docs/vision.md``).

    ``flags`` are the processor's as Linux names them, ``providers`` onnxruntime's. int8 is written for
    CPU kernels; float16 storage costs no exactness and, on a CPU, no time. On x86 with AVX2 and no integer unit
    the flags don't tell; ``gain``, where the machine is at hand, says how many times as fast as floats its int8
    products are.
    """
    if any(name != "CPUExecutionProvider" and name != "AzureExecutionProvider" for name in providers):
        return "f16"
    if INTEGER_UNITS & set(flags):
        return "int8"
    return "int8" if "avx2" in flags and gain is not None and gain() >= WORTH else "f16"
