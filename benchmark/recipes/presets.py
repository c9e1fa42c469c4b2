"""What every preset and every recipe costs: size, fidelity and time, against the bundle it was made from.

    python -m llava_edge.benchmark.recipes.presets BUNDLE [--data FOLDER] [--limit N] [--record CHECKOUT]

KL divergence is at every token of the given answers, feature error on the built-in picture; both in a
bundle whose other part is as small as the row says. Times are CPU seconds over those of the source, in
turns. ``--record`` writes the tables into docs/quantization.md and the costs into
quantize/preset_costs.py of a checkout, which ``llava-edge quantize --help`` shows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.model import Model, load
from ...runtime.pictures.built_in import built_in_picture
from ...runtime.system.machine import processor_name
from ...runtime.system.outputs import check_output_file
from ...runtime.system.storage import write_text
from ..accuracy.teacher_forcing import compare, force_answers, spread_questions
from ..data.questions import Question

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
"""Between these lines of docs/quantization.md stands what ``--record`` writes."""
ROUNDS = 5
DECODED = 24
"""Tokens decoded a round; the answer's text does not matter."""
RECIPES = (("q8_0", "keep"), ("q6_k", "keep"), ("q5_k_m", "keep"), ("q4_k_m", "keep"), ("iq4_xs", "keep"),
           ("q4_0", "keep"), ("keep", "f16"), ("keep", "int8"), ("keep", "w8"), ("keep", "w4"))  # fmt: skip
"""Each part's recipes with the other part left as it is."""


@dataclass(frozen=True)
class Row:
    """One small bundle: bytes of the source's, KL in nats, same first choices, feature error, CPU times."""

    name: str
    llm: str
    vision: str
    imatrix: str
    share: float
    divergence: float
    same_choice: float
    feature_error: float
    encode: float
    prefill: float
    decode: float


def measure(
    source: Path,
    questions: Sequence[Question],
    wanted: Sequence[tuple[str, str, str, str]],
    *,
    rounds: int = ROUNDS,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """One row for each of ``wanted``: (name, LLM recipe, vision recipe, matrix)."""
    from ...quantize.pipeline import quantize_bundle

    on_step("the source's answers")
    reference = force_answers(source, questions)
    size = _size(source)
    rows = []
    for name, llm, vision, imatrix in wanted:
        on_step(f"{name}: {llm}, {vision}, {imatrix}")
        with tempfile.TemporaryDirectory() as scratch:
            small = Path(scratch) / "bundle"
            manifest = quantize_bundle(source, small, llm=llm, vision=vision, imatrix=imatrix)
            fidelity = compare(list(zip(reference, force_answers(small, questions), strict=True)))
            times = time_ratios(source, small, rounds=rounds)
            error = manifest.vision.feature_error
            rows.append(Row(name, llm, vision, imatrix, _size(small) / size, *fidelity, error, *times))
    return rows


def time_ratios(source: Path, small: Path, *, rounds: int) -> tuple[float, float, float]:
    """Median ratios of CPU time, small to source: encoding a picture, prefilling it, decoding a token."""
    ratios: list[tuple[float, ...]] = []
    with load(source, threads=1, images_kept=0) as one, load(small, threads=1, images_kept=0) as other:
        for _ in range(rounds + 1):
            pair = [_stage_times(model) for model in (one, other)]
            ratios.append(tuple(ours / base for base, ours in zip(*pair, strict=True)))
    encode, prefill, decode = (statistics.median(column) for column in zip(*ratios[1:], strict=True))  # first: warm-up
    return encode, prefill, decode


def _stage_times(model: Model) -> tuple[float, float, float]:
    """CPU seconds of one thread: encoding the built-in picture, prefilling it, decoding a few tokens."""
    started = time.process_time()
    image = model.encode_image(built_in_picture(model.manifest.geometry))
    encoded = time.process_time()
    engine = model.engine
    engine.llm.ensure_context(image.layout.image_tokens + DECODED)
    engine.cache.clear()
    engine.cache.prefill([image.segment], {image.key: image.embeddings})
    prefilled = time.process_time()
    for _ in range(DECODED):
        engine.cache.append(0)
    return encoded - started, prefilled - encoded, time.process_time() - prefilled


def _size(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.iterdir())


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    columns = "LLM | vision | matrix | size | KL (nats) | same first choice | feature error | encode | prefill | decode"
    lines = [f"| | {columns} |", "|---" * 11 + "|"]
    lines += [
        f"| {one.name} | {one.llm} | {one.vision} | {one.imatrix} | {one.share:.0%} | {one.divergence:.1e} "
        f"| {one.same_choice:.2%} | {one.feature_error:.1e} | {one.encode:.2f} | {one.prefill:.2f} | {one.decode:.2f} |"
        for one in rows
    ]
    return "\n".join(lines)


def costs_module(rows: Sequence[Row]) -> str:
    """The text of quantize/preset_costs.py."""
    lines = [
        '"""Measured costs of the presets: written by ``python -m llava_edge.benchmark.recipes.presets --record``."""',
        "",
        "from __future__ import annotations",
        "",
        "COSTS: dict[str, dict[str, float]] = {",
    ]
    for one in rows:
        numbers = f'"share": {one.share:.3f}, "divergence": {one.divergence:.1e}, "decode": {one.decode:.2f}'
        lines.append(f'    "{one.name}": {{{numbers}}},')
    return "\n".join([*lines, "}", ""])


def recorded(checkout: Path) -> tuple[Path, Path]:
    """The page and the module of a checkout that :func:`record` writes."""
    return checkout / "docs" / "quantization.md", checkout / "quantize" / "preset_costs.py"


def record(checkout: Path, presets: Sequence[Row], recipes: Sequence[Row], conditions: str) -> None:
    """Write both tables and the costs into a checkout, each file whole or not at all."""
    page, module = recorded(checkout)
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    parts = [conditions, "### Presets", table(presets), *(["### Recipes", table(recipes)] if recipes else [])]
    measured = "\n\n".join(parts)
    write_text(page, f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}")
    write_text(module, costs_module(presets))


def main(show: Callable[[str], None] = print) -> None:
    """Print the tables, and record them where asked."""
    parser = argparse.ArgumentParser(prog="presets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="in full precision, as 'llava-edge export' writes it")
    parser.add_argument("--data", default="demo", help="held-out questions: demo, or a folder in LLaVA's JSON format")
    parser.add_argument("--limit", type=int, default=300, help="questions; 0 takes all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed rounds")
    parser.add_argument("--presets-only", action="store_true", help="leave the single recipes out")
    parser.add_argument("--record", type=Path, metavar="CHECKOUT", help="write docs and costs there")
    given = parser.parse_args()
    for path in recorded(given.record) if given.record else ():
        check_output_file(path, "--record")
    from ...quantize.presets import PRESETS

    named = [(name, one.llm, one.vision, one.imatrix) for name, one in PRESETS.items()]
    single = [] if given.presets_only else [("", llm, vision, "none") for llm, vision in RECIPES]
    questions = spread_questions(given.data, given.limit)
    rows = measure(
        given.bundle,
        questions,
        [*named, *single],
        rounds=given.rounds,
        on_step=lambda step: print(step, file=sys.stderr, flush=True),
    )
    conditions = _conditions(given.bundle, questions)
    show("\n\n".join([conditions, table(rows)]))
    if given.record:
        record(given.record, rows[: len(named)], rows[len(named) :], conditions)


def _conditions(bundle: Path, questions: Sequence[Question]) -> str:
    from ...runtime.bundle.bundle import Bundle

    name = Bundle.open(bundle).manifest.name
    return f"{name}, {len(questions)} held-out questions, {processor_name()}, {time.strftime('%Y-%m-%d')}:"


if __name__ == "__main__":
    main()
