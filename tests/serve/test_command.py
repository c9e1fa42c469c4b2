"""``llava-edge serve`` as a person, a container and an application start it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llava_edge.cli.commands import serve as serve_command
from llava_edge.runtime import demo_bundle, load
from llava_edge.runtime.errors import NativeError, OptionError
from llava_edge.serve.listening import listen_at, listen_in
from llava_edge.serve.models.registry import read_facts
from llava_edge.serve.server import Server
from llava_edge.serve.settings import Settings
from llava_edge.serve.sidecar import choose_token
from support.command_line import run_here
from support.running_server import question
from support.waiting import SECONDS, wait_until

PROGRAM = "import sys; from llava_edge.cli.main import main; sys.argv[0] = 'llava-edge'; main()"
TOKEN = "a-token-of-the-application"


class Process:
    """A server in a process of its own."""

    def __init__(self, *arguments: str, told: str = "", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.process.stdin
        if told:
            self.process.stdin.write(told + "\n")
            self.process.stdin.flush()

    def first_line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


@contextmanager
def started(*arguments: str, told: str = "", **environment: str) -> Iterator[tuple[Process, str]]:
    """A server and the first line it printed; killed at the end where it still runs."""
    server = Process(*arguments, told=told, **environment)
    try:
        yield server, server.first_line()
    finally:
        server.process.kill()
        for pipe in (server.process.stdin, server.process.stdout, server.process.stderr):
            if pipe:
                pipe.close()
        server.process.wait()


def asked(port: int, path: str, token: str = "", body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body), {**headers, "Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


@pytest.mark.slow
def test_a_sidecar() -> None:
    with started("--sidecar", told=TOKEN) as (server, line):
        ready = json.loads(line)
        assert ready.keys() == {"event", "protocol", "url", "pid", "version"}
        assert (ready["event"], ready["protocol"], ready["pid"]) == ("ready", 1, server.process.pid)
        port = port_of(ready["url"])
        wait_until(lambda: asked(port, "/health")[0] == 200)
        assert asked(port, "/v1/models")[0] == 401
        assert asked(port, "/v1/models", TOKEN)[0] == 200
        status, body = asked(port, "/v1/chat/completions", TOKEN, question("Hi", max_tokens=3))
        assert status == 200, body
        arguments = Path(f"/proc/{server.process.pid}/cmdline")
        assert not arguments.exists() or TOKEN not in arguments.read_text()
        assert asked(port, "/v1/shutdown", TOKEN, {})[0] == 200
        code, out, err = server.ended()
        assert (code, out) == (0, "")
        assert TOKEN not in err


@pytest.mark.slow
@pytest.mark.parametrize("way", ["signal", "request"])
def test_a_sidecar_ends_quietly_with_its_input_open(way: str) -> None:
    with started("--sidecar", told=TOKEN) as (server, line):
        port = port_of(json.loads(line)["url"])
        wait_until(lambda: asked(port, "/health")[0] == 200)
        if way == "signal":
            server.process.terminate()
        else:
            assert asked(port, "/v1/shutdown", TOKEN, {})[0] == 200
        assert server.process.wait(SECONDS) == 0
        assert server.process.stderr
        assert "Fatal" not in server.process.stderr.read()


@pytest.mark.slow
def test_the_leash_ends_a_sidecar_while_it_computes() -> None:
    with started("--sidecar", "--max-tokens", "2000", told=TOKEN) as (server, line):
        port = port_of(json.loads(line)["url"])
        wait_until(lambda: asked(port, "/health")[0] == 200)
        body = json.dumps(question("word " * 800, temperature=9, top_k=0, stream=True)).encode()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert connection.recv(100)
            assert server.process.stdin
            server.process.stdin.close()
            began = time.monotonic()
            assert server.process.wait(SECONDS) == 0
            assert time.monotonic() - began < 1


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "serve", "--sidecar"], stdin=subprocess.PIPE)
child.stdin.write(b"long-token\\n")
child.stdin.flush()
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_sidecar_goes_with_its_application_however_that_goes() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, PROGRAM], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    ready = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def gone() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port_of(ready["url"])), timeout=1).close()
        except OSError:
            return True
        return False

    wait_until(gone, 2)


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def opener(_: Any, cancelled: Any) -> Any:
        raise NativeError(expected="memory for the model", got="none", fix="choose a smaller one")

    listener = listen_at("127.0.0.1", 0)
    server = Server(Settings(port=listener.getsockname()[1]), read_facts([demo_bundle()]), opener)
    with pytest.raises(NativeError, match="memory for the model"):
        server.run_on(listener)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_socket_that_only_its_user_opens(tmp_path: Path) -> None:
    place = tmp_path / "edge.sock"
    with started("--socket", str(place), LLAVA_EDGE_TOKEN=TOKEN) as (server, line):
        assert line == f"unix:{place}"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place))
            connection.sendall(
                f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGTERM)
        assert server.ended()[0] == 0
        assert not place.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_and_tell_who_waits(number: signal.Signals, code: int) -> None:
    with started("--port", "0", "--no-token", "--max-tokens", "2000") as (server, line):
        port = port_of(line)
        assert line == f"http://127.0.0.1:{port}/"
        wait_until(lambda: asked(port, "/health")[0] == 200)
        server.process.send_signal(number)
        ended = server.ended()
        assert ended[:2] == (code, "")
        assert "Traceback" not in ended[2]


@pytest.mark.parametrize(
    ("words", "isolate"),
    [((), "engine"), (("--isolate", "off"), False), (("--isolate=off",), False), (("--isolate", "--no-cache"), "llm")],
)
def test_what_lives_in_a_process_of_its_own(
    words: tuple[str, ...], isolate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_edge.serve.models import local

    seen: list[Any] = []

    def served(loading: Any) -> Any:
        seen.append(loading.isolate)
        raise OptionError(expected="an end here", got="none", fix="end")

    monkeypatch.setattr(local, "served_options", served)
    assert "an end here" in run_here("serve", "--no-token", *words)[2]
    assert seen == [isolate]


@pytest.mark.slow
def test_a_token_is_made_and_told_in_the_address(tmp_path: Path) -> None:
    with started("--port", "0") as (_, line):
        address, _, token = line.partition("/?token=")
        assert len(token) > 30
        assert asked(port_of(address), "/v1/models")[0] == 401
        assert asked(port_of(address), "/v1/models", token)[0] == 200
        assert asked(port_of(address), f"/?token={token}")[0] == 303
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    with started("--port", "0", "--token-file", str(file), LLAVA_EDGE_TOKEN="from-the-environment") as (_, line):
        assert "token" not in line
        assert asked(port_of(line), "/v1/models", "from-the-file")[0] == 200
        assert asked(port_of(line), "/v1/models", "from-the-environment")[0] == 401


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "open to all": (("--host", "0.0.0.0", "--no-token"), "a token where other machines"),
    "a sidecar without": (("--sidecar", "--no-token"), "--no-token with --sidecar"),
    "two wishes": (("--token-file", "x", "--no-token"), "--no-token with --token-file"),
    "no such file": (("--token-file", "no-such-file"), "a token in no-such-file"),
    "no such bundle": (("-m", "no-such-bundle"), "a bundle folder at no-such-bundle"),
    "any origin": (("--allow-origin", "*"), "origins one by one"),
    "an odd origin": (("--allow-origin", "evil"), "an origin such as"),
    "an odd host": (("--allow-host", "http://x"), "a host such as"),
    "detail": (("--detail", "huge"), "--detail among high, low, auto"),
    "time": (("--idle-unload", "soon"), "a time such as 15m"),
    "no such host": (("--host", "no.such.host.invalid"), "an address or name of this machine for --host"),
    "another machine's address": (("--host", "192.0.2.1"), "an address or name of this machine for --host"),
    **{
        f"host {host!r}"[:20]: (("--host", host), "an address of this machine such as 127.0.0.1")
        for host in (
            "",
            " ",
            "*",
            "0",
            "127.1",
            "256.1.1.1",
            "[::1]",
            "localhost:80",
            "http://x",
            "a b",
            "-x",
            "x" * 300,
        )
    },
    "socket and port": (("--socket", "s", "--port", "0"), "--socket with --port"),
    "socket and host": (("--socket", "s", "--host", "::1"), "--socket with --host"),
    "isolate": (("--isolate", "foo"), "isolate among llm, engine, off; got 'foo'"),
    "a schema that can't be held": (("--schema", '{"uniqueItems": true}'), "a JSON Schema that answers can be held to"),
    "a schema of oneOf": (
        ("--schema", '{"oneOf": [{"type": "object"}, {"type": "object", "required": ["a"]}]}'),
        "oneOf constraints are not supported; change",
    ),
    "no schema": (("--schema", '{"name": 1}'), "a JSON Schema as a dict"),
    "no regular expression": (("--regex", "("), "a regular expression that answers can be held to"),
    "no grammar": (("--grammar", "???"), "a Lark grammar that answers can be held to"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_command_lines_end_before_anything_listens(arguments: tuple[str, ...], said: str) -> None:
    status, out, err = run_here("serve", *arguments)
    assert status == (1 if "no-such-bundle" in arguments else 2)  # a model that is not there is no wrong command line
    assert out == ""
    (line,) = err.splitlines()
    assert said in line


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_the_command_line_decides_between_socket_and_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a configuration; each end shows which place was tried."""
    file = tmp_path / "file"
    file.write_text("in the way")
    with listen_at("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("LLAVA_EDGE_PORT", port)
        assert f"no file at {file}" in run_here("serve", "--no-token", "--socket", str(file))[2]
        monkeypatch.setenv("LLAVA_EDGE_SOCKET", str(file))
        assert "--socket with --port" in run_here("serve", "--no-token")[2]
        monkeypatch.delenv("LLAVA_EDGE_PORT")
        assert "a free port at 127.0.0.1" in run_here("serve", "--no-token", "--port", port)[2]


def test_a_port_that_is_taken() -> None:
    with listen_at("127.0.0.1", 0) as taken:
        status, _, err = run_here("serve", "--no-token", "--port", str(taken.getsockname()[1]))
    assert status == 2
    assert "a free port at 127.0.0.1" in err


def test_several_models_need_different_names() -> None:
    status, _, err = run_here("serve", *["-m", str(demo_bundle())] * 3)
    assert status == 2
    assert "models with different names" in err


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_sockets_in_the_way(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with listen_in(place), pytest.raises(OptionError, match="a server that listens there"):
        listen_in(place)
    listen_in(place).close()  # what a killed server left is taken away
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OptionError, match="one that is no socket"):
        listen_in(file)
    assert file.read_text() == "precious"
    with pytest.raises(OptionError):
        listen_in(tmp_path / ("long" * 50))


class Input:
    def __init__(self, line: bytes) -> None:
        self._line = line

    def readline(self, size: int) -> bytes:
        return self._line[:size]


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"two words\n", b"\xff\xfe\n", "ümlaut\n".encode(), b"x" * 5000, b"aaaa\tbbbb\n"]
)
def test_lines_that_are_no_token(line: bytes) -> None:
    with pytest.raises(OptionError, match="a token of printable ASCII"):
        choose_token(sidecar=True, environment={}, stdin=Input(line))  # type: ignore[arg-type]


def test_short_tokens_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_text("1234567\n")
    for given in (
        {"file": file, "environment": {}},
        {"environment": {"LLAVA_EDGE_TOKEN": "1234567"}},
        {"sidecar": True, "environment": {}, "stdin": Input(b"1234567\n")},
    ):
        with pytest.raises(OptionError, match=r"at least 8 characters .*got one of 7"):
            choose_token(**given)  # type: ignore[arg-type]


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
@pytest.mark.parametrize(("mode", "said"), [(0o644, 1), (0o640, 1), (0o600, 0)])
def test_a_token_that_others_can_read_is_said(tmp_path: Path, mode: int, said: int) -> None:
    file, heard = tmp_path / "t", list[str]()
    file.write_text("a-token-in-a-file")
    file.chmod(mode)
    choose_token(file=file, environment={}, warn=heard.append)
    assert len(heard) == said
    assert all("chmod 600" in line for line in heard)


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_text("from-a-file\n")
    environment = {"LLAVA_EDGE_TOKEN": "environment"}
    assert choose_token(file=file, environment=dict(environment)).value == "from-a-file"
    told = Input(b"from-its-parent\n")  # which knows no other token
    for given in (None, file):
        there = choose_token(sidecar=True, file=given, environment=dict(environment), stdin=told)  # type: ignore[arg-type]
        assert there.value == "from-its-parent"
    assert choose_token(environment={"LLAVA_EDGE_TOKEN": ""}).made
    assert choose_token(environment=environment).value == "environment"
    assert environment == {}  # children do not inherit it
    assert choose_token(sidecar=True, environment={}, stdin=Input(b"the-line\r\n")).value == "the-line"  # type: ignore[arg-type]
    made = choose_token(environment={})
    assert made.made
    assert made.value != choose_token(environment={}).value
    assert choose_token(none=True, environment={}).value == ""
    with pytest.raises(OptionError):
        choose_token(sidecar=True, environment={}, stdin=None)


def test_a_second_model_of_a_name_is_said(tmp_path: Path) -> None:
    other, heard = tmp_path / "other", list[str]()
    shutil.copytree(demo_bundle(), other)
    facts = read_facts([demo_bundle(), other], warn=heard.append)
    assert [one.id for one in facts][1] == "other"
    (line,) = heard
    assert "is served as other" in line


def test_the_demo_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "models"))
    assert serve_command._folder(Path("demo")) == demo_bundle()
    (tmp_path / "demo").mkdir()
    assert serve_command._folder(Path("demo")) == Path("demo")


def test_no_folder_for_temporary_files_is_said_before_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.TemporaryFile", none)
    status, out, err = run_here("serve", "--no-token", "--port", "0")
    assert (status, out) == (1, "")
    assert "TMPDIR" in err
    with pytest.raises(NativeError, match="TMPDIR"):
        load(demo_bundle(), isolate="engine")
