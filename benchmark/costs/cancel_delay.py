"""How long a cancel takes: seconds from the wish to the end of a question, by what was computed.

``python -m llava_edge.benchmark.costs.cancel_delay -m BUNDLE`` asks about a new picture again and again, and wants no
answer any more after a drawn part of its encoding, its reading or its answer. Aim: 0.1 s on a CPU.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...runtime import load
from ...runtime.model import Model
from ..speed.machine import describe_machine, machine_line

QUESTION = "Describe in as many words as you like what could be seen here."
PHASES = ("encode", "prefill", "decode")
Progress = Callable[[int, int], None]


class Wish:
    """No answer is wanted any more from a drawn moment of one phase on."""

    def __init__(self, phase: str, share: float, seconds: float) -> None:
        """``share`` of the phase's steps, and so many ``seconds`` into the next one."""
        self._phase, self._share, self._seconds = phase, share, seconds
        self._from: float | None = None
        self.at: float | None = None

    def reached(self, phase: str, done: int, total: int) -> None:
        """Hear how far a phase is."""
        if phase == self._phase and self._from is None and done >= self._share * total:
            self._from = time.perf_counter() + self._seconds

    def __call__(self) -> bool:
        """Whether to end; the first yes is noted."""
        if self.at is None and self._from is not None and time.perf_counter() >= self._from:
            self.at = time.perf_counter()
        return self.at is not None


def delay(model: Model, phase: str, draw: random.Random, tokens: int) -> float | None:
    """Seconds from one wish to its question's end; None where the phase was over before."""
    picture = np.random.default_rng(draw.randrange(2**32)).integers(0, 255, (480, 640, 3), np.uint8)
    wish = Wish(phase, draw.random() * 0.8, draw.random() * 0.3 if phase != "decode" else 0.0)
    heard = {one: _listener(wish, one) for one in PHASES}
    pieces = model.chat().stream(
        QUESTION,
        images=[picture],
        on_encode=heard["encode"],
        on_prefill=heard["prefill"],
        cancelled=wish,
        max_tokens=tokens,
    )
    for count, _ in enumerate(pieces):
        wish.reached("decode", count, tokens)
    return None if wish.at is None else time.perf_counter() - wish.at


def _listener(wish: Wish, phase: str) -> Progress:
    def hear(done: int, total: int) -> None:
        wish.reached(phase, done, total)

    return hear


def main() -> None:
    """Parse the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("--times", type=int, default=20, help="cancels a phase")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--isolate", choices=("llm", "engine"))
    parser.add_argument("--prompt-engine", choices=("auto", "llama.cpp", "onnxruntime"), default="auto")
    arguments = parser.parse_args()
    print(f"{machine_line(describe_machine())}\n\n| phase | median | largest | missed |\n|---|---|---|---|", flush=True)
    draw, missed = random.Random(0), Counter[str]()
    with load(arguments.model, isolate=arguments.isolate or False, prompt_engine=arguments.prompt_engine) as model:
        model.ask(QUESTION, max_tokens=2)
        for phase in PHASES:
            found: list[float] = []
            for _ in range(arguments.times):
                if (seconds := delay(model, phase, draw, arguments.tokens)) is None:
                    missed[phase] += 1
                else:
                    found.append(seconds)
            figures = [f"{statistics.median(found):.3f} s", f"{max(found):.3f} s"] if found else ["", ""]
            print(f"| {phase} | {' | '.join(figures)} | {missed[phase]} |", flush=True)


if __name__ == "__main__":
    main()
