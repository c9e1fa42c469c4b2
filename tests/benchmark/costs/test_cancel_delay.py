"""When a wish to end is had, and the table of what came of it."""

from __future__ import annotations

import re
import sys

import pytest
from llava_edge.benchmark.costs import cancel_delay
from llava_edge.benchmark.costs.cancel_delay import Wish
from llava_edge.runtime import demo_bundle


def test_a_wish_comes_in_its_phase_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(cancel_delay.time, "perf_counter", lambda: now[0])
    wish = Wish("prefill", 0.5, 2.0)
    for phase, done in (("encode", 10), ("prefill", 4)):
        wish.reached(phase, done, 10)
        assert not wish()
    wish.reached("prefill", 5, 10)
    assert not wish()
    now[0] = 102.0
    assert wish()
    now[0] = 103.0
    assert wish()
    assert wish.at == 102.0


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["cancel_delay", "-m", str(demo_bundle()), "--times", "2", "--tokens", "3"])
    cancel_delay.main()
    rows = re.findall(r"^\| (\w+) \| ([\d.]* s)? ?\| ([\d.]* s)? ?\| (\d) \|$", capsys.readouterr().out, re.MULTILINE)
    assert [row[0] for row in rows] == ["encode", "prefill", "decode"]
    assert all(bool(row[1]) == (row[3] != "2") for row in rows)
