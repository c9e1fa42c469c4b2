"""``llava-edge show`` of bundles that others wrote: a row stays a row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from llava_edge.runtime.bundle.bundle import demo_bundle
from support.command_line import run_here


@pytest.mark.parametrize(
    "change",
    [
        lambda raw, text: raw.update(name=text),
        lambda raw, text: raw.update(created_by=text),
        lambda raw, text: raw["source"].update(name=text),
        lambda raw, text: raw["llm"].update(architecture=text),
        lambda raw, text: raw["parity"].update(reference=text),
        lambda raw, text: raw["parity"]["measured"].update({text: 1.0}),
        lambda raw, text: (
            raw["template"]["special_tokens"].update({text: 5}) or raw["template"]["stop_tokens"].append(text)
        ),
    ],
    ids=["name", "maker", "source", "architecture", "reference", "rung", "stop token"],
)
@pytest.mark.parametrize("text", ["m" * 5000, "two words " * 500, "line\n" * 1000])
def test_long_names_stay_short(change: Any, text: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle(), bundle)
    usual = run_here("show", str(bundle))[1].splitlines()
    raw = json.loads((bundle / "manifest.json").read_text())
    change(raw, text)
    (bundle / "manifest.json").write_text(json.dumps(raw))
    status, out, err = run_here("show", str(bundle))
    assert (status, err) == (0, "")
    assert len(out.splitlines()) in (len(usual), len(usual) + 1)
    assert max(map(len, out.splitlines())) < 1100
    status, out, _ = run_here("plan", str(bundle), "--host", "8G")
    assert status == 0
    assert max(map(len, out.splitlines())) < 400
