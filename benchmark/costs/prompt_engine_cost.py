"""What reading prompts in int8 costs: divergence from a reference model, beside llama.cpp's own on the same file.

``python -m llava_edge.benchmark.costs.prompt_engine_cost --reference F16.gguf --candidate Q4.gguf TEXT`` reads pieces
of a text with each model and each prompt engine, and compares the distribution of the next token, behind the piece and
along the text that follows it. Aim: at most a tenth more than llama.cpp's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.distances import kl_divergence, log_softmax
from ...runtime.language.llm import Llm
from ...runtime.options import LoadOptions, PromptEngineName
from ..speed.machine import describe_machine, machine_line

FOLLOWING = 16
"""Tokens behind each piece, computed one by one as in an answer."""


def read_pieces(
    path: Path, text: str, *, engine: PromptEngineName, positions: int, pieces: int
) -> Iterator[npt.NDArray[np.float64]]:
    """Log-probabilities (vocab,) behind each piece and each token that follows it, in order.

    Raises ValueError where the text is too short.
    """
    options = LoadOptions(gpu_layers=0, batch=positions, prompt_engine=engine)
    with closing(Llm(path, options=options)) as llm:
        tokens = llm.tokenize(text)
        if len(tokens) < pieces * positions + FOLLOWING:
            raise ValueError(f"a text of {pieces * positions + FOLLOWING} tokens is needed, this one has {len(tokens)}")
        llm.ensure_context(positions + FOLLOWING)
        for first in range(0, pieces * positions, positions):
            piece = tokens[first : first + positions + FOLLOWING]
            llm.truncate(0)
            llm.decode_tokens(piece[:positions], 0, logits=True)
            yield log_softmax(llm.logits())
            for at in range(positions, len(piece)):
                llm.decode_tokens(piece[at : at + 1], at, logits=True)
                yield log_softmax(llm.logits())


def divergences(
    reference: Path, candidate: Path, text: str, *, positions: int, pieces: int
) -> dict[str, npt.NDArray[np.float64]]:
    """KL from the reference read by llama.cpp, of each model and engine."""
    expected = list(read_pieces(reference, text, engine="llama.cpp", positions=positions, pieces=pieces))
    rows: Sequence[tuple[str, Path, PromptEngineName]] = (
        ("candidate, llama.cpp", candidate, "llama.cpp"),
        ("candidate, onnxruntime", candidate, "onnxruntime"),
        ("reference, onnxruntime", reference, "onnxruntime"),
    )
    return {
        name: np.array(
            [
                float(kl_divergence(one, other))
                for one, other in zip(
                    expected, read_pieces(path, text, engine=engine, positions=positions, pieces=pieces), strict=True
                )
            ]
        )
        for name, path, engine in rows
    }


def report(found: dict[str, npt.NDArray[np.float64]]) -> str:
    """A table: mean, median and largest KL, and the mean over llama.cpp's for the candidate."""
    base = found["candidate, llama.cpp"].mean()
    lines = ["| | mean KL | median | largest | of llama.cpp's |", "|---|---|---|---|---|"]
    for name, values in found.items():
        figures = [f"{one:.2e}" for one in (values.mean(), np.median(values), values.max())]
        lines.append(f"| {name} | {' | '.join(figures)} | {values.mean() / base:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="GGUF in f16 or f32")
    parser.add_argument("--candidate", type=Path, required=True, help="the same model quantized")
    parser.add_argument("text", type=Path, help="a file of text")
    parser.add_argument("--positions", type=int, default=256, help="tokens a piece, at least 64")
    parser.add_argument("--pieces", type=int, default=12)
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    counts = {"positions": arguments.positions, "pieces": arguments.pieces}
    try:
        found = divergences(arguments.reference, arguments.candidate, text, **counts)
    except ValueError as error:
        sys.exit(str(error))
    print(f"{machine_line(describe_machine())}\n\n{report(found)}")


if __name__ == "__main__":
    main()
