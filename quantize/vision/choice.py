"""``--vision auto``: the recipe for this machine (``docs/vision.md``)."""

from __future__ import annotations

from ...runtime.onnx_runtime.importing import import_onnxruntime
from ...runtime.pictures.vision_recipes import choose_vision
from ...runtime.system.machine import processor_flags


def choose_vision_here() -> str:
    """The recipe for this machine. Where the processor's flags are unknown, that is "f16"."""
    onnxruntime = import_onnxruntime()

    return choose_vision(processor_flags(), onnxruntime.get_available_providers())
