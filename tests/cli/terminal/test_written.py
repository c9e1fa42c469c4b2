"""What commands that write bundles say: disk first, time left, JSON at the end."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llava_edge.cli.terminal.options import parse_size
from llava_edge.cli.terminal.progress import Bar
from llava_edge.runtime.errors import OptionError

COMMAND = str(Path(sys.executable).parent / "llava-edge")


@pytest.mark.parametrize(
    ("text", "size"), [("48G", 48 * 10**9), ("1.5m", 1_500_000), ("8KB", 8000), ("512", 512), (" 2g ", 2 * 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "48 T", "1e9", "many"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="a size like 48G"):
        parse_size(text)


@pytest.mark.slow
def test_quantize_says_the_disk_it_needs(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ["--llm", "q8_0", "--vision", "keep", "--split-size", "400K", "--json"]
    done = subprocess.run(
        [COMMAND, "quantize", str(tiny_bundle), "-o", "small", *options],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "small").iterdir()}
    assert said["files"] == {name: size for name, size in sizes.items() if name not in ("manifest.json", "README.md")}
    assert sum(name.endswith(".gguf") for name in sizes) > 2
    assert {name: said["disk"]["files"][name] for name in sizes if name.endswith(".gguf")} == {
        name: size for name, size in sizes.items() if name.endswith(".gguf")
    }
    assert said["disk"]["needed"] == sum(said["disk"]["files"].values()) <= said["disk"]["free"]
    first = done.stderr.splitlines()[0]
    assert first.startswith("small: needs ")
    assert " MB of disk at " in first
    shown = subprocess.run([COMMAND, "show", "small"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert all(name in shown.stdout for name in said["files"])
    verified = subprocess.run([COMMAND, "verify", "small"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert verified.stdout.splitlines()[-1] == "parity holds", verified.stderr


class Tty(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True


def test_time_left_of_continued_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what was left took five seconds, so the other half will, whatever was there before."""
    terminal = Tty()
    monkeypatch.setattr(sys, "stderr", terminal)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    bar = Bar("language model")
    bar(9000, 10000)
    now += 5
    bar(9500, 10000)
    assert "00:00:05" in terminal.getvalue()
    bar(10000, 10000)
    assert terminal.getvalue().endswith("\r\x1b[2K")
