"""Hub ids are downloaded through huggingface_hub, which honours HF_ENDPOINT and HF_HOME."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.runtime.errors import CheckpointError
from llava_edge.store.hub import locate
from support.checkpoints import make_checkpoint
from support.hub_server import hub_server

pytestmark = pytest.mark.slow

OPEN = """
import sys
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.runtime.errors import LlavaEdgeError
try:
    checkpoint = open_checkpoint(sys.argv[1], allow_pickle=len(sys.argv) > 2)
    print(checkpoint.name, checkpoint.fingerprint)
except LlavaEdgeError as error:
    print(type(error).__name__, error)
"""


def open_from(endpoint: str, home: Path, *arguments: str) -> str:
    """Open a hub id in a process of its own: huggingface_hub reads its environment once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", OPEN, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_id(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "repository", shards=2)
    (folder / "README.md").write_text("not needed")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle nobody asked for")
    with hub_server({"someone/tiny-llava": folder}) as (endpoint, asked):
        said = open_from(endpoint, tmp_path / "home", "someone/tiny-llava")
        assert said == f"tiny-llava {open_checkpoint(str(folder)).fingerprint}"
        assert {"config.json", "tokenizer.json", "model-00001-of-00002.safetensors"} <= set(asked)
        assert not {"README.md", "pytorch_model.bin"} & set(asked)
        before = len(asked)
        open_from(endpoint, tmp_path / "home", "someone/tiny-llava")
        assert len(asked) == before  # cached


def test_a_tower_named_by_hub_id(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "original", "vicuna", "original", tower=False)
    tower = folder / "clip"
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(tower), "someone/clip"))
    with hub_server({"someone/llava": folder, "someone/clip": tower}) as (endpoint, asked):
        assert open_from(endpoint, tmp_path / "home", "someone/llava").startswith("llava ")
        assert asked.count("model.safetensors") == 2


def test_pickles_on_the_hub(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = make_checkpoint(tmp_path / "repository")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with hub_server({"someone/old": folder}) as (endpoint, asked):
        refused = open_from(endpoint, tmp_path / "home", "someone/old")
        assert refused.startswith("CheckpointError")
        assert "--allow-pickle" in refused
        assert "pytorch_model.bin" not in asked
        assert open_from(endpoint, tmp_path / "home", "someone/old", "pickles").startswith("old ")


def test_errors_are_one_line(tmp_path: Path) -> None:
    with hub_server({}) as (endpoint, _):
        said = open_from(endpoint, tmp_path / "home", "someone/nothing")
    assert said.startswith("CheckpointError expected the hub to serve someone/nothing")
    assert "\n" not in said


def test_no_network(tmp_path: Path) -> None:
    said = open_from("http://127.0.0.1:9", tmp_path / "home", "someone/nothing")
    assert said.startswith("CheckpointError")
    assert "give a local folder" in said


@pytest.mark.parametrize("source", ["", ".", "./nothing/here", "../up", "a b/c", "one/two/three", "/etc/nothing"])
def test_what_is_no_hub_id(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if source in (".", ""):
        with pytest.raises(CheckpointError, match=r"config\.json"):
            open_checkpoint(source)
        return
    with pytest.raises(CheckpointError, match="hub id"):
        locate(source)
