"""``llava-edge verify --json``: one object, whatever comes out, with the numbers of the table."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle, write_manifest
from llava_edge.runtime.parity import measure
from support.command_line import run_here


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shutil.copytree(demo_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def strict(text: str) -> Any:
    """One JSON value, without Python's NaN."""

    def refuse(word: str) -> Any:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_the_object_of_a_whole_bundle(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"")
    status, out, err = run_here("verify", str(bundle), "--json")
    assert (status, err) == (0, "")
    found = strict(out)
    manifest = Bundle.open(bundle).manifest
    assert list(found) == ["bundle", "files", "unlisted", "recorded", "measured", "worse", "holds"]
    assert found["bundle"] == str(bundle)
    assert found["files"] == [entry.name for entry in manifest.files]
    assert found["unlisted"] == [".DS_Store"]
    assert found["recorded"] == manifest.parity.measured
    assert found["measured"] == pytest.approx(measure(bundle), abs=1e-6)
    assert (found["worse"], found["holds"]) == ([], True)
    table = run_here("verify", str(bundle))[1]
    assert all(f"{name:<18}" in table for name in found["measured"])


def test_parity_that_does_not_hold_is_in_the_object_and_an_error(bundle: Path) -> None:
    np.save(bundle / "newline.npy", 10 * np.load(bundle / "newline.npy"))
    write_manifest(bundle, Bundle.open(demo_bundle()).manifest)
    status, out, err = run_here("verify", str(bundle), "--json")
    assert status == 1
    found = strict(out)
    assert found["holds"] is False
    assert "embeddings" in found["worse"]
    assert found["error"]["type"] == "BundleError"
    assert found["error"]["got"].startswith("worse ")
    (line,) = err.splitlines()
    assert f"got {found['error']['got']}; {found['error']['fix']}" in line


def test_what_was_not_recorded_or_not_measured(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    for recorded, holds in (({}, None), ({"moons": 1.0}, False)):
        write_manifest(
            bundle, dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, measured=recorded))
        )
        found = strict(run_here("verify", str(bundle), "--json")[1])
        assert found["holds"] is holds
        assert found["recorded"] == recorded


def test_a_file_that_was_altered_is_an_error_alone(bundle: Path) -> None:
    with (bundle / "llm.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    status, out, _ = run_here("verify", str(bundle), "--json")
    assert status == 1
    assert list(strict(out)) == ["error"]
