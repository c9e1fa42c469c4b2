"""What quantization and int8 prompts cost in answers about pictures, measured on a seeded model."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
from llava_edge.benchmark.costs.picture_cost import Cost, guessing, measure, report, standard_error
from llava_edge.benchmark.data.questions import Question
from PIL import Image


def question(seed: int, answer: str, kind: str = "colour") -> Question:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return Question(str(seed), kind, "What colour is it?", (buffer.getvalue(),), (answer,), "exact", max_tokens=4)


def test_the_same_bundle_costs_nothing_but_what_the_engine_does(tiny_bundle: Path) -> None:
    costs = {cost.name: cost for cost in measure(tiny_bundle, tiny_bundle, [question(1, "red"), question(2, "blue")])}
    for name in ("reference, llama.cpp", "candidate, llama.cpp"):
        assert (costs[name].first, costs[name].whole, costs[name].largest) == (0, 0, 0)
    engine = costs["candidate, onnxruntime"]
    assert 0 < engine.first < 0.1
    assert engine.whole <= engine.largest < 0.2
    assert dataclasses.replace(engine, name="reference, onnxruntime") == costs["reference, onnxruntime"]


def test_report_puts_each_beside_llama_cpps() -> None:
    costs = [
        Cost("candidate, llama.cpp", (0.01, 0.03), (0.1, 0.1), 0.1, 0.5, 0.75),
        Cost("candidate, onnxruntime", (0.025, 0.035), (0.11, 0.11), 0.11, 0.6, None),
    ]
    assert report(costs).splitlines()[2:] == [
        "| candidate, llama.cpp | 2.00e-02 | 1.00 ± 0.00 | 1.00e-01 | 1.00 ± 0.00 | 5.00e-01 | 75.0 % |",
        "| candidate, onnxruntime | 3.00e-02 | 1.50 ± 0.50 | 1.10e-01 | 1.10 ± 0.00 | 6.00e-01 | – |",
    ]


def test_guessing_takes_the_likeliest_answer_of_each_type() -> None:
    asked = [question(0, "red"), question(0, "red"), question(0, "blue"), question(0, "2", "count")]
    assert guessing(asked) == 0.75


def test_the_error_of_a_ratio_is_how_much_it_varies_between_draws() -> None:
    draw = np.random.default_rng(2)
    ratios, errors = [], []
    for _ in range(400):
        base = draw.exponential(size=200)
        other = base * 1.1 + draw.normal(0, 0.3, 200)
        ratios.append(other.sum() / base.sum())
        errors.append(standard_error(other, base))
    assert abs(np.mean(errors) / np.std(ratios) - 1) < 0.1
    assert standard_error(base, base) == 0 == standard_error([1.0], [2.0])
