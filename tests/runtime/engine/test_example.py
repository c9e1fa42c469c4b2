"""``examples/isolated.py`` is run as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_it_answers() -> None:
    command = [sys.executable, str(EXAMPLES / "isolated.py"), str(EXAMPLES / "sign.png"), "What does the sign say?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OPEN\n", "")
