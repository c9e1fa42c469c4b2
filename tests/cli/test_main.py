"""Exit status, the error as a line and as JSON, and standard streams of every kind: what scripts build on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli import main as module
from llava_edge.cli.terminal import failure
from llava_edge.runtime.errors import BundleError, ImageError, OptionError
from support.command_line import run_here

ROOT = Path(__file__).parents[2]
SIGN = str(ROOT / "examples" / "sign.png")
COMMAND = [sys.executable, "-m", "llava_edge.cli.main"]
QUESTION = "What does the sign say?"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, []),
        (0, ["--version"]),
        (0, ["-h"]),
        (0, ["tiles", "-h"]),
        (0, ["benchmark", "demo", "-h"]),
        (0, ["show", "--json"]),
        (1, ["show", "none"]),
        (1, ["tiles", "none.png"]),
        (2, ["shw"]),
        (2, ["show", "--nonsense"]),
        (2, ["show", "a", "b"]),
        (2, ["tiles"]),
        (2, ["worker", "--threads", "-1"]),
        (2, ["worker", "--port", "0"]),
        (2, ["ask", "What?", "--min-p", "2"]),
        (2, ["ask", "What?", "--max-tokens", "2.5"]),
        (2, ["ask", "What?", "--stop", ""]),
        (2, ["benchmark", "demo", "--limit", "-1"]),
        (2, ["quantize", "a", "-o", "b", "--split-size", "big"]),
        (2, ["optimize", "a", "--vision", "x"]),
    ],
)
def test_exit_status(status: int, words: list[str]) -> None:
    found, out, err = run_here(*words)
    assert found == status
    assert bool(out) == (status == 0)
    assert len(err.splitlines()) == (status != 0)
    if status:
        assert re.fullmatch(r"llava-edge: expected .+; got .+; .+\n", err)


@pytest.mark.parametrize("words", [["tiles", "a  b\x1b[1m.png"], ["tiles"], ["tiles", "--nonsense"], ["ask"], ["nope"]])
def test_an_error_as_json_is_the_line(words: list[str]) -> None:
    status, _, line = run_here(*words)
    as_json, out, same = run_here(*words, "--json")
    assert as_json == status
    error = json.loads(out)["error"]
    assert set(error) == {"type", "expected", "got", "fix"}
    assert out.count("\n") == 1
    said = f"llava-edge: expected {error['expected']}; got {error['got']}; {error['fix']}\n"
    assert same == said.replace("\x1b", "\\x1b")
    if words != ["nope"]:
        assert same == line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", ""], "a path for BUNDLE; got an empty text"),
        (["plan", ""], "a path for MODEL; got an empty text"),
        (["ask", "What?", "-m", ""], "a path for --model; got an empty text; give one, or leave --model out"),
        (["ask", "--question-file", ""], "a path for --question-file; got an empty text"),
        (["export", "", "-o", "x"], "a path for CHECKPOINT; got an empty text; give one\n"),
        (["train", "--config", ""], "a path for --config; got an empty text"),
        (["benchmark", "accuracy", "--reference", "a", "--candidate", ""], "a path for --candidate; got an empty text"),
        (["tiles", SIGN, "--save", "-"], "a path for --save; got -; give the path of a file or folder; ./- is one of"),
        (["quantize", "a", "-o", "-"], "a path for --output; got -"),
        (["show", "-"], "a path for BUNDLE; got -"),
    ],
)
def test_no_path_is_no_working_folder_and_no_file(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run_here(*words)
    assert status == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", "What?", "--max-tokens", "x"], "command line for 'llava-edge ask'; got Invalid value 'x' for '--max"),
        (["ask", "What?", "--top-p", "half"], "got Invalid value 'half' for '--top-p'"),
        (["benchmark", "demo", "--limit", "few"], "'llava-edge benchmark demo'; got Invalid value 'few' for '--limit'"),
        (["worker", "--port", "70000"], "got Invalid value '70000' for '--port'"),
        (["tiles", "a", "b", "c"], "got unexpected extra argument(s) (b c); see"),
        (["plan", "--gpu"], "command line for 'llava-edge plan'; got Option '--gpu' requires an argument"),
        (["benchmark", "demo", "--limit"], "command line for 'llava-edge benchmark demo'; got Option '--limit'"),
        (["ask", "What?", "--threads", "5000"], "got 5000; give threads a value in that range"),
    ],
)
def test_a_wrong_command_line_names_command_and_value(words: list[str], said: str) -> None:
    status, _, err = run_here(*words)
    assert status == 2
    assert said in err
    assert "got Got" not in err


def test_many_words_too_many_are_not_all_repeated() -> None:
    assert len(run_here("tiles", *[f"photo{number}.png" for number in range(500)])[2]) < 450


@pytest.mark.parametrize("words", [["show"], ["verify"], ["tiles", SIGN, "-m"], ["quantize", "-o", "x"]])
def test_a_path_that_is_too_long_is_called_that(words: list[str]) -> None:
    status, _, err = run_here(*words, "x" * 5000)
    assert status == 1
    assert "too long" in err
    assert "files and streams" not in err
    assert len(err) < 450


def test_no_json_where_it_was_not_asked_for() -> None:
    for words in (["tiles", "none.png"], ["tiles", "--", "--json"]):
        assert run_here(*words)[1] == ""


def test_the_version() -> None:
    assert run_here("--version")[1] == f"llava-edge {version('llava-edge')}\n"


def test_errors_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command may raise, and the status it ends with."""
    long = "x" * 5000

    def ended(error: BaseException) -> tuple[int, str]:
        def fail(words: object) -> int:
            raise error

        monkeypatch.setattr(module, "_run", fail)
        status, _, err = run_here("show")
        assert len(err.splitlines()) <= 1
        assert len(err) < 800
        return status, err

    assert ended(BundleError(expected="a", got=f"two\nlines {long}", fix="c"))[0] == 1
    assert ended(OptionError(expected="a", got="b", fix="c")) == (2, "llava-edge: expected a; got b; c\n")
    assert "a  b\\x1b.png" in ended(ImageError(expected="a  b\x1b.png", got="b", fix="c"))[1]
    assert ended(KeyboardInterrupt()) == (130, "")
    assert ended(PermissionError(13, "Permission denied", "some/file"))[0] == 1
    assert "(some/file)" in ended(PermissionError(13, "Permission denied", "some/file"))[1]
    assert ended(MemoryError())[0] == 1
    assert "set HOME" in ended(RuntimeError("Could not determine home directory."))[1]
    assert 'pip install "llava-edge[export]"' in ended(ModuleNotFoundError("none", name="optimum"))[1]
    assert "pip install llama-cpp-python" in ended(ModuleNotFoundError("none", name="llama_cpp"))[1]
    with pytest.raises(ModuleNotFoundError):
        ended(ModuleNotFoundError("none", name="llava_edge.nothing"))
    with pytest.raises(RuntimeError):
        ended(RuntimeError("a fault of ours"))
    with pytest.raises(ZeroDivisionError):  # a fault of ours is not a user's
        ended(ZeroDivisionError())


def test_json_is_asked_for_before_the_words_that_are_none() -> None:
    assert failure.asks_for(["ask", "--json"], "--json")
    assert failure.asks_for(["ask", "--json=x"], "--json")
    assert not failure.asks_for(["ask", "--", "--json"], "--json")
    assert not failure.asks_for(["ask", "--jsonx"], "--json")


INTERRUPTED_AT = """
import atexit, os, runpy, signal, sys
place, module, name, *words = sys.argv[1:]
class Interrupting:
    def find_spec(self, found, path=None, target=None):
        if found == place:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
if place == "exit":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["llava-edge", *words]
if name == "-m":
    runpy.run_module(module, run_name="__main__")
else:
    getattr(__import__(module, fromlist=[name]), name)()
"""


def entry_point() -> list[str]:
    """Module and function of the script ``llava-edge``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["scripts"]["llava-edge"]).split(":")


@pytest.mark.parametrize(
    "place",
    [
        *("typer", "llava_edge.runtime.errors", "llava_edge.cli.commands.ask", "llava_edge.cli.terminal.failure"),
        *("llava_edge.runtime.bundle.bundle", "numpy", "exit"),
    ],
)
@pytest.mark.parametrize("way", ["script", "llava_edge.cli", "llava_edge.cli.main"])
def test_an_interrupt_at_any_moment_says_nothing(place: str, way: str) -> None:
    begin = entry_point() if way == "script" else [way, "-m"]
    command = [sys.executable, "-c", INTERRUPTED_AT, place, *begin, "show"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    program = INTERRUPTED_AT.replace("signal.default_int_handler", "signal.SIG_IGN")
    command = [sys.executable, "-c", program, "typer", *entry_point(), "--version"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell in which ``$E`` is the command and ``$S`` the sign."""
    values = {**os.environ, "E": " ".join(COMMAND), "S": SIGN, **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, env=values, cwd=ROOT, timeout=60, check=False)


PRINTING = [
    f"ask $S '{QUESTION}' --max-tokens 2",
    f"ask $S '{QUESTION}' --max-tokens 2 --json",
    f"ask $S '{QUESTION}' --max-tokens 2 --json-stream",
    "tiles $S",
    "tiles $S --json",
    "show",
    "show --json",
    "plan llava3-8b --host 64G@60 --gpu a=24G@1008".replace("llava3", "llama3"),
    "doctor",
    "--help",
    "--version",
    "train -h",
]


@pytest.mark.slow
@pytest.mark.parametrize("words", PRINTING)
@pytest.mark.parametrize("place", [">/dev/full", ">&-"])
def test_output_that_can_not_be_written_is_one_line(words: str, place: str) -> None:
    done = shell(f"$E {words} {place}")
    assert done.returncode == 1
    lines = [one for one in done.stderr.decode().splitlines() if one.startswith("llava-edge: ")]
    assert len(lines) == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", PRINTING)
def test_a_reader_that_has_gone(words: str) -> None:
    done = shell(f"set -o pipefail; {{ sleep 0.2; $E {words}; }} | true")
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_the_answer_comes_without_the_other_streams(place: str) -> None:
    done = shell(f"$E ask $S '{QUESTION}' {place}")
    assert (done.returncode, done.stdout) == (0, b"OPEN\n")
    nothing = shell(f"$E ask - '{QUESTION}' {place} </dev/null")
    assert nothing.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_letters_that_an_encoding_lacks(environment: dict[str, str], tmp_path: Path) -> None:
    name = tmp_path / "Ж\N{SNOWMAN}.png"
    for words in (
        f"tiles '{name}'",
        "ask -h",
        "plan -h",
        "benchmark speed -h",
        f"ask $S 'Wie heißt das, Ж? {chr(0x2603)}'",
    ):
        done = shell(f"$E {words}", **environment)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (1 if words.startswith("tiles") else 0)


@pytest.mark.slow
def test_bytes_that_are_no_text() -> None:
    answered = shell(f"$E ask $S $'{QUESTION} \\xff' --max-tokens 1 --system $'\\xfe' --stop $'\\xfd' --json")
    assert answered.returncode == 0, answered.stderr
    json.loads(answered.stdout)
    for words in ("ask $'\\xff.png' 'What?'", "tiles $'\\xff'", "show $'\\xff'", "$'\\xff'", "ask --$'\\xff'"):
        done = shell(f"$E {words}")
        assert done.returncode in (1, 2)
        assert len(done.stderr.splitlines()) == 1
        assert b"\\xff" in done.stderr


@pytest.mark.slow
def test_nobody_without_a_home() -> None:
    """Neither HOME nor an entry in the password file."""
    program = """
import os, sys
os.environ.pop("HOME", None)
for name in [one for one in os.environ if one.startswith("XDG_")]: del os.environ[name]
import pwd
def nobody(*_): raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
from llava_edge.cli.main import main
sys.argv = ["llava-edge", *sys.argv[1:]]
main()
"""
    for words in (["ask", SIGN, QUESTION, "-q"], ["tiles", SIGN], ["show"], ["doctor"], ["plan"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 3), done.stderr
        assert "Traceback" not in done.stderr
    command = [sys.executable, "-c", program, "--install-completion"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "SHELL": "/bin/bash"})
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion(name: str) -> None:
    values: dict[str, Any] = {
        "_LLAVA_EDGE_COMPLETE": f"complete_{name}",
        "COMP_WORDS": "llava-edge til",
        "COMP_CWORD": "1",
    }
    values |= {"_TYPER_COMPLETE_ARGS": "llava-edge til", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = shell("$E", **values, LLAVA_EDGE_CONFIG="/none")
    assert b"tiles" in done.stdout
    assert done.stderr == b""
    script = shell("$E --show-completion", SHELL=f"/bin/{name}")
    assert b"Traceback" not in script.stderr
    assert script.returncode in (0, 1)
