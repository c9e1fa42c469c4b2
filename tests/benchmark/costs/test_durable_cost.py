"""What the durable cache saves is measured between processes; what can't be is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llava_edge.benchmark.costs import durable_cost
from llava_edge.runtime.bundle.bundle import demo_bundle


def test_a_known_picture_is_read_less(tmp_path: Path) -> None:
    """The demo's prompts are too short for states, so what is saved is the picture."""
    rows = [durable_cost.ask_once(str(demo_bundle()), str(tmp_path), number) for number in ("0", "1")]
    assert all(seconds > 0 for seconds, _, _ in rows)
    assert all(positions > 100 for _, positions, _ in rows)
    assert len(list((tmp_path / "v1" / "pictures").glob("*.emb"))) == 1


def test_what_is_no_bundle_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llava_edge.benchmark.costs.durable_cost", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "a bundle folder" in done.stderr
