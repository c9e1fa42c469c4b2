"""What isolation costs, from played times: ratios to this process, whole answers read."""

from __future__ import annotations

import pytest
from llava_edge.benchmark.costs.isolation_cost import Times, report


def test_ratios_are_of_the_same_round() -> None:
    times = {
        "here": Times([0.1, 0.2, 0.1], [1.0, 2.0, 1.0]),
        "isolated": Times([0.101, 0.202, 0.103], [1.25, 2.0, 2.0]),
        "served": Times([0.1, 0.2, 0.1], [4.0, 8.0, 4.0]),
    }
    assert report(times) == [
        "isolated: decoding at 80.0% of this process (50.0% to 100.0%), first text +2.0 ms",
        "served: decoding at 25.0% of this process (25.0% to 25.0%), first text +0.0 ms",
    ]


def test_empty_pieces_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr("llava_edge.benchmark.costs.isolation_cost.time.perf_counter", lambda: next(clock))
    times = Times()
    times.add(iter(["", "a", "", "b", "c"]))
    assert (times.first, times.rest) == ([1.0], [5.0])
