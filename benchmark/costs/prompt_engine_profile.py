"""Where the CPU time of a long prompt goes with onnxruntime's prompt engine, by kind of work.

``python -m llava_edge.benchmark.costs.prompt_engine_profile --gguf Q4.gguf`` reads positions of seeded embeddings.
CPU time of all threads together: beside other work it says more than the clock, with one thread most of all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from ...runtime.language.llm import Llm
from ...runtime.options import LoadOptions
from ..speed.machine import describe_machine, machine_line

REST = "llama.cpp's rest, and handing over"


def profile(path: Path, options: LoadOptions, *, positions: int, runs: int) -> Iterator[dict[str, float]]:
    """CPU seconds by kind, ``all`` of them, and the ``clock`` of each of the runs. The first makes the weights."""
    with closing(Llm(path, options=options)) as llm:
        llm.ensure_context(positions + 64)
        rows = np.random.default_rng(1).standard_normal((positions, llm.dim), np.float32) * 0.05
        engine = llm._prompts.engine
        for _ in range(runs):
            llm.truncate(0)
            before = {} if engine is None else engine.seconds
            began, clock = time.process_time(), time.perf_counter()
            for first in range(0, positions, options.batch):
                llm.decode_embeddings(rows[first : first + options.batch], first)
            total, clock = time.process_time() - began, time.perf_counter() - clock
            after = {} if engine is None else engine.seconds
            spent = {kind: seconds - before.get(kind, 0.0) for kind, seconds in after.items()}
            yield {**spent, REST: total - sum(spent.values()), "all": total, "clock": clock}


def report(found: dict[str, float]) -> str:
    """A table of seconds and shares of the CPU time."""
    lines = ["| | s | share |", "|---|---|---|"]
    for kind, seconds in found.items():
        share = "" if kind == "clock" else f"{seconds / found['all']:.0%}"
        lines.append(f"| {kind} | {seconds:.2f} | {share} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print the run that took least."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--positions", type=int, default=1978)
    parser.add_argument("--micro-batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3, help="besides the first, which makes the weights")
    arguments = parser.parse_args()
    options = LoadOptions(
        threads=arguments.threads,
        gpu_layers=0,
        batch=max(arguments.micro_batch, LoadOptions().batch),
        micro_batch=arguments.micro_batch,
        prompt_engine="onnxruntime",
    )
    runs = profile(arguments.gguf, options, positions=arguments.positions, runs=arguments.runs + 1)
    first, *others = runs
    best = min(others, key=lambda one: one["all"])
    print(f"{machine_line(describe_machine())}\n\nfirst run: {first['all']:.1f} s\n\n{report(best)}")


if __name__ == "__main__":
    main()
