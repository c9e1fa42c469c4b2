"""``llava-edge quantize`` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from llava_edge.quantize.presets import PRESETS
from llava_edge.runtime import Bundle

pytestmark = pytest.mark.slow


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llava_edge.cli.main", "quantize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_help_names_presets_with_their_costs() -> None:
    said = " ".join(run("--help").stdout.split())
    for name, one in PRESETS.items():
        assert f"{name}: {one.llm} and {one.vision}" in said
    assert said.count("% of the size, KL") == len(PRESETS)


def test_a_preset_writes_its_recipes_and_options_overrule_it(tiny_bundle: Path, tmp_path: Path) -> None:
    done = run(tiny_bundle, "-o", tmp_path / "best", "--preset", "best", "--vision", "int8")
    assert done.returncode == 0, done.stderr
    manifest = Bundle.open(tmp_path / "best").manifest
    assert (manifest.llm.recipe, manifest.vision.recipe) == (PRESETS["best"].llm, "int8")


def test_a_matrix_is_kept_and_recorded(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.json").write_text(
        json.dumps([{"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]}])
    )
    matrix = ("--imatrix", f"calibrate:{tmp_path / 'talk.json'}", "--save-imatrix", tmp_path / "m.gguf")
    done = run(tiny_bundle, "-o", tmp_path / "small", "--vision", "keep", *matrix)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "m.gguf").is_file()
    record = json.loads((tmp_path / "small" / "manifest.json").read_text())["llm"]["importance"]
    assert (record["source"], record["data"], record["prompts"]) == ("pictures", "talk.json", 1)


def test_refusals_are_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    for arguments in (("--preset", "tiny"), ("--imatrix", "calibrate:nowhere"), ("--vision", "int3")):
        done = run(tiny_bundle, "-o", tmp_path / "small", *arguments)
        assert done.returncode == (1 if "calibrate:nowhere" in arguments else 2)
        (line,) = [one for one in done.stderr.splitlines() if one.startswith("llava-edge: ")]
        assert "Traceback" not in done.stderr
        assert "expected" in line
    assert not list(tmp_path.iterdir())
