"""What a comparison says: sentences by sign, tables, JSON's keys and the plot's points."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from llava_edge.benchmark.accuracy.bootstrap import Estimate
from llava_edge.benchmark.accuracy.comparison import Accuracy, Candidate, Comparison, Divergence, Measured, Side
from llava_edge.benchmark.accuracy.plot import draw, write_plot
from llava_edge.benchmark.accuracy.report import about_difference, as_json, markdown, statements, tables, terminal
from PIL import Image

ALONE = Estimate(0.5, math.nan, math.nan)
BELOW = Estimate(-0.008, -0.016, -0.001)
KL = Estimate(0.0125, 0.011, 0.0142)


def measured(difference: Estimate | None, questions: int = 100) -> Measured:
    top1, same = Estimate(0.991, 0.985, 0.996), Estimate(0.93, 0.9, 0.95)
    divergence = Divergence(400, KL, Estimate(0.002, 0.001, 0.003), Estimate(0.2, 0.1, 0.4), 1e-5, top1, same, 2.5)
    own = Accuracy(questions, Estimate(0.75, 0.7, 0.8), Estimate(0.742, 0.69, 0.79), difference) if difference else None
    return Measured(questions, divergence, own)


def comparison(difference: Estimate | None = BELOW) -> Comparison:
    overall = measured(difference)
    types = {"read": measured(difference, 60), "free|form": Measured(40, ALONE_DIVERGENCE, None)}
    candidate = Candidate(Side("q4", 4_000_000, "int8", "q4_k_m"), overall, types, {"vision": overall, "llm": overall})
    own = Estimate(0.75, 0.7, 0.8) if difference else None
    return Comparison(Side("f16", 15_000_000, "f32", "f16"), own, (candidate,), 100, 40, 60, 3)


ALONE_DIVERGENCE = Divergence(4, ALONE, ALONE, ALONE, 0.0, ALONE, ALONE, None)


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        ((-0.008, -0.016, -0.001), "q4 is 0.8 points below f16 (95 %: 0.1 to 1.6)"),
        ((0.02, 0.01, 0.034), "q4 is 2.0 points above f16 (95 %: 1.0 to 3.4)"),
        (
            (-0.003, -0.009, 0.002),
            "q4 can't be told from f16: 0.3 points below (95 %: 0.9 points below to 0.2 points above)",
        ),
        ((0.0, -0.01, 0.01), "q4 can't be told from f16: 0.0 points (95 %: 1.0 points below to 1.0 points above)"),
        ((0.5, math.nan, math.nan), "q4 and f16: one picture tells nothing about other pictures"),
    ],
)
def test_the_difference_in_words(difference: tuple[float, float, float], said: str) -> None:
    assert about_difference("q4", "f16", Estimate(*difference)) == said


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (
            (0.004, 0.001, 0.007),
            "q4: KL is 0.004 nats a token larger with the pictures than without (95 %: 0.001 to 0.007)",
        ),
        ((-0.004, -0.007, -0.001), "q4: KL is 0.004 nats a token smaller with the pictures (95 %: 0.001 to 0.007)"),
        (
            (0.001, -0.001, 0.003),
            "q4: KL with the pictures can't be told from KL without: 0.001 nats (95 %: -0.001 to 0.003)",
        ),
        (
            (0.5, math.nan, math.nan),
            "q4: one picture or one prompt does not tell whether the pictures make a difference",
        ),
    ],
)
def test_text_in_words(difference: tuple[float, float, float], said: str) -> None:
    whole = comparison()
    text = replace(whole.candidates[0], text=measured(BELOW), text_difference=Estimate(*difference))
    found = statements(replace(whole, candidates=(text,)))
    assert found[1] == said
    assert found[2].startswith("q4: KL to f16 ")
    page = markdown(replace(whole, candidates=(text,)), command="c", plot=None)
    assert "| &nbsp; without the pictures |" in page
    assert "asked of both sides as text alone" in page


def test_every_statement_has_its_interval() -> None:
    difference, divergence = statements(comparison())
    assert difference == "q4 is 0.8 points below f16 (95 %: 0.1 to 1.6)"
    assert divergence == (
        "q4: KL to f16 0.0125 (0.011 to 0.0142) nats a token; same likeliest token in 99.1 % (98.5 % to 99.6 %)"
    )
    assert len(statements(comparison(None))) == 1


def test_tables_hold_all_parts_and_types() -> None:
    divergence, accuracy, types = tables(comparison())
    assert [row[0].strip() for row in divergence.rows] == ["q4 (int8 + q4_k_m, 4.0 MB)", "vision alone", "LLM alone"]
    assert divergence.rows[0][1:] == (
        "0.0125 (0.011 to 0.0142)", "0.002 (0.001 to 0.003)", "0.2 (0.1 to 0.4)",
        "99.1 % (98.5 % to 99.6 %)", "93.0 % (90.0 % to 95.0 %)", "2.5",
    )  # fmt: skip
    assert accuracy.rows[0] == ("f16 (f32 + f16, 15.0 MB), the reference", "60", "75.0 % (70.0 % to 80.0 %)", "–")
    assert accuracy.rows[1][3] == "-0.8 (-1.6 to -0.1)"
    assert [row[:3] for row in types.rows] == [
        ("read", "60", "0.0125 (0.011 to 0.0142)"),
        ("free|form", "40", "0.5 (one picture)"),
    ]
    assert [len(one.rows[0]) for one in tables(comparison(None))] == [7, 6]


def test_terminal_and_markdown_say_the_same() -> None:
    text, page = terminal(comparison()), markdown(comparison(), command="llava-edge x", plot="accuracy.png")
    for said in (
        "0.0125 (0.011 to 0.0142)",
        "40 answers are free-form",
        "3 questions do not fit",
        *statements(comparison()),
    ):
        assert said in text
        assert said in page
    assert "![accuracy and KL against size](accuracy.png)" in page
    assert "Made by `llava-edge x`." in page
    widths = {
        line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("| read") or "free" in line
    }
    assert 7 in widths
    lines = terminal(comparison()).splitlines()
    table = lines[1:5]
    assert len({len(line) for line in table}) == 1


def test_json_is_the_contract() -> None:
    found = json.loads(as_json(comparison()))
    (candidate,) = found["candidates"]
    contract = {
        "name": "q4", "bytes": 4_000_000, "kl_mean": 0.0125, "kl_p99": 0.2, "top1": 0.991,
        "accuracy": 0.742, "difference": -0.008, "interval": [-0.016, -0.001],
    }  # fmt: skip
    assert contract.items() <= candidate.items()
    assert candidate["kl_mean_interval"] == [0.011, 0.0142]
    assert [one["part"] for one in candidate["attribution"]] == ["vision", "llm"]
    alone = next(one for one in candidate["types"] if one["type"] == "free|form")
    assert (alone["kl_mean"], alone["kl_mean_interval"], alone["accuracy"], alone["interval"]) == (
        0.5,
        None,
        None,
        None,
    )
    assert found["reference"]["accuracy"] == 0.75
    assert found["bootstrap"]["level"] == 0.95


def test_bundles_of_one_name_have_a_point_each() -> None:
    alone = comparison()
    twice = replace(alone, candidates=(replace(alone.candidates[0], side=alone.reference), alone.candidates[0]))
    assert [text.get_text() for text in draw(twice).axes[0].texts] == ["f16", "f16", "q4"]


def test_plot_has_a_point_a_bundle(tmp_path: Path) -> None:
    left, right = draw(comparison()).axes
    points = [[tuple(bars.lines[0].get_xydata()[0]) for bars in panel.containers] for panel in (left, right)]
    assert points[0] == [(15.0, 75.0), (4.0, pytest.approx(74.2))]
    assert points[1] == [(4.0, 0.0125)]
    assert [text.get_text() for text in left.texts] == ["f16", "q4"]
    write_plot(tmp_path / "new" / "plot.png", comparison())
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.size == (1350, 600)
    assert len(draw(comparison(None)).axes[0].containers) == 0


@pytest.mark.parametrize("name", ["$x_", "a$b$c", r"$\frac{$", "模型"])
def test_the_plot_takes_names_as_they_are(name: str, tmp_path: Path) -> None:
    """A folder's name is no formula, and a letter that the font lacks is no warning."""
    whole = comparison()
    named = replace(whole.candidates[0], side=replace(whole.candidates[0].side, name=name))
    write_plot(
        tmp_path / "plot.png", replace(whole, candidates=(named,), reference=replace(whole.reference, name=name))
    )
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG"
