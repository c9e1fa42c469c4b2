"""The peer llama.cpp: mtmd and a bare loop through llama-cpp-python, on the bundle's own GGUF.

It does what llama-cpp-python's ``Llava16ChatHandler`` does, with the prompt of the bundle's template:
the picture goes through mtmd, one slice after the other, into the context; at every call the cache is
cleared and everything done again. Batch sizes, threads and repacking are ours. (The handler itself
can't be used where repacking must be off, and tells no parts apart.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.bundle import Bundle
from ...runtime.options import LoadOptions
from ...runtime.pictures.picture import load_picture
from ...runtime.prompts.template import Control, ImageSlot, Plain, TemplateMessage, render
from ...runtime.prompts.template_spec import TemplateSpec
from ...runtime.system.machine import physical_cores
from .bare_loop import BareLoop
from .mtmd import Mtmd
from .task import Figures, Task

POSITIONS_A_PICTURE = 5 * 1024
"""Room for mtmd's slices: at most five of 576 positions with LLaVA-NeXT's pinpoints, text beside them."""


def ask(task: Task) -> Figures:
    """Load, ask about the picture, ask again from the start."""
    bundle = Bundle.open(task.bundle)
    spec = bundle.manifest.template
    threads = task.threads or physical_cores()
    picture = np.asarray(load_picture(task.image).image)
    began = time.perf_counter()
    with (
        closing(
            BareLoop(bundle.llm_path, LoadOptions(), threads, positions=POSITIONS_A_PICTURE + 2 * task.tokens)
        ) as llm,
        closing(Mtmd(Path(task.projector), llm.model, threads=threads)) as mtmd,
    ):
        load = time.perf_counter() - began
        question = TemplateMessage("user", task.question, 1)
        first = _prompt(mtmd, llm, picture, _around_picture(spec, [question]))
        tokens, decode = _decode(llm, first.token, first.positions, task.tokens)
        answer = TemplateMessage("assistant", b"".join(map(llm.spell, tokens)).decode(errors="replace"))
        again = [question, answer, TemplateMessage("user", task.follow_up)]
        second = _prompt(mtmd, llm, picture, _around_picture(spec, again))
    return Figures(
        load=load,
        encode=first.encode,
        prefill=first.prefill,
        first_token=first.seconds,
        decode=(len(tokens) - 1) / decode if len(tokens) > 1 else None,
        second=second.seconds,
        prompt_tokens=first.positions,
        image_tokens=first.picture_positions,
        tokens=len(tokens),
        settings=f"{bundle.manifest.llm.recipe}, vision f16",
        versions={"llama-cpp-python": version("llama-cpp-python")},
    )


@dataclass(frozen=True)
class _Prompt:
    """What prefilling a prompt cost, and the first token of its answer."""

    encode: float
    prefill: float
    seconds: float
    positions: int
    picture_positions: int
    token: int


def _prompt(mtmd: Mtmd, llm: BareLoop, picture: npt.NDArray[np.uint8], around: tuple[str, str]) -> _Prompt:
    """Clear the cache and bring text, picture and text into it, in mtmd's order."""
    began = time.perf_counter()
    encode = prefill = 0.0
    positions = picture_positions = 0
    llm.clear()
    for part in mtmd.parts(picture, *around):
        started = time.perf_counter()
        if part.tokens is not None:
            llm.read(part.tokens, positions)
            positions += len(part.tokens)
        else:
            features = mtmd.features(part)
            encode += time.perf_counter() - started
            started = time.perf_counter()
            llm.prefill(features, positions)
            positions += len(features)
            picture_positions += len(features)
        prefill += time.perf_counter() - started
    token = llm.likeliest()
    return _Prompt(encode, prefill, time.perf_counter() - began, positions, picture_positions, token)


def _decode(llm: BareLoop, token: int, position: int, count: int) -> tuple[list[int], float]:
    """At most ``count`` tokens, ``token`` the first, and the seconds that those after it took."""
    tokens = [token]
    began = time.perf_counter()
    while len(tokens) < count and not llm.is_end(tokens[-1]):
        llm.read(tokens[-1:], position + len(tokens) - 1)
        tokens.append(llm.likeliest())
    return tokens, time.perf_counter() - began


def _around_picture(spec: TemplateSpec, messages: Sequence[TemplateMessage]) -> tuple[str, str]:
    """The rendered conversation in front of its picture and behind it, control tokens spelt out."""
    names = {index: name for name, index in spec.special_tokens.items()}
    sides: list[list[str]] = [[], []]
    side = 0
    for piece in render(spec, messages):
        if isinstance(piece, ImageSlot):
            side = 1
        elif isinstance(piece, Control):
            sides[side].append(names.get(piece.token, ""))
        elif isinstance(piece, Plain):
            sides[side].append(piece.text)
    return "".join(sides[0]), "".join(sides[1])
