"""``examples/isolated.py`` and the program of docs/embedding.md are run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from llava_edge.runtime import demo_bundle

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


def test_it_answers() -> None:
    command = [sys.executable, str(EXAMPLES / "isolated.py"), str(EXAMPLES / "sign.png"), "What does the sign say?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OPEN\n", "")


def test_the_program_of_the_guide_answers(tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to(demo_bundle())
    (tmp_path / "sign.png").symlink_to(EXAMPLES / "sign.png")
    program = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text("utf-8"), re.S)[0]
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OPEN", "")
