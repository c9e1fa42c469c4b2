"""Hub ids are downloaded through huggingface_hub, which honours HF_ENDPOINT and HF_HOME."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.runtime.errors import CheckpointError
from llava_edge.store.hub import HUB_ID, locate
from support.checkpoints import make_checkpoint
from support.hub_server import hub_server

pytestmark = pytest.mark.slow

OPEN = """
import sys
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.runtime.errors import LlavaEdgeError
for line in sys.stdin:
    source, *pickles = line.split()
    try:
        checkpoint = open_checkpoint(source, allow_pickle=bool(pickles))
        print(checkpoint.name, checkpoint.fingerprint, flush=True)
    except LlavaEdgeError as error:
        print(type(error).__name__, str(error).replace("\\n", "\\\\n"), flush=True)
"""
LOCATE_WITHOUT_WAITING = """
import sys, time
from llava_edge.store.hub import HUB_ID, locate
time.sleep = lambda seconds: None
locate(sys.argv[1])
"""


def environment(endpoint: str, home: Path) -> dict[str, str]:
    """For a process of its own: huggingface_hub reads its environment once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    switched_off = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return kept | switched_off | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}


@dataclass
class Hub:
    """Repositories by hub id, the files asked for, and a process that opens checkpoints from them."""

    repositories: dict[str, Path]
    asked: list[str]
    process: subprocess.Popen[str]

    def open(self, source: str, *, allow_pickle: bool = False) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asked.clear()
        self.process.stdin.write(f"{source} {'pickles' * allow_pickle}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    repositories: dict[str, Path] = {}
    with hub_server(repositories) as (endpoint, asked):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        own = environment(endpoint, tmp_path_factory.mktemp("home"))
        with subprocess.Popen([sys.executable, "-c", OPEN], env=own, **pipes) as process:
            yield Hub(repositories, asked, process)
            process.kill()


def test_a_hub_id(hub: Hub, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "repository", shards=2)
    (folder / "README.md").write_text("not needed")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle nobody asked for")
    hub.repositories["someone/tiny-llava"] = folder
    expected = f"tiny-llava {open_checkpoint(str(folder)).fingerprint}"
    assert hub.open("someone/tiny-llava") == expected
    assert {"config.json", "tokenizer.json", "model-00001-of-00002.safetensors"} <= set(hub.asked)
    assert not {"README.md", "pytorch_model.bin"} & set(hub.asked)
    assert hub.open("someone/tiny-llava") == expected
    assert hub.asked == []  # cached


def test_a_tower_named_by_hub_id(hub: Hub, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "original", "vicuna", "original", tower=False)
    tower = folder / "clip"
    config = folder / "config.json"
    config.write_text(config.read_text().replace(str(tower), "someone/clip"))
    hub.repositories |= {"someone/llava": folder, "someone/clip": tower}
    assert hub.open("someone/llava").startswith("llava ")
    assert hub.asked.count("model.safetensors") == 2


def test_pickles_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = make_checkpoint(tmp_path / "repository")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    hub.repositories["someone/old"] = folder
    refused = hub.open("someone/old")
    assert refused.startswith("CheckpointError")
    assert "--allow-pickle" in refused
    assert "pytorch_model.bin" not in hub.asked
    assert hub.open("someone/old", allow_pickle=True).startswith("old ")


def test_errors_are_one_line(hub: Hub) -> None:
    said = hub.open("someone/nothing")
    assert said.startswith("CheckpointError expected the hub to serve someone/nothing")
    assert "\\n" not in said


def test_a_plan_asks_for_the_config_alone(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "repository")
    with hub_server({"someone/tiny-llava": folder}) as (endpoint, asked):
        code = "import sys; from llava_edge.store.hub import fetch_config; print(fetch_config(sys.argv[1]).read_text())"
        command = [sys.executable, "-c", code, "someone/tiny-llava"]
        done = subprocess.run(command, env=environment(endpoint, tmp_path / "home"), capture_output=True, text=True)
        assert done.stdout.strip() == (folder / "config.json").read_text().strip(), done.stderr
        assert asked == ["config.json"]


def test_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOCATE_WITHOUT_WAITING, "someone/nothing"]
    done = subprocess.run(command, env=environment("http://127.0.0.1:9", tmp_path), capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("llava_edge.runtime.errors.CheckpointError: expected the hub to serve someone/nothing")
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


def test_a_tokenizer_in_two_files_and_what_lies_beside(hub: Hub, tmp_path: Path) -> None:
    """Qwen's vocabulary and merges come along; a training run's checkpoints in folders do not."""
    folder = make_checkpoint(tmp_path / "repository", "qwen")
    raw = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(raw["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    shutil.copytree(folder, folder / "checkpoint-500")
    hub.repositories["someone/qwen"] = folder
    assert hub.open("someone/qwen").startswith("qwen ")
    assert {"vocab.json", "merges.txt", "model.safetensors"} <= set(hub.asked)
    assert not [name for name in hub.asked if "/" in name]


OPEN_AND_TIME = """
import sys, time
import torch, transformers
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.runtime.errors import LlavaEdgeError
from llava_edge.store.hub import fetch_config
began = time.monotonic()
try:
    print(open_checkpoint(sys.argv[1]).fingerprint)
    fetch_config(sys.argv[1])
except LlavaEdgeError as error:
    print(error)
print(time.monotonic() - began)
"""


@pytest.mark.parametrize("without", ["an address that refuses", "offline mode"])
def test_without_a_network(without: str, tmp_path: Path) -> None:
    """What is cached is used at once; what is not is one line, at once."""
    folder = make_checkpoint(tmp_path / "repository")
    expected = open_checkpoint(str(folder)).fingerprint

    def asked(own: dict[str, str], source: str = "someone/tiny") -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", OPEN_AND_TIME, source], env=own, capture_output=True, text=True)

    with hub_server({"someone/tiny": folder}) as (endpoint, _):
        assert asked(environment(endpoint, tmp_path / "home")).stdout.split()[0] == expected
    own = environment("http://127.0.0.1:9", tmp_path / "home")
    own |= {"HF_HUB_OFFLINE": "1"} if without == "offline mode" else {}
    done = asked(own)
    fingerprint, seconds = done.stdout.split()
    assert (fingerprint, done.stderr) == (expected, "")
    assert float(seconds) < 8
    missing = asked(own, "someone/never-fetched")
    said, seconds = missing.stdout.strip().splitlines()
    assert said.startswith("expected the hub to serve someone/never-fetched")
    assert missing.stderr == ""
    assert float(seconds) < 8


@pytest.mark.parametrize(
    "name", ["pics/a.png", "a/b.JPEG", "models/llm.gguf", "x/config.json", "../x", "a/" + "b" * 97]
)
def test_names_of_files_are_not_asked_for(name: str) -> None:
    assert not HUB_ID.fullmatch(name)


@pytest.mark.parametrize("name", ["liuhaotian/llava-v1.6-vicuna-7b", "llava-hf/llama3-llava-next-8b-hf", "a/b.c_d"])
def test_ids(name: str) -> None:
    assert HUB_ID.fullmatch(name)
