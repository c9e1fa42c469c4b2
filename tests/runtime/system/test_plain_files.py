"""Pipes, devices and sockets in a file's place: refused by name wherever a path is given, and never waited for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.quantize.importance.matrix import read_imatrix
from llava_edge.runtime.bundle.arrays import read_archive, read_array
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.bundle.gguf_reading import read_model
from llava_edge.runtime.errors import BundleError, LlavaEdgeError
from llava_edge.runtime.planning.shape_sources import folder_shape
from llava_edge.runtime.prompts.conversations import check_samples, read_samples
from llava_edge.runtime.system.plain_files import NotPlainError, odd_kind, open_plain, read_plain, read_plain_text
from llava_edge.runtime.system.storage import check_outside_bundles
from llava_edge.train.data.picture_store import TarStore
from llava_edge.train.model.config import read_config
from llava_edge.train.recipe import read_toml
from support.command_line import run_here

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
SECONDS = 20


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """What waits for a pipe fails instead of standing still."""

    def late(*_: object) -> None:
        raise AssertionError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_file_is_named(stream: bool, pipe: Path) -> None:
    place = pipe.with_name("socket")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place))
        with pytest.raises(NotPlainError, match="a socket, no file"):
            open_plain(place, stream=stream)
    with pytest.raises(NotPlainError, match="a pipe"):
        open_plain(pipe, stream=stream)
    with pytest.raises(NotPlainError, match="a device, no file"):
        open_plain("/dev/zero", stream=stream)
    with pytest.raises(FileNotFoundError):
        open_plain(pipe.with_name("none"), stream=stream)
    with pytest.raises(IsADirectoryError):
        open_plain(pipe.parent, stream=stream)
    assert [odd_kind(one) for one in (pipe, "/dev/zero", pipe.parent, __file__, "none", "\0")] == [
        "a pipe", "a device", "", "", "", ""
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 65_536, 300_000])
def test_a_pipe_that_is_written_to_is_read_whole(size: int) -> None:
    """As ``<(command)`` gives one; a slow writer is waited for."""
    data = os.urandom(size)
    for late in (False, True):
        out, into = os.pipe()
        held = threading.Event()

        def write(into: int = into, held: threading.Event = held, late: bool = late) -> None:
            if late:
                held.wait(0.2)
            with os.fdopen(into, "wb") as file:
                file.write(data)

        writer = threading.Thread(target=write)
        writer.start()
        with open_plain(f"/dev/fd/{out}", stream=True) as file:
            assert file.read() == data
        writer.join()
        os.close(out)


def test_text_and_the_null_device(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfx\r\ny")
    assert read_plain_text(tmp_path / "a", encoding="utf-8-sig") == "x\ny"
    assert read_plain("/dev/null", stream=True) == b""
    with pytest.raises(NotPlainError):
        read_plain("/dev/null")


def in_folder(name: str) -> Callable[[Path], Path]:
    """A folder with the pipe in it under a name."""

    def made(pipe: Path) -> Path:
        folder = pipe.with_name("folder")
        folder.mkdir()
        os.rename(pipe, folder / name)
        return folder

    return made


def in_bundle(name: str) -> Callable[[Path], Path]:
    """A whole bundle, but for the pipe in the place of one of its files."""

    def made(pipe: Path) -> Path:
        folder = pipe.with_name("bundle")
        shutil.copytree(demo_bundle(), folder)
        os.replace(pipe, folder / name)
        return folder

    return made


def as_it_is(pipe: Path) -> Path:
    return pipe


FILES = [entry.name for entry in Bundle.open(demo_bundle()).manifest.files]
READERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], Path]]] = {
    "bundle": (Bundle.open, as_it_is),
    "array": (read_array, as_it_is),
    "archive": (read_archive, as_it_is),
    "gguf": (read_model, as_it_is),
    "samples": (read_samples, as_it_is),
    "samples, checked": (check_samples, as_it_is),
    "recipe": (read_toml, as_it_is),
    "tar": (TarStore, as_it_is),
    "config of a base": (read_config, in_folder("config.json")),
    "config": (folder_shape, in_folder("config.json")),
    "manifest": (folder_shape, in_folder("manifest.json")),
    "manifest of a bundle": (Bundle.open, in_folder("manifest.json")),
    "config of a checkpoint": (lambda path: open_checkpoint(str(path)), in_folder("config.json")),
    "adapter": (lambda path: open_checkpoint(str(path)), in_folder("adapter_config.json")),
    **{f"{name} of a bundle": (Bundle.open, in_bundle(name)) for name in ("manifest.json", *FILES)},
}


@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_a_pipe_in_one_line(name: str, pipe: Path) -> None:
    read, made = READERS[name]
    with pytest.raises(LlavaEdgeError) as refused:
        read(made(pipe))
    assert "\n" not in str(refused.value)
    assert "Errno" not in str(refused.value)


def test_an_imatrix_that_is_a_pipe(pipe: Path) -> None:
    with pytest.raises(OSError, match="a pipe"):
        read_imatrix(pipe)


def test_a_pipe_beside_a_bundle_is_nobodys(pipe: Path) -> None:
    folder = in_bundle("other")(pipe)
    assert Bundle.open(folder, hash_all=True).unlisted() == ("other",)


def test_a_checkpoint_with_a_pipe_among_its_weights(pipe: Path) -> None:
    folder = in_folder("model.safetensors")(pipe)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlavaNextForConditionalGeneration"]}))
    with pytest.raises(LlavaEdgeError, match="a pipe"):
        folder_shape(folder)
    with pytest.raises(LlavaEdgeError):
        open_checkpoint(str(folder))


def test_nothing_is_written_below_a_pipe(pipe: Path) -> None:
    folder = in_folder("manifest.json")(pipe)
    check_outside_bundles(folder / "new")  # a folder with such a manifest is no bundle


SIGN = str(Path(__file__).parents[3] / "examples" / "sign.png")
COMMANDS = {
    "question": ["ask", SIGN, "--question-file", "PIPE"],
    "picture": ["ask", "PIPE", "What is this?"],
    "model": ["ask", SIGN, "What?", "-m", "PIPE"],
    "show": ["show", "PIPE"],
    "verify": ["verify", "PIPE"],
    "plan": ["plan", "PIPE"],
    "tiles": ["tiles", "PIPE"],
    "export": ["export", "PIPE", "-o", "OUT"],
    "quantize": ["quantize", "PIPE", "-o", "OUT", "--llm", "q8_0"],
    "train": ["train", "--config", "PIPE", "-o", "OUT"],
    "data": [
        "benchmark",
        "accuracy",
        "--reference",
        str(demo_bundle()),
        "--candidate",
        str(demo_bundle()),
        "--data",
        "PIPE",
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_a_pipe(name: str, pipe: Path) -> None:
    places = {"PIPE": str(pipe), "OUT": str(pipe.with_name("out"))}
    status, out, err = run_here(*(places.get(word, word) for word in COMMANDS[name]))
    assert status in (1, 2)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in pipe.parent.iterdir()) == ["pipe"]


def test_a_configuration_that_is_a_pipe(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(pipe))
    status, _, err = run_here("show")
    assert status == 2
    assert "got a pipe that nobody writes to" in err
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", "/dev/null")
    assert run_here("show")[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_question_from_a_command() -> None:
    program = f"{sys.executable} -m llava_edge.cli.main"
    done = subprocess.run(
        ["bash", "-c", f"{program} ask -q {SIGN} --question-file <(echo 'What does the sign say?')"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "OPEN" in done.stdout


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "\0", "a\x1b[2J"])
def test_a_bundles_path_that_can_not_be(name: str) -> None:
    with pytest.raises(BundleError) as refused:
        Bundle.open(name)
    assert len(str(refused.value)) < 500
    assert refused.value.got in ("nothing", "File name too long")
