"""The vision recipes, and ``--vision auto``: the one for a machine like this (``docs/vision.md``)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

VisionRecipe = Literal["f16", "int8", "w8", "w4"]
VISION_RECIPES: tuple[VisionRecipe, ...] = ("f16", "int8", "w8", "w4")

CPU_FLAGS = Path("/proc/cpuinfo")
"""Where Linux lists what the processor can do."""

INTEGER_UNITS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
"""Flags of processors that multiply eight-bit integers faster than floats: Intel and AMD, then Arm."""


def choose_vision(flags: Collection[str], providers: Collection[str]) -> VisionRecipe:
    """ "f16" where a GPU computes or integer products are not fast, else "int8".

    ``flags`` are the processor's as Linux names them, ``providers`` onnxruntime's. int8 is written for
    CPU kernels; float16 storage costs no exactness and, on a CPU, no time.
    """
    on_gpu = any(name != "CPUExecutionProvider" and name != "AzureExecutionProvider" for name in providers)
    return "int8" if not on_gpu and INTEGER_UNITS & set(flags) else "f16"


def choose_vision_here() -> VisionRecipe:
    """The recipe for this machine. Where the processor's flags are unknown, that is "f16"."""
    import onnxruntime

    return choose_vision(processor_flags(), onnxruntime.get_available_providers())


def processor_flags() -> frozenset[str]:
    """What Linux says this processor can do; nothing elsewhere."""
    try:
        lines = CPU_FLAGS.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split(":")[-1].split()
    )
