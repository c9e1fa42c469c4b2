"""Whether a model's prompts are read by this engine or by llama.cpp alone, and why."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import LlavaEdgeError, OptionError
from ..ggml.devices import has_gpu
from ..ggml.types import BY_NUMBER
from ..options import LoadOptions, PromptEngineName
from ..system.machine import available_memory, has_amx
from .backend import register
from .weights import Weights

ENGINE: Final = "onnxruntime"
ALONE: Final = "llama.cpp"
LEAST_WEIGHTS = 2**26
"""Weights below which a prompt's products take less than handing them over does."""
SPARE = 2**30
"""Bytes that stay free beside what a model and its int8 weights take."""
EXACT = ("f32", "f16", "bf16")
"""Types of models that are there to be exact: int8 would be the larger error."""


class Choice(NamedTuple):
    """``engine`` is a word of ``prompt_engine``; ``why`` is empty for what was asked for, or is faster here."""

    engine: PromptEngineName
    why: str = ""


def settle_prompt_engine(path: Path, options: LoadOptions) -> tuple[LoadOptions, str]:
    """``options`` with their ``prompt_engine`` decided for the GGUF at ``path``, and why it is llama.cpp.

    Raises :class:`OptionError` where onnxruntime was asked for and can't be.
    """
    choice = _choose(path, options)
    if choice.engine == ALONE and options.prompt_engine == ENGINE:
        raise OptionError(expected=f"prompt engine {ENGINE}", got=choice.why, fix=f"choose auto or {ALONE}")
    return dataclasses.replace(options, prompt_engine=choice.engine), choice.why


def int8_bytes(weights: Weights) -> int:
    """Bytes that all products of a model take, a byte a weight."""
    return sum(math.prod(one.shape) for name, one in weights.tensors.items() if name.startswith("blk."))


def _choose(path: Path, options: LoadOptions) -> Choice:
    if options.prompt_engine == ALONE:
        return Choice(ALONE)
    if options.workers or (has_gpu() and options.gpu_layers != 0 and options.device != "cpu"):
        return Choice(ALONE, "layers on a GPU or on workers")
    if options.prompt_engine == "auto" and not has_amx():
        return Choice(ALONE, "no AMX; elsewhere it is not measured yet")
    weights = Weights(path)
    needed = int8_bytes(weights)
    kinds = {BY_NUMBER[one.type].name for name, one in weights.tensors.items() if name.startswith("blk.")}
    if options.prompt_engine == "auto":
        if kinds <= set(EXACT):
            return Choice(ALONE, f"a model in {'/'.join(sorted(kinds))} is read exactly")
        if needed < LEAST_WEIGHTS:
            return Choice(ALONE, "a small model")
        files = {one.path for one in weights.tensors.values()}
        free = available_memory() - sum(path.stat().st_size for path in files)
        if free < needed + SPARE:
            return Choice(ALONE, f"memory: int8 weights take {needed / 2**30:.1f} GiB more")
    try:
        register()
    except LlavaEdgeError as error:
        return Choice(ALONE, f"{error.expected}, found {error.got}")
    return Choice(ENGINE)
