"""A configuration file and environment variables as defaults of options: what overrides what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli.configuration import reading as configuration
from llava_edge.cli.configuration.reading import configuration_file, defaults
from llava_edge.cli.configuration.settings import settings_of
from llava_edge.cli.main import app
from llava_edge.runtime.errors import OptionError
from support.command_line import run_here

SIGN = Path(__file__).parents[3] / "examples" / "sign.png"


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


def test_picture_tokens_are_a_number_or_a_text(written: Any) -> None:
    written('picture_tokens = 40\n[chat]\npicture_tokens = "25%"\n[benchmark.accuracy]\npicture_tokens = [40, "10%"]\n')
    assert (of("ask", "x"), of("chat")) == ({"picture_tokens": "40"}, {"picture_tokens": "25%"})
    assert defaults(app, ["benchmark", "accuracy"])["benchmark"]["accuracy"] == {"picture_tokens": ["40", "10%"]}
    for wrong in ("1", '"0%"'):
        written(f"picture_tokens = {wrong}\n")
        with pytest.raises(OptionError, match="a number of positions from 2"):
            of("ask", "x")


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
    assert status == 1
    assert f"{tmp_path}/none" in json.loads(out)["error"]["expected"]
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
        (b"\xff = 1", "a configuration file in TOML at {path}; got byte 0xff at 0, no UTF-8 text"),
        ("a = 1".encode("utf-16"), "a configuration file in TOML at {path}; got byte 0xff at 0, no UTF-8 text"),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('json = "true"', "true or false as json in {path}; got 'true'"),
        ('[benchmark]\njson = "true"', "true or false as benchmark.json in {path}; got 'true'"),
        ("judge_prices = 3", "[number, number] as judge_prices in {path}; got 3"),
        ("judge_prices = [1, 2, 3]", "[number, number] as judge_prices in {path}; got [1, 2, 3]"),
        ('worker = ["nowhere"]', "as worker in {path}; got 'nowhere'"),
        ('gpu = "large"', "a device such as a=24G@1008 as gpu in {path}; got 'large'"),
        ('split_size = "big"', "a size like 48G or 500M as split_size in {path}; got 'big'"),
        ('tensor_split = "a,b"', "shares such as 2,1,1 as tensor_split in {path}; got 'a,b'"),
        ('model = ""', "a path as model in {path}; got an empty text"),
        ('[show]\nmodel = ""', "a path as show.model in {path}; got an empty text"),
    ],
)
def test_a_value_is_held_to_its_option_whatever_command_runs(text: str, said: str, written: Any) -> None:
    path = written(text)
    for command in (["show"], ["plan"]):
        status, _, err = run_here(*command)
        assert status == 2
        assert said.format(path=path) in err


@pytest.mark.parametrize(
    ("text", "got", "fix"),
    [
        ("ask = 2", "'ask' as a key, which is a command", "write [ask] on a line, and its options below"),
        ("[[ask]]\nthreads = 2", "'ask' as a key, which is a command", "write [ask] on a line"),
        ("[benchmark]\ndemo = 2", "'benchmark.demo' as a key, which is a command", "write [benchmark.demo] on a line"),
        ("max_tokens.x = 3", "'max_tokens', a table", "write max_tokens = VALUE"),
        ("[threads]", "'threads', a table", "write threads = VALUE"),
        ("version = true", "'version', which is for the command line alone", "leave it out"),
        ("help = true", "'help', which is for the command line alone", "leave it out"),
        ("no_resume = true", "'no_resume'", "write resume = false"),
        ("Threads = 1", "'Threads'", "write threads"),
    ],
)
def test_a_hint_is_never_what_was_written(text: str, got: str, fix: str, written: Any) -> None:
    written(text)
    err = run_here("show")[2]
    assert f"got {got}; {fix}" in err


def test_a_key_may_be_called_as_a_command_is(written: Any) -> None:
    """Every option's key that is a command's name too, at the top: no command ends for it."""
    commands = settings_of(app)
    values = {"worker": '["127.0.0.1:50052"]', "verify": "false", "cache": '"kept"'}
    both = {key for key in values if key in commands}
    assert both == set(commands) & {
        key for one in commands.values() for key, inner in one.items() if not isinstance(inner, dict)
    }
    written("".join(f"{key} = {values[key]}\n" for key in both))
    for command in (["show"], ["plan"], ["doctor"], ["tiles", str(SIGN)]):
        assert run_here(*command)[0] in (0, 3)
    assert of("ask", "x") == {"worker": ["127.0.0.1:50052"], "cache": "kept"}
    assert of("plan") == of("worker") == {}
    assert of("export") == {"verify": False}


def test_options_of_one_name_that_mean_different_things(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written('worker = ["10.0.0.2:50052=24G"]\nhost = "64G"\nvision = "int8"\njson = true\n')
    assert of("plan") == {"worker": ["10.0.0.2:50052=24G"], "host": "64G", "vision": "int8", "as_json": True}
    assert of("worker") == of("benchmark", "speed") == of("optimize") == {}
    assert "worker" not in of("ask", "x")
    monkeypatch.setenv("LLAVA_EDGE_HOST", "127.0.0.1")
    monkeypatch.setenv("LLAVA_EDGE_JSON", "yes")
    assert of("worker")["host"] == "127.0.0.1"
    assert of("plan")["host"] == "64G"
    assert of("benchmark", "speed") == {}


@pytest.mark.parametrize("command", ["show", "verify", "plan", "quantize", "optimize", "tiles", "ask"])
@pytest.mark.parametrize("way", ["file", "variable"])
def test_the_configured_model_is_the_bundle_of_every_command(
    command: str, way: str, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if way == "file":
        written('model = "~/none"\n')
    else:
        monkeypatch.setenv("LLAVA_EDGE_MODEL", "~/none")
    more = {"quantize": ["-o", "x"], "tiles": [str(SIGN)], "ask": ["What?"]}.get(command, [])
    status, _, err = run_here(command, *more)
    assert status == 1
    assert f"{tmp_path}/none" in err
    given = [command, *more, *(["-m"] if command in ("tiles", "ask") else []), str(tmp_path / "other")]
    assert f"{tmp_path}/other" in run_here(*given)[2]


def test_json_that_is_configured_is_for_errors_too(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*words: str) -> bool:
        status, out, err = run_here(*words)
        assert status in (1, 2)
        assert err.startswith("llava-edge: ")
        return bool(out) and set(json.loads(out)) == {"error"}

    assert not failed("show", "none")
    monkeypatch.setenv("LLAVA_EDGE_JSON", "1")
    assert failed("show", "none")
    monkeypatch.delenv("LLAVA_EDGE_JSON")
    written("json = true")
    assert failed("show", "none")
    assert failed("tiles")
    assert not failed("worker", "--nonsense")
    written("[ask]\njson_stream = true")
    assert failed("ask", "none.png", "What?")
    assert not failed("show", "none")


def test_a_variable_that_sets_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLAVA_EDGE_MAXTOKENS", "5")
    monkeypatch.setenv("LLAVA_EDGE_CACHE", str(tmp_path))
    status, _, err = run_here("show")
    assert (status, err) == (0, "'LLAVA_EDGE_MAXTOKENS' sets nothing: did you mean LLAVA_EDGE_MAX_TOKENS?\n")
    assert run_here("show", "-h")[2] == ""


def test_a_variable_like_no_option_is_like_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_EDGE_FOO", "5")
    assert run_here("show")[2] == "'LLAVA_EDGE_FOO' sets nothing: unset it\n"


@pytest.mark.parametrize(("key", "value"), [("ctx", -5), ("context", -5), ("llm", "q9"), ("images", 2**30)])
def test_what_a_command_refuses_is_said_to_be_configured(
    key: str, value: Any, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that only the command itself can refuse: where they were set, for the file, its table and a variable."""
    text = json.dumps(value)
    for content in (f"{key} = {text}", f"[plan]\n{key} = {text}"):
        file = written(content)
        status, _, err = run_here("plan", "llama3-8b")
        assert status == 2
        assert err.count(str(file)) == 1
        assert f"{key} in {file}" in err
    assert "it is" not in run_here("plan", "llama3-8b", f"--{key}", str(value))[2]
    written("")
    monkeypatch.setenv(f"LLAVA_EDGE_{key.upper()}", str(value))
    assert run_here("plan", "llama3-8b")[2].count(f"LLAVA_EDGE_{key.upper()}") == 1


def test_a_short_option_is_no_other_one(written: Any) -> None:
    file = written('max_tokens = 7\nmodel = "/none"')
    error = OptionError(expected="fewer", got="7", fix="give fewer")
    words = ["ask", "-m", "/other", "What?"]
    assert configuration.set_where(app, words, error) == f"max_tokens in {file}"
    assert configuration.set_where(app, [*words, "--max-tokens", "7"], error) == ""
    missing = OptionError(expected="a bundle folder at /none", got="nothing", fix="give one")
    assert configuration.set_where(app, ["ask", "What?"], missing) == f"model in {file}"
    assert configuration.set_where(app, words, missing) == ""


def test_a_model_that_is_not_there_is_said_to_be_configured(written: Any, tmp_path: Path) -> None:
    file = written(f'model = "{tmp_path}/none"')
    assert run_here("show")[2].endswith(f" (it is model in {file})\n")
    assert "(it is" not in run_here("show", f"{tmp_path}/other")[2]


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
            if name == "build":  # -m has the bundle there, --model an endpoint's model
                taken = taken - {"bundle"} | {"endpoint_model"}
            places = {one.metavar for one in command.params if type(one).__name__ == "TyperArgument"}
            assert set(commands[name]) == taken - {"help"} | ({"model"} if places & {"BUNDLE", "MODEL"} else set())
            assert {one.parameter for one in commands[name].values()} <= {one.name for one in command.params}

    compare(settings_of(app), typer.main.get_command(app))


def test_a_configured_bundle_is_no_endpoints_model() -> None:
    """``benchmark build`` has both, and ``--model`` is the endpoint's."""
    (build,) = (one for name, one in settings_of(app)["benchmark"].items() if name == "build")
    assert build["model"].parameter == "bundle"
    assert build["endpoint_model"].parameter == "endpoint_model"


@pytest.mark.parametrize(("key", "expected"), [("for", "this or avx2 or"), ("preset", "small or balanced or best")])
def test_a_wrong_machine_or_preset_is_named_by_key_and_file(key: str, expected: str, written: Any) -> None:
    path = written(f'[quantize]\n{key} = "mars"\n')
    with pytest.raises(OptionError) as raised:
        of("quantize", "b")
    assert expected in raised.value.expected
    assert raised.value.expected.endswith(f"as quantize.{key} in {path}")
    assert raised.value.got == "'mars'"
    written(f'[quantize]\n{key} = "{"amx" if key == "for" else "best"}"\n')
    assert len(of("quantize", "b")) == 1
