"""``--for``: the recipes for a kind of machine, and which kind this one is (``docs/quantization.md``)."""

from __future__ import annotations

import platform
from collections.abc import Collection
from typing import NamedTuple

from ..runtime.errors import OptionError
from ..runtime.ggml.devices import has_gpu
from ..runtime.ggml.llm_recipes import MACHINES
from ..runtime.option_checks import repeated
from ..runtime.pictures.vision_recipes import choose_vision
from ..runtime.system.machine import processor_flags
from .vision.choice import choose_vision_here

HERE = "this"
"""The word for the machine that the command runs on."""
_CPU = "CPUExecutionProvider"


class Chosen(NamedTuple):
    """A kind of machine, the recipes for it, and why these."""

    machine: str
    llm: str
    vision: str
    why: str


class _Kind(NamedTuple):
    """An LLM recipe and why; flags and onnxruntime's provider that ``--vision auto`` would find there."""

    llm: str
    why: str
    flags: frozenset[str]
    provider: str = _CPU


_KINDS = {
    "avx2": _Kind("q4_k_m", "its products are the fastest there in prompts and tokens", frozenset({"avx2"})),
    "avx512": _Kind(
        "q4_k_m", "not measured there; its products are of avx2's kind", frozenset({"avx2", "avx512f", "avx512_vnni"})
    ),
    "amx": _Kind(
        "q4_k_m",
        "prompts are read in int8 whatever the type, and types that decode faster cost more accuracy",
        frozenset({"avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_int8"}),
    ),
    "arm": _Kind("q4_k_m", "not measured there; llama.cpp has products for it", frozenset({"asimd", "asimddp"})),
    "cuda": _Kind("q4_k_m", "not measured there; llama.cpp has products for it", frozenset(), "CUDAExecutionProvider"),
}


def recipes_for(machine: str) -> Chosen:
    """The recipes for a kind of machine, or for "this" one. Raises :class:`OptionError`."""
    if machine == HERE:
        kind = kind_of(processor_flags(), platform.machine(), gpu=has_gpu())
        return Chosen(kind, _KINDS[kind].llm, choose_vision_here(), _KINDS[kind].why)
    if machine not in _KINDS:
        raise OptionError(
            expected=f"a machine among {', '.join((HERE, *MACHINES))}", got=repeated(machine), fix="choose one"
        )
    one = _KINDS[machine]
    return Chosen(machine, one.llm, choose_vision(one.flags, [one.provider]), one.why)


def kind_of(flags: Collection[str], architecture: str, *, gpu: bool) -> str:
    """Which of ``MACHINES`` a machine is: its processor's flags as Linux names them, and whether llama.cpp has a GPU.

    Raises :class:`OptionError` for one that is none of them.
    """
    if gpu:
        return "cuda"
    for flag, kind in (("amx_tile", "amx"), ("avx512f", "avx512"), ("avx2", "avx2")):
        if flag in flags:
            return kind
    if "asimd" in flags or architecture.lower() in ("arm64", "aarch64"):
        return "arm"
    raise OptionError(
        expected=f"a machine that is known: {', '.join(MACHINES)}",
        got=f"{architecture or 'one that does not tell'} without AVX2, or whose abilities nobody tells",
        fix="name one with --for, or give --llm and --vision",
    )
