"""OpenMP's threads wait shortly for each other, unless somebody says how long; libgomp itself says what it read."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from llava_edge.runtime.ggml.importing import SHORT_WAITS

IMPORTS = (
    "runtime.ggml.library",
    "runtime.language.sampling",
    "runtime.language.llm",
    "quantize.importance.activations",
)


def read_by_libgomp(code: str, **environment: str) -> dict[str, str]:
    """What libgomp took from the environment of a process that runs ``code``, by name."""
    kept = {name: value for name, value in os.environ.items() if name not in SHORT_WAITS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(re.findall(r"(\w+) = '([^']*)'", done.stderr))
    if "GOMP_SPINCOUNT" not in found:
        pytest.skip("llama.cpp was not compiled with GCC's OpenMP")
    return found


@pytest.mark.parametrize("module", IMPORTS)
def test_whatever_is_imported_first_waits_shortly(module: str) -> None:
    code = f"import os\nbefore = dict(os.environ)\nimport llava_edge.{module}\nassert dict(os.environ) == before"
    assert read_by_libgomp(code).items() >= {**SHORT_WAITS, "OMP_WAIT_POLICY": "PASSIVE"}.items()


@pytest.mark.parametrize("said", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_who_says_how_long_is_heard(said: dict[str, str]) -> None:
    code = (
        "import llava_edge.runtime.ggml.library\nimport os\nprint({name: os.environ.get(name) for name in os.environ})"
    )
    found = read_by_libgomp(code, **said)
    assert (
        found["GOMP_SPINCOUNT"] == said.get("GOMP_SPINCOUNT", found["GOMP_SPINCOUNT"]) != SHORT_WAITS["GOMP_SPINCOUNT"]
    )
    assert found["OMP_WAIT_POLICY"] == said.get("OMP_WAIT_POLICY", "PASSIVE").upper()
