"""Bundles whose manifests are right and whose models are noise: for what reads no model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle, write_manifest

SIZES = {"vision": 200_000, "llm": 300_000}


def make_bundle(folder: Path, *, vision: int = 0, llm: int = 0, **changes: Any) -> Path:
    """A bundle at ``folder``; equal seeds of ``vision`` and ``llm`` give equal files."""
    manifest = Bundle.open(demo_bundle()).manifest
    folder.mkdir(parents=True)
    for seed, part in ((vision, "vision"), (llm, "llm")):
        noise = np.random.default_rng([seed, len(part)]).bytes(SIZES[part])
        (folder / getattr(manifest, part).file).write_bytes(noise)
    for name in (manifest.newline, manifest.parity.file):
        (folder / name).write_bytes((demo_bundle() / name).read_bytes())
    write_manifest(folder, dataclasses.replace(manifest, **changes))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
