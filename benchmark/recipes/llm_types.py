"""What an LLM's types cost and gain on this machine: divergence of a real model, time of one of a real size.

    python -m llava_edge.benchmark.recipes.llm_types divergence MODEL.gguf --text TEXT --calibrate TEXT
    python -m llava_edge.benchmark.recipes.llm_types speed F16.gguf

``divergence`` takes a published quantized model, draws every weight evenly from the step that it was rounded to
(unpacked as it is, a model in 4 bits costs next to nothing in the same 4 bits), and compares each recipe with that
f16, with an importance matrix and without. ``speed`` quantizes an f16 model and times prompts and tokens.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...quantize.importance.activations import ActivationSums
from ...quantize.language.quantizer import ImportanceByWeight, quantize_llm
from ...runtime.bundle.gguf_layout import TensorSpec, lay_out_files
from ...runtime.bundle.gguf_reading import StoredTensor, read_model
from ...runtime.distances import kl_divergence
from ...runtime.ggml import rearranged
from ...runtime.ggml.llm_recipes import LLM_RECIPES, LlmRecipe
from ...runtime.ggml.types import F16, F32, row_bytes
from ...runtime.language.llm import Llm
from ...runtime.options import LoadOptions, PromptEngineName
from ...runtime.processes.repacking import settle_repacking
from ..costs.prompt_engine_cost import read_pieces
from ..speed.machine import describe_machine, machine_line

VALUES = (r"attn_v\.weight$", "q8_0")
DOWN = (r"ffn_down\.weight$", "q8_0")
CANDIDATES: dict[str, LlmRecipe] = {
    "q8_0": LLM_RECIPES["q8_0"],
    "q5_k_m": LLM_RECIPES["q5_k_m"],
    "q4_k_m": LLM_RECIPES["q4_k_m"],
    "iq4_xs": LLM_RECIPES["iq4_xs"],
    "iq4_nl": LlmRecipe("iq4_nl", 25),
    "q4_0": LLM_RECIPES["q4_0"],
    "q4_0,head": LlmRecipe("q4_0", 2, "q8_0"),
    "q4_0,head,v": LlmRecipe("q4_0", 2, "q8_0", (VALUES,)),
    "q4_0,head,v,down": LlmRecipe("q4_0", 2, "q8_0", (VALUES, DOWN)),
    "q4_1": LlmRecipe("q4_1", 3),
    "q4_1,head": LlmRecipe("q4_1", 3, "q8_0"),
    "q4_1,head,v": LlmRecipe("q4_1", 3, "q8_0", (VALUES,)),
    "q4_1,head,v,down": LlmRecipe("q4_1", 3, "q8_0", (VALUES, DOWN)),
    "q4_k_m,head": LlmRecipe("q4_k", 15, "q8_0"),
}
"""Recipes, and mixtures of a type with q8_0 for the head, the values and the second half of the feed-forward."""
ENGINES: tuple[PromptEngineName, ...] = ("llama.cpp", "onnxruntime")
WARMING = 64
BLOCK = 32
"""Weights that share a scale in the types of 4 and 5 bits."""
CHUNK = 512
"""Tokens of a chunk that a matrix is computed on."""


def unpack(source: Path, destination: Path, *, seed: int = 0) -> None:
    """Write the quantized model ``source`` in f16, each weight drawn evenly from the step it was rounded to.

    A block's step is the smallest difference between two of its values.
    """
    import gguf

    model, random = read_model(source), np.random.default_rng(seed)
    specs = [
        TensorSpec(
            one.name, one.shape, kind := F32 if len(one.shape) < 2 else F16, _rows(one) * row_bytes(kind, one.shape[0])
        )
        for one in model.tensors
    ]
    (file,) = lay_out_files(model.pairs, specs, name=destination.name)
    with destination.open("wb") as output:
        output.write(file.head)
        for tensor, place in zip(model.tensors, file.places, strict=True):
            raw = np.fromfile(tensor.path, np.uint8, tensor.size, offset=tensor.offset)
            rows = raw.reshape(_rows(tensor), -1)
            kind = gguf.GGMLQuantizationType(tensor.type)
            values = gguf.dequantize(rows.view(np.float32) if tensor.type == F32 else rows, kind)
            values = np.asarray(values, np.float32).reshape(_rows(tensor), tensor.shape[0])
            if len(tensor.shape) == 2:
                values = _spread(values, random).astype(np.float16)
            output.seek(place.offset)
            output.write(values.tobytes())
        output.truncate(file.size)


def _rows(tensor: StoredTensor) -> int:
    return tensor.shape[1] if len(tensor.shape) == 2 else 1


def _spread(values: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    for first in range(0, len(values), 4096):
        part = values[first : first + 4096]
        blocks = part.reshape(-1, BLOCK)
        gaps = np.diff(np.sort(blocks, axis=1), axis=1)
        large = np.abs(blocks).max(axis=1, keepdims=True)
        gaps[gaps <= 1e-4 * large] = np.inf  # equal but for rounding
        step = gaps.min(axis=1, keepdims=True)
        step[~np.isfinite(step)] = 0
        blocks += step * random.uniform(-0.5, 0.5, blocks.shape).astype(np.float32)
    return values


def text_importance(path: Path, text: str, *, chunks: int) -> ImportanceByWeight:
    """The importance matrix of the model at ``path`` on the first ``chunks`` chunks of a text."""
    sums = ActivationSums()
    with closing(
        Llm(path, options=LoadOptions(gpu_layers=0, repack=False, batch=CHUNK, prompt_engine="llama.cpp"))
    ) as llm:
        llm.watch(sums.callback)
        tokens = llm.tokenize(text)[: chunks * CHUNK]
        llm.ensure_context(CHUNK)
        for first in range(0, len(tokens), CHUNK):
            llm.truncate(0)
            llm.decode_tokens(tokens[first : first + CHUNK], 0, logits=True, every=True)
            sums.check()
    return {name: entry.importance() for name, entry in sums.entries().items()}


def divergences(
    reference: Path,
    text: str,
    recipes: Sequence[str],
    importance: ImportanceByWeight,
    *,
    pieces: int,
    engines: Sequence[PromptEngineName] = ("llama.cpp", "onnxruntime"),
) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """(recipe, matrix, bytes, mean KL by what reads the prompts) from the f16 model ``reference``."""
    counts = {"positions": 256, "pieces": pieces}
    expected = list(read_pieces(reference, text, engine="llama.cpp", **counts))
    with tempfile.TemporaryDirectory() as folder:
        for name in recipes:
            for matrix, by_weight in (("none", None), ("text", importance)):
                path = Path(folder) / "llm.gguf"
                quantize_llm(reference, path, recipe=CANDIDATES[name], importance=by_weight)
                found: dict[str, float] = {}
                for engine in engines:
                    pairs = zip(expected, read_pieces(path, text, engine=engine, **counts), strict=True)
                    found[engine] = float(np.mean([kl_divergence(one, other) for one, other in pairs]))
                yield name, matrix, path.stat().st_size, found
                path.unlink()


def speed(
    path: Path, *, positions: int, tokens: int, engine: PromptEngineName, micro_batch: int = 512, alone: bool = False
) -> tuple[float, float]:
    """Seconds of reading ``positions`` embeddings, and of a token behind them (median).

    ``alone``: CPU seconds of one thread, for a machine that does other work as well.
    """
    clock = time.process_time if alone else time.perf_counter
    options = LoadOptions(
        gpu_layers=0, prompt_engine=engine, batch=micro_batch, micro_batch=micro_batch, threads=int(alone)
    )
    with closing(Llm(path, options=settle_repacking(options, path))) as llm:
        llm.ensure_context(positions + tokens)
        rows = np.random.default_rng(1).standard_normal((positions, llm.dim), np.float32) * 0.05
        llm.decode_embeddings(rows[:WARMING], 0)  # makes what is made at the first prompt
        llm.truncate(0)
        began = clock()
        for first in range(0, positions, options.batch):
            llm.decode_embeddings(rows[first : first + options.batch], first)
        prefill, times = clock() - began, []
        for at in range(positions, positions + tokens):
            began = clock()
            llm.decode_tokens([7], at, logits=True)
            times.append(clock() - began)
    return prefill, statistics.median(times)


@contextmanager
def buffers(kept: str) -> Iterator[None]:
    """Weights where a load has them ("each"), or with AMX all of them rearranged ("all"), q6_k too."""
    slower = rearranged.SLOWER
    rearranged.SLOWER = slower if kept == "each" else frozenset()
    try:
        yield
    finally:
        rearranged.SLOWER = slower


def _divergence(given: argparse.Namespace) -> None:
    text, calibration = (path.read_text(encoding="utf-8") for path in (given.text, given.calibrate))
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "f16.gguf"
        unpack(given.model, reference)
        importance = text_importance(reference, calibration, chunks=given.chunks)
        heads = " | ".join(f"KL, prompts by {engine}" for engine in given.engines)
        print(f"| recipe | matrix | bytes | {heads} |\n|---|---|---{'|---' * len(given.engines)}|")
        rows = divergences(reference, text, given.recipes, importance, pieces=given.pieces, engines=given.engines)
        for name, matrix, size, found in rows:
            figures = " | ".join(f"{value:.2e}" for value in found.values())
            print(f"| {name} | {matrix} | {size:,} | {figures} |", flush=True)


def _write(given: argparse.Namespace) -> None:
    given.folder.mkdir(exist_ok=True)
    for name in given.recipes:
        path = given.folder / f"{name}.gguf"
        if not path.exists():
            quantize_llm(given.model, path, recipe=CANDIDATES[name])
        print(path, flush=True)


def _speed(given: argparse.Namespace) -> None:
    print("| model | buffers | prompts by | micro-batch | prefill | a token | tokens a second |\n" + "|---" * 7 + "|")
    for path, kept, engine, size in product(given.models, given.buffers, given.engines, given.micro_batch):
        with buffers(kept):
            prefill, token = speed(
                path,
                positions=given.positions,
                tokens=given.tokens,
                engine=engine,
                micro_batch=size,
                alone=given.one_thread,
            )
        figures = f"{prefill:.2f} s | {token * 1e3:.1f} ms | {1 / token:.1f}"
        print(f"| {path.stem} | {kept} | {engine} | {size} | {figures} |", flush=True)


def main() -> None:
    """Parse the command line and print the table asked for."""
    parser = argparse.ArgumentParser(prog="llm_types", description=__doc__)
    commands = parser.add_subparsers(required=True)
    divergence = commands.add_parser("divergence", help="KL of each recipe from a real model")
    divergence.add_argument("model", type=Path, help="a published model as GGUF, quantized")
    divergence.add_argument("--text", type=Path, required=True, help="what is read")
    divergence.add_argument("--calibrate", type=Path, required=True, help="another text, for the matrix")
    divergence.add_argument("--pieces", type=int, default=12)
    divergence.add_argument("--engines", nargs="+", choices=ENGINES, default=["llama.cpp"])
    divergence.add_argument("--chunks", type=int, default=32)
    divergence.add_argument("--recipes", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="RECIPE")
    divergence.set_defaults(action=_divergence)
    write = commands.add_parser("write", help="quantize an f16 model to time it")
    write.add_argument("model", type=Path)
    write.add_argument("folder", type=Path)
    write.add_argument("--recipes", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="RECIPE")
    write.set_defaults(action=_write)
    timed = commands.add_parser("speed", help="time prompts and tokens")
    timed.add_argument("models", nargs="+", type=Path)
    timed.add_argument("--positions", type=int, default=1978)
    timed.add_argument("--tokens", type=int, default=32)
    timed.add_argument("--engines", nargs="+", choices=ENGINES, default=["onnxruntime"])
    timed.add_argument("--micro-batch", nargs="+", type=int, default=[512])
    timed.add_argument("--buffers", nargs="+", choices=("each", "all"), default=["each"])
    timed.add_argument("--one-thread", action="store_true", help="CPU time of one thread, beside other work")
    timed.set_defaults(action=_speed)
    given = parser.parse_args()
    print(f"{machine_line(describe_machine())}\n")
    given.action(given)


if __name__ == "__main__":
    main()
