"""What ``examples/serve`` shows is run as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from llava_edge.cli.main import app
from support.running_server import TOKEN, running

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "serve"
SIGN = str(ROOT / "examples" / "sign.png")
ASKED = "What does the sign say?"
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_python() -> None:
    assert run(sys.executable, EXAMPLES / "sidecar.py", SIGN, ASKED) == "OPEN\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_node() -> None:
    assert run("node", EXAMPLES / "sidecar.mjs", SIGN, ASKED) == "OPEN\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_electron_is_javascript() -> None:
    run("node", "--check", EXAMPLES / "electron_main.js")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl() -> None:
    with running() as server:
        said = run("sh", EXAMPLES / "curl.sh", f"http://127.0.0.1:{server.port}", TOKEN, SIGN, ASKED)
    assert json.loads(said)["choices"][0]["message"]["content"] == "OPEN"


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
