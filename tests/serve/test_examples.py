"""What ``examples/serve`` shows is run as it stands."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.main
from llava_edge.cli.main import app
from llava_edge.runtime import demo_bundle
from support.running_server import TOKEN, running

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "serve"
SIGN = str(ROOT / "examples" / "sign.png")
ASKED = "What does the sign say?"
BIN = Path(sys.executable).parent


NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
DRIVEN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import window
said = []
with window.Sidecar() as sidecar:
    shown = window.Window(sidecar)
    def ask(picture):
        window.filedialog.askopenfilename = lambda **_: picture
        shown.choose.invoke()
        shown.question.delete(0, "end")
        shown.question.insert(0, "What does the sign say?")
        shown.question.focus_force()
        shown.update()
        shown.question.event_generate("<Return>")
        shown.after(20, look)
    def look():
        if shown.question.instate(["disabled"]):
            shown.after(20, look)
            return
        said.append(shown.answer.get("1.0", "end").strip())
        shown.after(0, ask, sys.argv[3]) if len(said) < 2 else shown.destroy()
    shown.after(0, ask, sys.argv[2])
    shown.mainloop()
print(json.dumps(said))
"""
"""Presses the example's own button and key; only the dialog of the window system is passed by."""
ELECTRON = """
const { EventEmitter } = require("node:events");
const app = Object.assign(new EventEmitter(), { whenReady: () => Promise.resolve() });
const handlers = {};
const ipcMain = { handle: (name, handler) => (handlers[name] = handler) };
class BrowserWindow {
  async loadFile() {
    for (const [url, text] of JSON.parse(process.env.ASKED)) {
      const content = [{ type: "image_url", image_url: { url } }, { type: "text", text }];
      console.log(await handlers.ask({}, [{ role: "user", content }]).catch((error) => error.message));
    }
    app.emit("will-quit");
  }
}
module.exports = { app, BrowserWindow, ipcMain };
"""


def tried(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **environment}
    return subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=60, env=environment)


def run(*command: str | Path, **environment: str) -> str:
    done = tried(*command, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_with_windows() -> str:
    """A Python that has tkinter: this one, or the system's."""
    for program in (sys.executable, "/usr/bin/python3"):
        if Path(program).exists() and not tried(program, "-c", "import tkinter").returncode:
            return program
    return ""


PYTHON_WITH_WINDOWS = python_with_windows()


@contextmanager
def display() -> Iterator[dict[str, str]]:
    """The environment of a display: the one that is there, or one without a screen."""
    if not shutil.which("Xvfb"):
        yield {}
        return
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            yield {"DISPLAY": f":{server.stdout.readline().strip()}"}
        finally:
            server.terminate()


@pytest.mark.slow
def test_python() -> None:
    assert run(sys.executable, EXAMPLES / "sidecar.py", SIGN, ASKED) == "OPEN\n"


WRONG = [
    ({}, __file__, "a PNG, JPEG"),
    ({"LLAVA_EDGE": "false"}, SIGN, "the server ended with 1"),
    ({"LLAVA_EDGE": "no-such-command"}, SIGN, "no-such-command"),
]
"""What goes wrong with a first question: environment, picture, and what has to be said in the last line."""


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "picture", "said"), WRONG)
@pytest.mark.parametrize("example", ["sidecar.py", pytest.param("sidecar.mjs", marks=NEEDS_NODE)])
def test_what_goes_wrong_is_one_line(example: str, environment: dict[str, str], picture: str, said: str) -> None:
    program = sys.executable if example.endswith(".py") else "node"
    done = tried(program, EXAMPLES / example, picture, ASKED, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "    at " not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON_WITH_WINDOWS, reason="no Python here has tkinter")
@pytest.mark.skipif(not (os.environ.get("DISPLAY") or shutil.which("Xvfb")), reason="neither a display nor Xvfb here")
def test_the_window() -> None:
    """Driven as a person does: the button, the question, Return; then a file that is no picture."""
    with display() as shown:
        said = run(
            PYTHON_WITH_WINDOWS, "-c", DRIVEN, EXAMPLES, SIGN, __file__, **shown, LLAVA_EDGE=str(BIN / "llava-edge")
        )
    answered, refused = json.loads(said)
    assert answered == "OPEN"
    assert refused.startswith("expected a PNG, JPEG")


@pytest.mark.slow
@NEEDS_NODE
def test_node() -> None:
    assert run("node", EXAMPLES / "sidecar.mjs", SIGN, ASKED) == "OPEN\n"


@pytest.mark.slow
@NEEDS_NODE
@pytest.mark.parametrize("command", ["llava-edge", "no-such-command"])
def test_the_main_process_of_electron(command: str, tmp_path: Path) -> None:
    """With a stand-in for Electron, whose window asks twice and is closed; a program that is not there is only said."""
    (tmp_path / "electron.js").write_text(ELECTRON, encoding="utf-8")
    picture = "data:image/png;base64," + base64.b64encode(Path(SIGN).read_bytes()).decode()
    asked = [[picture, ASKED], ["data:image/png;base64,AAAA", ASKED]]
    said = run(
        "node", EXAMPLES / "electron_main.js", NODE_PATH=str(tmp_path), ASKED=json.dumps(asked), LLAVA_EDGE=command
    )
    first, second = said.splitlines()
    if command == "llava-edge":
        assert first == "OPEN"
        assert second.startswith("expected a PNG, JPEG")
    else:
        assert "ENOENT" in first
        assert "ENOENT" in second


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl() -> None:
    with running() as server:
        command = ("sh", EXAMPLES / "curl.sh", f"http://127.0.0.1:{server.port}", TOKEN)
        said = run(*command, SIGN, 'What does the "sign" say? \\')
        refused = tried(*command, __file__, ASKED)
    assert json.loads(said)["choices"][0]["message"]["content"] == "OPEN"
    assert refused.returncode == 1
    assert "a PNG, JPEG" in refused.stderr


@pytest.mark.slow
def test_what_the_container_runs(tmp_path: Path) -> None:
    """The command and the health check of the Dockerfile, on this machine's own address and a free port."""
    text = (EXAMPLES / "Dockerfile").read_text("utf-8")
    command, check = (json.loads(one) for one in reversed(re.findall(r"CMD (\[.*\])", text)))
    (tmp_path / "token").write_text(TOKEN)
    places = {"/bundle": str(demo_bundle()), "0.0.0.0": "127.0.0.1", "/run/token": str(tmp_path / "token")}
    command = [BIN / command[0], *(places.get(one, one) for one in command[1:]), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            port = re.search(r":(\d+)/", server.stdout.readline())
            assert port
            healthy = [sys.executable, *(one.replace("8080", port[1]) for one in check[1:])]
            end = time.monotonic() + 30
            while tried(*healthy).returncode and time.monotonic() < end:
                pass
            assert tried(*healthy).returncode == 0
        finally:
            server.terminate()
    assert tried(*healthy).returncode == 1


def test_options_that_examples_and_the_page_name_exist() -> None:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    started = re.search(r'CMD \["llava-edge", (.*)\]', (EXAMPLES / "Dockerfile").read_text("utf-8"))
    assert started
    named = set(re.findall(r'"(-[-\w]+)"', started[1]))
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    named |= set(re.findall(r"`(?:serve )?(--[\w-]+)", page))
    assert len(named) > 8
    assert named <= options


def test_the_page_lists_every_path() -> None:
    """docs/serving.md against the routes: what a person reads is what is there."""
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "serve" / "endpoints").glob("*.py"))
    for path in set(re.findall(r'Route\("(/[^"]*)"', sources)):
        *_, last = re.sub(r"\{\w+(:path)?\}", "{id}", path).split("/")
        assert last == "" or last in page, path


def test_the_page_says_which_clients_were_tested() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints-dev.txt").read_text("utf-8").split() if "==" in line
    )
    page = (ROOT / "docs" / "serving.md").read_text("utf-8")
    for name in ("openai", "ollama", "llm", "langchain-openai"):
        assert f"| `{name}` | {pinned[name]} |" in page
