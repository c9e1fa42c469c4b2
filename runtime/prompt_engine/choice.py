"""Whether a model's prompts are read by this engine or by llama.cpp alone, and why."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import LlavaEdgeError, OptionError
from ..ggml.devices import has_gpu
from ..ggml.llm_recipes import FULL_PRECISION, LEAST_FOR_INT8
from ..ggml.types import BY_NUMBER
from ..options import LoadOptions, PromptEngineName
from ..system.machine import has_amx, int8_sums_known
from .backend import register
from .trial import kept_answers, speed_up
from .weights import Weights

ENGINE: Final = "onnxruntime"
ALONE: Final = "llama.cpp"
LEAST_GAIN = 1.3
"""How many times llama.cpp's rate of products onnxruntime has to have: less may be noise."""


class Choice(NamedTuple):
    """``engine`` is a word of ``prompt_engine``; ``why`` is empty for what was asked for."""

    engine: PromptEngineName
    why: str = ""


def settle_prompt_engine(
    path: Path, options: LoadOptions, *, fits: Callable[[LoadOptions], bool] = lambda options: True
) -> tuple[LoadOptions, str]:
    """``options`` with their ``prompt_engine`` decided for the GGUF at ``path``, and why it is that one.

    ``options`` have their ``repack`` settled. ``fits`` says whether there is memory for the engine's weights.
    Raises :class:`OptionError` where onnxruntime was asked for and can't be.
    """
    choice = _choose(path, options, fits)
    if choice.engine == ALONE and options.prompt_engine == ENGINE:
        raise OptionError(expected=f"prompt engine {ENGINE}", got=choice.why, fix=f"choose auto or {ALONE}")
    return dataclasses.replace(options, prompt_engine=choice.engine), choice.why


def int8_bytes(weights: Weights) -> int:
    """Bytes that all products of a model take, a byte a weight; the last feed-forward is not among them."""
    last = max((int(name.split(".")[1]) for name in weights.of_layers), default=0)
    names = [name for name in weights.of_layers if not name.startswith(f"blk.{last}.ffn_")]
    return sum(math.prod(weights.tensors[name].shape) for name in names)


def usual_here() -> bool:
    """Whether ``auto`` would be onnxruntime for a usual model: as it was found here, else on CPUs with AMX."""
    kept = kept_answers()
    return max(kept.values()) >= LEAST_GAIN if kept else has_amx()


def _choose(path: Path, options: LoadOptions, fits: Callable[[LoadOptions], bool]) -> Choice:
    if options.prompt_engine == ALONE:
        return Choice(ALONE)
    if options.workers or (has_gpu() and options.gpu_layers != 0 and options.device != "cpu"):
        return Choice(ALONE, "layers on a GPU or on workers")
    try:
        if options.prompt_engine == ENGINE:
            register()
            return Choice(ENGINE)
        with closing(Weights(path)) as weights:
            return _automatic(weights, options, fits)
    except LlavaEdgeError as error:
        return Choice(ALONE, f"{error.expected}, found {error.got}")


def _automatic(weights: Weights, options: LoadOptions, fits: Callable[[LoadOptions], bool]) -> Choice:
    kinds = {BY_NUMBER[one.type].name for name, one in weights.tensors.items() if name.startswith("blk.")}
    if kinds <= set(FULL_PRECISION):
        return Choice(ALONE, f"a model in {'/'.join(sorted(kinds))} is read exactly")
    needed = int8_bytes(weights)
    if needed < LEAST_FOR_INT8:
        return Choice(ALONE, "a small model")
    if not int8_sums_known():  # 7-bit weights would do, and are within the rule, but who knows that they are needed?
        return Choice(ALONE, "nothing here tells whether sums of int8 products are exact")
    if not fits(options):
        return Choice(ALONE, f"memory: int8 weights take {needed / 2**30:.1f} GiB more")
    register()
    try:
        gain = speed_up(weights, repack=bool(options.repack))
    except (AttributeError, RuntimeError, OSError, MemoryError) as error:  # a library that is another
        return Choice(ALONE, f"a trial of both failed: {type(error).__name__}")
    rate = f"products at {gain:.1f} times llama.cpp's rate here"
    return Choice(ENGINE, rate) if gain >= LEAST_GAIN else Choice(ALONE, rate)
