"""The sets that ship in the package are what the command writes, to the last pixel."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from llava_edge.train.demo.shipped_sets import main
from PIL import Image

from .conftest import REPOSITORY


def contents(folder: Path) -> dict[str, str]:
    """File names with the text, or a hash of the pixels: other Pillows pack the same pixels into other bytes."""
    found = {}
    for path in folder.iterdir():
        picture = Image.open(path).convert("RGB") if path.suffix == ".png" else None
        found[path.name] = hashlib.sha256(picture.tobytes()).hexdigest() if picture else path.read_text("utf-8")
    return found


@pytest.mark.parametrize(
    ("name", "shipped", "files"),
    [("heldout", "benchmark/demo_heldout", 241), ("calibration", "quantize/demo_calibration", 65)],
)
def test_the_command_writes_what_is_shipped(
    name: str, shipped: str, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["shipped_sets", name, str(tmp_path / "set")])
    main()
    written = contents(tmp_path / "set")
    assert len(written) == files
    assert written == contents(REPOSITORY / shipped)
