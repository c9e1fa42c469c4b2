"""A prompt read with flash attention and answered without: seconds and divergence beside reading it as usual.

    python -m llava_edge.benchmark.costs.flash_handover MODEL.gguf --positions 1978
    python -m llava_edge.benchmark.costs.flash_handover Q4.gguf --reference F16.gguf --text FILE --positions 256

llama.cpp's flash kernel is faster for chunks and slower for tokens. So one context reads, and the state goes to a
second one of the same model, which keeps values transposed: the handover. The divergence is that of the next tokens
from the reference read as usual. Prompts are read by llama.cpp here; the onnxruntime engine needs no flash attention.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.distances import kl_divergence, log_softmax
from ...runtime.language.llm import Llm
from ...runtime.options import LoadOptions, make_options
from ...runtime.processes.repacking import settle_repacking
from ..speed.machine import describe_machine, machine_line

FOLLOWING = 16
"""Tokens behind a prompt, computed one by one as in an answer."""
Clock = Callable[[], float]
HALF = np.dtype(np.float16)
_HEAD, _CELL, _COUNT = 16, 12, 4
"""Bytes of a state's head (magic number, sequence, streams, cells), of a cell, and of a number."""


def transpose_values(state: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The state of a context with flash attention and an f16 cache, as one without it takes it.

    ``llama_state_seq_get_data`` of llama.cpp 0.3.36's writes cells, then each layer's keys, then its values: by
    position, and by column where attention is not flash.
    """
    cells = int(state[12:16].view(np.uint32)[0])
    at = _HEAD + cells * _CELL
    transposed, layers = state[at : at + 2 * _COUNT].view(np.uint32)
    if transposed:
        raise ValueError("a state whose values are transposed already")
    begin = at + 2 * _COUNT
    parts = [state[:at], np.array([1, layers], np.uint32).view(np.uint8)]
    at = begin
    for _ in range(layers):  # keys: type, bytes a row, rows
        at += 12 + cells * int(state[at + 4 : at + 12].copy().view(np.uint64)[0])
    parts.append(state[begin:at])
    for _ in range(layers):
        columns = int(state[at + 4 : at + 12].copy().view(np.uint64)[0]) // HALF.itemsize
        size = cells * columns * HALF.itemsize
        values = state[at + 12 : at + 12 + size].copy().view(np.uint16).reshape(cells, columns)
        head = np.array([HALF.itemsize, columns], np.uint32).view(np.uint8)
        parts += [state[at : at + 4], head, np.ascontiguousarray(values.T).reshape(-1).view(np.uint8)]
        at += 12 + size
    return np.concatenate(parts)


def read(llm: Llm, tokens: Sequence[int], batch: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of reading a prompt from its beginning, in chunks."""
    llm.truncate(0)
    began = clock()
    for first in range(0, len(tokens), batch):
        llm.decode_tokens(tokens[first : first + batch], first, logits=False)
    return clock() - began


def hand_over(source: Llm, target: Llm, clock: Clock = time.perf_counter) -> float:
    """Seconds of giving ``target`` what ``source`` has read."""
    began = clock()
    moved = transpose_values(np.frombuffer(source.save_state(), np.uint8))
    if not target.restore_state((ctypes.c_uint8 * len(moved)).from_buffer(moved.data)):
        raise RuntimeError("llama.cpp refused the state")
    return clock() - began


def following(llm: Llm, tokens: Sequence[int], position: int) -> list[Any]:
    """Log-probabilities behind each of ``tokens`` from ``position`` on."""
    found = []
    for at, token in enumerate(tokens, position):
        llm.decode_tokens([token], at, logits=True)
        found.append(log_softmax(llm.logits()))
    return found


def measure(
    path: Path,
    reference: Path | None,
    text: str,
    *,
    positions: int,
    pieces: int,
    threads: int,
    clock: Clock = time.perf_counter,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """(seconds by step, divergence by way of reading), over ``pieces`` prompts; drawn tokens without a text."""
    settled = settle_repacking(
        make_options(LoadOptions, threads=threads, prompt_engine="llama.cpp", gpu_layers=0), path
    )
    seconds: dict[str, list[float]] = {"as usual": [], "flash": [], "handover": []}
    kl: dict[str, list[float]] = {"as usual": [], "flash and handover": []}
    with ExitStack() as stack:

        def opened(file: Path, **more: Any) -> Llm:
            options = LoadOptions(
                threads=threads, gpu_layers=0, prompt_engine="llama.cpp", repack=settled.repack, **more
            )
            llm = stack.enter_context(closing(Llm(file, options=options)))
            llm.ensure_context(positions + FOLLOWING)
            return llm

        usual, flash = opened(path), opened(path, flash_attention=True)
        exact = opened(reference) if reference is not None else None
        tokens = usual.tokenize(text) if text else _drawn(usual.vocab_size, pieces * positions + FOLLOWING)
        for first in range(0, pieces * positions, positions):
            prompt, more = tokens[first : first + positions], tokens[first + positions :][:FOLLOWING]
            seconds["as usual"].append(read(usual, prompt, settled.batch, clock))
            alone = following(usual, more, positions)
            seconds["flash"].append(read(flash, prompt, settled.batch, clock))
            seconds["handover"].append(hand_over(flash, usual, clock))
            handed = following(usual, more, positions)
            if exact is not None:
                read(exact, prompt, settled.batch)
                expected = following(exact, more, positions)
                for name, found in (("as usual", alone), ("flash and handover", handed)):
                    pairs = zip(expected, found, strict=True)
                    kl[name] += [float(kl_divergence(one, other)) for one, other in pairs]
    return seconds, kl


def _drawn(vocabulary: int, count: int) -> list[int]:
    return [int(one) for one in np.random.default_rng(0).integers(3, vocabulary, count)]


def main() -> None:
    """Parse the command line, measure and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--reference", type=Path, help="the same model in f16 or f32")
    parser.add_argument("--text", type=Path, help="a file of text; drawn tokens without it")
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--pieces", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--busy", action="store_true", help="CPU time of one thread, for a machine with other work")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else ""
    seconds, kl = measure(
        arguments.gguf,
        arguments.reference,
        text,
        positions=arguments.positions,
        pieces=arguments.pieces,
        threads=1 if arguments.busy else arguments.threads,
        clock=time.process_time if arguments.busy else time.perf_counter,
    )
    print(machine_line(describe_machine()))
    for name, values in seconds.items():
        print(f"{name}: {statistics.median(values):.3f} s")
    for name, values in kl.items():
        if values:
            print(f"{name}: mean KL {statistics.fmean(values):.2e}, largest {max(values):.2e}")


if __name__ == "__main__":
    main()
