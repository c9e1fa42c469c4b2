"""The measurement of what a schema costs measures what it says; how long it takes is the machine's business."""

from __future__ import annotations

import json

import pytest
from llava_edge.benchmark.costs.constraint_cost import main, measure
from llava_edge.benchmark.seeded.llm import seeded_words


def test_words_are_a_vocabulary() -> None:
    words = seeded_words(3000)
    assert len(words) == len(set(words)) == 3000
    assert words == seeded_words(3000) != seeded_words(3000, seed=1)
    assert words[3 + 0x41] == "<0x41>"
    assert 0.4 < sum(word.startswith("▁") for word in words[400:]) / 2600 < 0.6


def test_draws_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    costs = measure(vocabulary=2000, tokens=20)
    assert len(costs.held) == len(costs.free) == 20
    assert min(*costs.held, *costs.free, costs.build, costs.compile) > 0
    assert costs.added == pytest.approx(sum(costs.held) / 20 - sum(costs.free) / 20)
    assert "20 tokens" in str(costs)
    main(["--vocabulary", "1000", "--tokens", "3", "--json"])
    assert len(json.loads(capsys.readouterr().out)["held"]) == 3
