"""Our decoding and prefill against a bare ``llama_decode`` loop on the same GGUF, in the same run.

``python -m llava_edge.benchmark.speed.llm_speed`` writes a seeded model of Llama-3.2-1B's shape, quantizes
it with llama.cpp and times both in turn. Aim: at least 97 % of the bare loop.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...runtime.ggml.importing import lib
from ...runtime.ggml.library import start_native
from ...runtime.language.generation import generate, new_run
from ...runtime.language.kv_cache import KvCache
from ...runtime.language.llm import Llm
from ...runtime.options import GenerationOptions, LoadOptions, make_options
from ...runtime.processes.repacking import settle_repacking
from ...runtime.prompts.prompt import Prompt
from ...runtime.prompts.segments import ImageSegment, TextSegment
from ..contestants.bare_loop import BareLoop
from .busy import beside, busy_processes
from .machine import describe_machine, machine_line

PICTURE = 1024
"""Embedding positions of a prefill run, unless asked otherwise."""
ROOM = 1024
"""Positions for the answer."""


def measure_llm(
    path: Path, *, runs: int, tokens: int, options: LoadOptions, positions: int = PICTURE
) -> dict[str, list[float]]:
    """Seconds of our and the bare prefill of ``positions`` embeddings and decoding, in turns, ``runs`` times."""
    limit = positions + ROOM
    llm = Llm(path, options=options)
    llm.ensure_context(limit)
    bare = BareLoop(path, options, llm.threads, positions=limit)
    image = np.random.default_rng(1).standard_normal((positions, llm.dim), np.float32) * 0.05
    seconds: dict[str, list[float]] = {name: [] for name in ("prefill", "bare prefill", "decode", "bare decode")}
    cache = KvCache(llm, batch=options.batch)
    prompt = Prompt((ImageSegment("noise", positions), TextSegment((4, 5, 6))), {"noise": image})
    settings = GenerationOptions(max_tokens=tokens, temperature=0.0)
    for _ in range(runs + 1):  # the first run warms up and is thrown away
        cache.clear()
        ours = _timed(lambda: cache.prefill(prompt.segments[:1], prompt.rows))
        run = new_run(settings)
        for _ in generate(llm, cache, prompt, options=settings, room=min(tokens, limit - len(prompt)), run=run):
            pass
        bare.clear()
        seconds["prefill"].append(ours)
        seconds["decode"].append(run.decode / max(len(run.tokens) - 1, 1))
        seconds["bare prefill"].append(_timed(lambda: bare.prefill(image)))
        count = max(len(run.tokens) - 1, 1)
        seconds["bare decode"].append(_timed(lambda: bare.decode(count, len(image))) / count)  # noqa: B023
    bare.close()
    llm.close()
    return {name: values[1:] for name, values in seconds.items()}


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def report(seconds: dict[str, list[float]]) -> str:
    """Medians and the median of the pairwise ratios (bare time over ours: 1 is as fast)."""
    lines = [f"{'':<10}{'ours':>12}{'bare':>12}{'of bare':>10}"]
    for name, unit, factor in (("prefill", "s", 1.0), ("decode", "ms/token", 1e3)):
        ours, bare = seconds[name], seconds[f"bare {name}"]
        ratio = statistics.median(b / a for a, b in zip(ours, bare, strict=True))
        figures = f"{statistics.median(ours) * factor:>12.3f}{statistics.median(bare) * factor:>12.3f}"
        lines.append(f"{name:<10}{figures}{ratio:>10.1%}  {unit}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, make the model if none is given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, help="a GGUF file; a seeded one without it")
    parser.add_argument("--type", default="q4_k_m", help="llama.cpp type of the seeded model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--micro-batch", type=int, default=512)
    parser.add_argument("--flash-attention", choices=("on", "off"), default="off")
    parser.add_argument("--kv-type", choices=("f16", "f32"), default="f16")
    parser.add_argument("--positions", type=int, default=PICTURE, help="embeddings to prefill")
    parser.add_argument("--repack", choices=("on", "off"), help="rearranged weights; as in a chat without it")
    parser.add_argument("--prompt-engine", choices=("llama.cpp", "onnxruntime"), default="llama.cpp")
    parser.add_argument("--beside", type=int, default=0, help="busy processes that compute meanwhile")
    arguments = parser.parse_args()
    flash = arguments.flash_attention == "on"
    chosen = make_options(
        LoadOptions,
        threads=arguments.threads,
        micro_batch=arguments.micro_batch,
        flash_attention=flash,
        kv_type_k=arguments.kv_type,
        kv_type_v=arguments.kv_type,
        prompt_engine=arguments.prompt_engine,
        repack={"on": True, "off": False, None: None}[arguments.repack],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.gguf or _seeded(Path(folder), arguments.type)
        options = settle_repacking(chosen, path)
        counts = {"runs": arguments.runs, "tokens": arguments.tokens, "positions": arguments.positions}
        with busy_processes(arguments.beside):
            seconds = measure_llm(path, **counts, options=options)
    disturbed = f", {beside(arguments.beside)}" if arguments.beside else ""
    print(f"{machine_line(describe_machine())}{disturbed}\n\n{report(seconds)}")


def _seeded(folder: Path, recipe: str) -> Path:
    from ..seeded.llm import SHAPE_1B, write_seeded_llm

    write_seeded_llm(folder / "f16.gguf", SHAPE_1B)
    start_native()
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{recipe.upper()}")
    lib.llama_model_quantize(str(folder / "f16.gguf").encode(), str(folder / "llm.gguf").encode(), parameters)
    (folder / "f16.gguf").unlink()
    return folder / "llm.gguf"


if __name__ == "__main__":
    main()
