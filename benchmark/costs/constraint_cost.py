"""What holding an answer to a JSON Schema costs a token, at the vocabulary of a large model.

``python -m llava_edge.benchmark.costs.constraint_cost`` writes a seeded model of one small layer with 151 936 tokens,
and draws the same length of answer with and without a schema. Aim: at most 1 ms a token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ...runtime.language.llm import Llm
from ...runtime.options import GenerationOptions, LoadOptions
from ...runtime.planning.shapes import LlmShape
from ..seeded.llm import seeded_words, write_seeded_llm
from ..speed.machine import describe_machine, machine_line

VOCABULARY = 151_936
"""That of Qwen 1.5 and 2, the largest that is exported."""
PROPERTIES = {
    "name": {"type": "string", "maxLength": 60},
    "count": {"type": "integer", "minimum": 0, "maximum": 500},
    "colours": {"type": "array", "items": {"enum": ["red", "green", "blue", "yellow"]}, "maxItems": 8},
    "box": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
    "note": {"type": "string", "minLength": 200},
}
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": list(PROPERTIES), "additionalProperties": False}


@dataclass(frozen=True)
class Costs:
    """Seconds: building over the vocabulary, compiling a schema, and each draw with and without it."""

    build: float
    compile: float
    held: tuple[float, ...]
    free: tuple[float, ...]

    @property
    def added(self) -> float:
        """What a schema adds to the mean draw."""
        return statistics.mean(self.held) - statistics.mean(self.free)

    def __str__(self) -> str:
        held = sorted(self.held)
        return (
            f"vocabulary {self.build:.2f} s once, schema {self.compile * 1e3:.1f} ms; a draw with it "
            f"{statistics.mean(held) * 1e3:.2f} ms (median {statistics.median(held) * 1e3:.2f}, "
            f"99 % {held[int(len(held) * 0.99)] * 1e3:.2f}), without {statistics.mean(self.free) * 1e3:.2f} ms: "
            f"{self.added * 1e3:.2f} ms a token over {len(held)} tokens"
        )


def measure(*, vocabulary: int = VOCABULARY, tokens: int = 200) -> Costs:
    """Draw ``tokens`` twice from a seeded model, at temperature 1."""
    shape = LlmShape(
        architecture="llama", layers=1, dim=64, heads=2, kv_heads=2, head_dim=32, feed_forward=64,
        vocabulary=vocabulary, context_length=4096,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="llava-edge-constraint-") as folder:
        path = Path(folder) / "llm.gguf"
        write_seeded_llm(path, shape, words=seeded_words(vocabulary))
        llm = Llm(path, options=LoadOptions(), space_prefixed=True)
    try:
        options = GenerationOptions(schema=SCHEMA, temperature=1.0)
        began = time.perf_counter()
        llm.check(GenerationOptions(regex="a"))
        built = time.perf_counter()
        llm.check(options)
        compiled = time.perf_counter()
        held, free = _draws(llm, options, tokens), _draws(llm, GenerationOptions(temperature=1.0), tokens)
    finally:
        llm.close()
    return Costs(built - began, compiled - built, held, free)


def _draws(llm: Llm, options: GenerationOptions, tokens: int) -> tuple[float, ...]:
    llm.ensure_context(tokens + 1)
    llm.truncate(0)
    llm.decode_tokens([1], 0, logits=True)
    sampler = llm.sampler(options, seed=0, recent=[])
    seconds = []
    try:
        for position in range(tokens):
            began = time.perf_counter()
            token = sampler.sample()
            seconds.append(time.perf_counter() - began)
            if options.form is not None and llm.is_end(token):
                break
            llm.decode_tokens([token], position + 1, logits=True)
    finally:
        sampler.close()
    return tuple(seconds)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a JSON Schema costs a token.")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    costs = measure(vocabulary=chosen.vocabulary, tokens=chosen.tokens)
    if chosen.json:
        print(json.dumps({**vars(costs), "added": costs.added}))
        return
    print(machine_line(describe_machine()))
    print(costs)


if __name__ == "__main__":
    main()
