"""What an importance matrix gains: no matrix, one of text, one of pictures, at the same file size.

    python -m llava_edge.benchmark.recipes.imatrix_gain BUNDLE [--data FOLDER] [--calibrate DATA] [--llm q4_k_m …]

Each variant of a bundle in full precision is held against it on questions it was not calibrated on: KL
divergence at every token of the given answers. Ratios are to the variant without a matrix, with a 95 %
interval by resampling pictures. The vision part stays as it is, so the matrix is all that differs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.distances import kl_divergence
from ..accuracy.bootstrap import Bootstrap
from ..accuracy.teacher_forcing import compare, force_answers, spread_questions
from ..data.questions import Question

NAMES = ("none", "text", "pictures")


@dataclass(frozen=True)
class Variant:
    """One quantized file: bytes, mean KL in nats, its ratio to none with an interval, same first choices."""

    recipe: str
    matrix: str
    size: int
    divergence: float
    ratio: float
    low: float
    high: float
    same_choice: float


def measure(
    bundle: Path,
    questions: Sequence[Question],
    *,
    recipe: str,
    matrices: Sequence[str],
    threads: int = 0,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Variant]:
    """Quantize with each of three ``matrices`` (what ``--imatrix`` takes: none, text, pictures) and compare."""
    from ...quantize.pipeline import quantize_bundle

    on_step("the reference")
    reference = force_answers(bundle, questions, threads=threads)
    draws = Bootstrap([str(question.images) for question in questions])
    base: list[float] = []
    variants = []
    for name, matrix in zip(NAMES, matrices, strict=True):
        on_step(f"{recipe}, {name}")
        with tempfile.TemporaryDirectory() as scratch:
            small = Path(scratch) / "bundle"
            manifest = quantize_bundle(bundle, small, llm=recipe, vision="keep", imatrix=matrix)
            pairs = list(zip(reference, force_answers(small, questions, threads=threads), strict=True))
            size = (small / manifest.llm.file).stat().st_size
        sums = [float(kl_divergence(*pair).sum()) for pair in pairs]
        base = base or sums
        ratio = draws.ratio(sums, base)  # all answer the same tokens, so the ratio of sums is that of means
        divergence, same_choice = compare(pairs)
        variants.append(Variant(recipe, name, size, divergence, ratio.value, ratio.low, ratio.high, same_choice))
    return variants


def table(variants: Sequence[Variant]) -> str:
    """The variants in Markdown."""
    lines = [
        "| LLM | matrix | bytes | KL (nats) | ratio to none | 95 % | same first choice |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.recipe} | {one.matrix} | {one.size:,} | {one.divergence:.2e} | {one.ratio:.2f} "
        f"| {one.low:.2f} to {one.high:.2f} | {one.same_choice:.2%} |"
        for one in variants
    ]
    return "\n".join(lines)


def main(show: Callable[[str], None] = print) -> None:
    """Print the table."""
    import sys

    parser = argparse.ArgumentParser(prog="imatrix_gain", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="in full precision, as 'llava-edge export' writes it")
    parser.add_argument("--data", default="demo", help="held-out questions: demo, or a folder in LLaVA's JSON format")
    parser.add_argument("--calibrate", default="demo", help="calibration data, not the held-out ones")
    parser.add_argument("--text", help="text for the text-only matrix; else the calibration's own, without pictures")
    parser.add_argument("--llm", nargs="+", default=["q4_k_m"], help="LLM recipes")
    parser.add_argument("--limit", type=int, default=0, help="questions; 0 takes all")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    questions = spread_questions(given.data, given.limit)
    matrices = ("none", f"calibrate-text:{given.text or given.calibrate}", f"calibrate:{given.calibrate}")
    variants = [
        one
        for recipe in given.llm
        for one in measure(
            given.bundle,
            questions,
            recipe=recipe,
            matrices=matrices,
            threads=given.threads,
            on_step=lambda step: print(step, file=sys.stderr, flush=True),
        )
    ]
    show(table(variants))


if __name__ == "__main__":
    main()
