"""``--vision auto``: the recipe for a machine like this (``docs/vision.md``)."""

from __future__ import annotations

from collections.abc import Collection

from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.system.machine import processor_flags

INTEGER_UNITS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
"""Flags of processors that multiply eight-bit integers faster than floats: Intel and AMD, then Arm."""


def choose_vision(flags: Collection[str], providers: Collection[str]) -> str:
    """ "f16" where a GPU computes or integer products are not fast, else "int8".

    ``flags`` are the processor's as Linux names them, ``providers`` onnxruntime's. int8 is written for
    CPU kernels; float16 storage costs no exactness and, on a CPU, no time.
    """
    on_gpu = any(name != "CPUExecutionProvider" and name != "AzureExecutionProvider" for name in providers)
    return "int8" if not on_gpu and INTEGER_UNITS & set(flags) else "f16"


def choose_vision_here() -> str:
    """The recipe for this machine. Where the processor's flags are unknown, that is "f16"."""
    onnxruntime = import_onnxruntime()

    return choose_vision(processor_flags(), onnxruntime.get_available_providers())
