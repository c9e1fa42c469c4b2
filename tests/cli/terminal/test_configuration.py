"""A configuration file and environment variables as defaults of options: what overrides what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli.main import app
from llava_edge.cli.terminal import configuration
from llava_edge.cli.terminal.configuration import configuration_file, defaults, settings_of
from llava_edge.runtime.errors import OptionError
from support.command_line import run_here


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a configuration file that is then the user's."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "llava-edge.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(path))
        return path

    return write


def of(*words: str) -> dict[str, Any]:
    """The defaults of the command that ``words`` name."""
    found: Any = defaults(app, list(words))
    for word in words[:2]:
        found = found.get(word, found) if isinstance(found, dict) else found
    return dict(found)


def test_a_table_overrides_the_top_and_commands_take_what_they_have(written: Any) -> None:
    written('threads = 1\nmodel = "m"\nmax_tokens = 5\n[ask]\nmax_tokens = 2\nstop = ["a", "b"]\n[chat]\nthreads = 3\n')
    assert of("ask", "x") == {"threads": "1", "model": "m", "max_tokens": "2", "stop": ["a", "b"]}
    assert of("chat") == {"threads": "3", "model": "m", "max_tokens": "5"}
    assert of("tiles", "x.png") == {"model": "m"}
    assert of("benchmark", "accuracy") == {"threads": "1"}


def test_the_environment_overrides_the_file(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written("threads = 1\nflash_attention = true\n")
    monkeypatch.setenv("LLAVA_EDGE_THREADS", "2")
    monkeypatch.setenv("LLAVA_EDGE_FLASH_ATTENTION", "no")
    monkeypatch.setenv("LLAVA_EDGE_STOP", "'### Human:' END")
    monkeypatch.setenv("LLAVA_EDGE_CONTEXT", "")
    assert of("ask", "x") == {"threads": "2", "flash_attention": False, "stop": ["### Human:", "END"]}
    assert of("plan") == {}
    monkeypatch.setenv("LLAVA_EDGE_THREADS", "two")
    with pytest.raises(OptionError, match="a whole number as LLAVA_EDGE_THREADS; got 'two'"):
        of("ask", "x")
    assert of("show") == {}


def test_the_command_line_overrides_all(written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written(f'[tiles]\nmodel = "{tmp_path}/none"\njson = true\n')
    sign = str(Path(__file__).parents[3] / "examples" / "sign.png")
    demo = str(Path(__file__).parents[3] / "runtime" / "demo")
    status, out, err = run_here("tiles", sign)
    assert (status, out) == (1, "")
    assert f"{tmp_path}/none" in err
    status, out, _ = run_here("tiles", sign, "-m", demo)
    assert status == 0
    assert json.loads(out)["image_tokens"] > 0
    monkeypatch.setenv("LLAVA_EDGE_MODEL", demo)
    assert run_here("tiles", sign)[0] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thread = 1", "keys that are options in {path}; got 'thread'; write threads"),
        ("max-tokens = 1", "got 'max-tokens'; write max_tokens"),
        ("[ask]\nlimit = 1", "keys that are options of 'ask' in {path}; got 'ask.limit'"),
        ("[asks]\nthreads = 1", "tables named after commands in {path}; got 'asks'; write ask"),
        ("[ask.threads]\nx = 1", "in {path}; got 'ask.threads'"),
        ('threads = "two"', "a whole number as threads in {path}; got 'two'"),
        ("threads = true", "a whole number as threads in {path}; got True"),
        ("threads = 1.5", "a whole number as threads in {path}; got 1.5"),
        ("threads = 2024-01-01", "a whole number as threads in {path}"),
        ("temperature = true", "a number as temperature in {path}; got True"),
        ("temperature = nan", "temperature from 0 to 100 as temperature in {path}; got nan"),
        ("threads = -1", "threads from 0 to 1024 as threads in {path}; got -1"),
        ("kv_type = 'q9'", "as kv_type in {path}; got 'q9'"),
        ("stop = [3]", "text in quotes as stop in {path}; got 3"),
        ('model = "a\\u0000b"', "text without NUL as model in {path}"),
        ("[ask]\njson = 1", "true or false as ask.json in {path}; got 1"),
        ("[benchmark.accuracy]\nlimit = -1", "0 or more as benchmark.accuracy.limit in {path}; got -1"),
        ("[optimize]\nvision = 'x'", "tensorrt or cuda as optimize.vision in {path}; got 'x'"),
        ("threads", "a configuration file in TOML at {path}"),
        (b"\xff = 1", "a configuration file in TOML at {path}"),
        (b"a = " + b"[" * 50_000, "a configuration file in TOML at {path}"),
        ("x" * 5000 + " = 1", "keys that are options in {path}"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(text: str | bytes, said: str, written: Any) -> None:
    path = written(text)
    status, out, err = run_here("show")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert said.format(path=path) in line
    assert len(line) < 700
    for way in (["--help"], ["show", "-h"], ["--version"], ["doctor"]):
        assert run_here(*way)[0] == 0


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_CONFIG", str(tmp_path / "none.toml"))
    status, _, err = run_here("show")
    assert status == 2
    assert "none.toml; got No such file or directory" in err


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAVA_EDGE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "roaming"))
    places = {
        "linux": "xdg",
        "darwin": "Library/Application Support",
        "win32": "roaming",
    }
    for platform, folder in places.items():
        monkeypatch.setattr(configuration.sys, "platform", platform)
        assert configuration_file() is None
        for place in (f"{folder}/llava-edge/llava-edge.toml", f"{folder}/llava-edge.toml"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).touch()
            assert configuration_file() == tmp_path / place


def test_nobody_without_a_home_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLAVA_EDGE_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(configuration.os.path, "expanduser", lambda path: path)
    assert configuration_file() is None


def test_every_option_of_every_command_can_be_set() -> None:
    """Against what click takes."""
    import typer.main

    def compare(commands: dict[str, Any], group: Any) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                compare(commands[name], command)
                continue
            taken = {
                flag[2:].replace("-", "_")
                for one in command.params
                if type(one).__name__ == "TyperOption"
                for flag in one.opts
                if flag.startswith("--")
            }
            assert set(commands[name]) == taken - {"help"}
            assert {one.parameter for one in commands[name].values()} <= {one.name for one in command.params}

    compare(settings_of(app), typer.main.get_command(app))
