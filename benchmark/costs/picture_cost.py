"""What a quantized bundle and int8 prompts cost in answers about pictures, beside the exact bundle read by llama.cpp.

``python -m llava_edge.benchmark.costs.picture_cost --reference F16 --candidate Q4`` asks both the held-out questions of
the demo, or another set's with ``--data``. Along the exact bundle's answers it compares the distributions of the first
token and of every token, and it scores the answers that each gives by itself. Bundles whose vision differs are compared
with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...runtime import load
from ...runtime.errors import LlavaEdgeError
from ...runtime.options import PromptEngineName
from ..accuracy.answer_store import CandidateAnswer, ReferenceAnswer
from ..accuracy.divergence import answer_as_candidate, answer_as_reference
from ..accuracy.metrics import score
from ..accuracy.teacher_forcing import spread_questions
from ..data.questions import Question
from ..speed.machine import describe_machine, machine_line


@dataclass(frozen=True)
class Cost:
    """A row of the table: KL in nats of first tokens and of all, and the share of right answers (None: not scored).

    ``firsts`` and ``wholes`` are KL by question, of its first token and the sum along its answer.
    """

    name: str
    firsts: tuple[float, ...]
    wholes: tuple[float, ...]
    whole: float
    largest: float
    right: float | None

    @property
    def first(self) -> float:
        """The mean KL of first tokens."""
        return float(np.mean(self.firsts))


def measure(reference: Path, candidate: Path, questions: Sequence[Question], *, threads: int = 0) -> list[Cost]:
    """The reference and the candidate, each read by llama.cpp and by onnxruntime.

    One model is in memory at a time. Raises what loading and asking raise.
    """
    with load(reference, gpu_layers=0, threads=threads, prompt_engine="llama.cpp", cache=None) as model:
        exact = [answer_as_reference(model, question) for question in questions]
    rows: Sequence[tuple[str, Path, PromptEngineName]] = (
        ("reference, llama.cpp", reference, "llama.cpp"),
        ("candidate, llama.cpp", candidate, "llama.cpp"),
        ("candidate, onnxruntime", candidate, "onnxruntime"),
        ("reference, onnxruntime", reference, "onnxruntime"),
    )
    return [
        _cost(name, questions, _answers(path, engine, questions, exact, threads=threads)) for name, path, engine in rows
    ]


def _answers(
    path: Path,
    engine: PromptEngineName,
    questions: Sequence[Question],
    exact: Sequence[ReferenceAnswer],
    *,
    threads: int,
) -> list[CandidateAnswer]:
    with load(path, gpu_layers=0, threads=threads, prompt_engine=engine, cache=None) as model:
        return [answer_as_candidate(model, *pair) for pair in zip(questions, exact, strict=True)]


def _cost(name: str, questions: Sequence[Question], answers: Sequence[CandidateAnswer]) -> Cost:
    measured = [answer.kl for answer in answers if answer.kl]
    scores = [score(question, answer.text) for question, answer in zip(questions, answers, strict=True)]
    known = [one for one in scores if one is not None]
    every = np.concatenate([np.asarray(kl) for kl in measured])
    return Cost(
        name,
        tuple(float(kl[0]) for kl in measured),
        tuple(float(np.sum(kl)) for kl in measured),
        float(every.mean()),
        float(every.max()),
        float(np.mean(known)) if known else None,
    )


def guessing(questions: Sequence[Question]) -> float:
    """The share that the likeliest answer of each type gets: what a model that sees nothing could reach."""
    by_type: dict[str, list[tuple[str, ...]]] = {}
    for question in questions:
        by_type.setdefault(question.type, []).append(question.answers)
    best = [max(given.count(one) for one in given) for given in by_type.values()]
    return sum(best) / len(questions)


def standard_error(ones: Sequence[float], others: Sequence[float]) -> float:
    """Of the ratio of the sums of two figures of the same questions: 0 where they are the same figures.

    By linearization (Cochran, Sampling Techniques, 1977, chapter 6): questions are drawn, their tokens are not.
    """
    one, other = np.asarray(ones), np.asarray(others)
    if len(one) < 2 or not other.sum():
        return 0.0
    rest = one - one.sum() / other.sum() * other
    return float(np.std(rest, ddof=1) * np.sqrt(len(one)) / other.sum())


def report(costs: Sequence[Cost]) -> str:
    """A table, each divergence also over llama.cpp's for the candidate, with the standard error of that ratio."""
    base = next(cost for cost in costs if cost.name == "candidate, llama.cpp")
    lines = [
        "| | KL, first token | of llama.cpp's | KL, whole answers | of llama.cpp's | largest | right |",
        "|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        ratios = [
            f"{one / other:.2f} ± {standard_error(ones, others):.2f}" if other else "–"
            for one, other, ones, others in (
                (cost.first, base.first, cost.firsts, base.firsts),
                (cost.whole, base.whole, cost.wholes, base.wholes),
            )
        ]
        right = "–" if cost.right is None else f"{100 * cost.right:.1f} %"
        lines.append(
            f"| {cost.name} | {cost.first:.2e} | {ratios[0]} | {cost.whole:.2e} | {ratios[1]}"
            f" | {cost.largest:.2e} | {right} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="bundle in f16 or f32")
    parser.add_argument("--candidate", type=Path, required=True, help="the same model quantized")
    parser.add_argument("--data", default="demo", help="as llava-edge benchmark accuracy takes it")
    parser.add_argument("--limit", type=int, default=200, help="questions, evenly spread; 0 takes all")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    try:
        questions = spread_questions(given.data, given.limit)
        costs = measure(given.reference, given.candidate, questions, threads=given.threads)
    except LlavaEdgeError as error:
        sys.exit(str(error))
    blind = (
        f"{len(questions)} questions; the likeliest answer of each type is right on {100 * guessing(questions):.1f} %"
    )
    print(f"{machine_line(describe_machine())}\n{blind}\n\n{report(costs)}")


if __name__ == "__main__":
    main()
