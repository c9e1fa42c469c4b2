"""What it gains to read a prompt as one run of embeddings: text and picture in the same chunks, or each in its own.

    python -m llava_edge.benchmark.costs.one_run_gain MODEL.gguf --rounds 3

A prompt of a picture between two short texts, read by onnxruntime (``docs/prompt-engine.md``), in turns. The chunks of
text alone are below what its kernels take, and so read by llama.cpp.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from ...runtime.language.kv_cache import KvCache
from ...runtime.language.llm import Llm
from ...runtime.options import LoadOptions, make_options
from ...runtime.processes.repacking import settle_repacking
from ...runtime.prompts.segments import ImageSegment, Segment, TextSegment
from ..speed.machine import describe_machine, machine_line

PICTURE, BEFORE, BEHIND = 1948, 14, 16
"""Positions of 1920x1080, and of a template with a short question."""


def measure(path: Path, *, rounds: int, threads: int, picture: int = PICTURE) -> dict[str, list[tuple[float, float]]]:
    """(seconds, seconds of CPU) of reading, by way, ``rounds`` times behind one that makes the weights."""
    chosen = make_options(LoadOptions, threads=threads, prompt_engine="onnxruntime", gpu_layers=0)
    options = settle_repacking(chosen, path)
    found: dict[str, list[tuple[float, float]]] = {"each in its own": [], "one run": []}
    with closing(Llm(path, options=options)) as llm:
        llm.ensure_context(picture + BEFORE + BEHIND)
        cache = KvCache(llm, batch=options.batch)
        rows = np.random.default_rng(0).standard_normal((picture, llm.dim), np.float32) * np.float32(0.05)
        prompt: list[Segment] = [
            TextSegment(tuple(range(5, 5 + BEFORE))),
            ImageSegment("noise", picture),
            TextSegment(tuple(range(50, 50 + BEHIND))),
        ]
        for _ in range(rounds + 1):
            for name, llm.joins_text in (("each in its own", False), ("one run", True)):
                cache.clear()
                began, busy = time.perf_counter(), time.process_time()
                cache.prefill(prompt, {"noise": rows})
                found[name].append((time.perf_counter() - began, time.process_time() - busy))
    return {name: values[1:] for name, values in found.items()}


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--picture", type=int, default=PICTURE, help="positions of the picture")
    arguments = parser.parse_args()
    found = measure(arguments.gguf, rounds=arguments.rounds, threads=arguments.threads, picture=arguments.picture)
    print(f"{machine_line(describe_machine())}\n\n| | s | least s | CPU s |\n|---|---|---|---|")
    for name, pairs in found.items():
        seconds, busy = zip(*pairs, strict=True)
        print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {statistics.median(busy):.2f} |")


if __name__ == "__main__":
    main()
