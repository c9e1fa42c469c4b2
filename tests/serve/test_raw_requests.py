"""Requests as bytes: odd heads, two lengths, half-closed connections. Each is answered in the one form, or closed."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest
from llava_edge.serve.endpoints.chat import Chunks
from llava_edge.serve.models.events import Done
from llava_edge.serve.settings import Limits
from support.running_server import TOKEN, Played, Reached, question, running
from support.waiting import SECONDS, wait_until

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def played() -> Played:
    return Played()


@pytest.fixture(scope="module")
def server(played: Played) -> Iterator[Reached]:
    with running(played, Limits(read_seconds=0.5)) as reached:
        yield reached


@pytest.fixture(autouse=True)
def quiet(server: Reached, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever comes in, nothing but our log hears of it, and the next request is answered."""
    yield
    assert server.ask("next")[0] == 200
    wait_until(lambda: not server.server.server_state.connections)
    assert not server.server.server_state.tasks
    said = capfd.readouterr()
    assert said.err + said.out == ""


def head(server: Reached, line: str, *headers: str) -> bytes:
    usual = (f"Host: 127.0.0.1:{server.port}", f"Authorization: Bearer {TOKEN}", "Content-Type: application/json")
    return "\r\n".join([line, *usual, *headers, "", ""]).encode("latin-1")


def chat(text: str = "hello", **more: object) -> bytes:
    return json.dumps(question(text, **more)).encode()


def replies(said: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each reply in what a server said, read by its own lengths."""
    found = []
    while said:
        top, _, said = said.partition(b"\r\n\r\n")
        status, fields = int(top.split(b" ", 2)[1]), top.lower()
        if status < 200:
            found.append((status, b""))
        elif b"transfer-encoding: chunked" in fields:
            body = b""
            while size := int(said.partition(b"\r\n")[0], 16):
                said = said.partition(b"\r\n")[2]
                body, said = body + said[:size], said[size + 2 :]
            said = said.partition(b"\r\n\r\n")[2]
            found.append((status, body))
        else:
            size = int(fields.partition(b"content-length: ")[2].split(b"\r\n")[0])
            found.append((status, said[:size]))
            said = said[size:]
    return found


GET = "GET /health HTTP/1.1"
POST = f"POST {CHAT} HTTP/1.1"
REFUSED = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "got TLS"),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400, "a request line"),
    "no line": (b"\r\n\r\n", 400, "an empty one"),
    "NUL in the line": (b"GET /hea\0lth HTTP/1.1\r\nHost: x\r\n\r\n", 400, "a request line"),
    "NUL first": (b"\0\0\0\0\r\n\r\n", 400, "a request line"),
    "letters beyond ASCII": ("GET /ä HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, "a request line"),
    "HTTP/2's greeting": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "got HTTP/2.0"),
    "HTTP/1.7": (b"GET /health HTTP/1.7\r\nHost: x\r\n\r\n", 505, "got HTTP/1.7"),
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", 400, "a Host header; got none"),
    "two Hosts": (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "one Host header; got several"),
    "folded first": (b"GET /health HTTP/1.1\r\n Host: x\r\n\r\n", 400, "begins with white space"),
}
"""What is whole as it stands: bytes, status, and what the message says."""
HEADERS = {
    "NUL in a value": (("X-A: a\0b",), 400, "NAME: VALUE"),
    "CR in a value": (("X-A: a\rb",), 400, "NAME: VALUE"),
    "space before the colon": (("X-A : b",), 400, "NAME: VALUE"),
    "no colon": (("X-A",), 400, "NAME: VALUE"),
    "no name": ((": b",), 400, "NAME: VALUE"),
    "both lengths": (("Content-Length: 5", "Transfer-Encoding: chunked"), 400, "leave one of them out"),
    "both lengths, turned": (("transfer-encoding: chunked", "content-length: 5"), 400, "leave one of them out"),
    "two lengths": (("Content-Length: 5", "Content-Length: 6"), 400, "one Content-Length"),
    "two lengths in one": (("Content-Length: 5, 6",), 400, "one Content-Length"),
    "negative": (("Content-Length: -1",), 400, "in digits"),
    "signed": (("Content-Length: +5",), 400, "in digits"),
    "hexadecimal": (("Content-Length: 0x5",), 400, "in digits"),
    "folded length": (("Content-Length: 5\r\n 6",), 400, "in digits"),
    "no length": (("Content-Length:",), 400, "in digits"),
    "21 digits": (("Content-Length: 100000000000000000000",), 413, "at most 20 digits"),
    "huge": (("Content-Length: 99999999999999999999",), 413, "a body of at most"),
    "23 digits": (("Content-Length: 99999999999999999999999",), 413, "at most 20 digits"),
    "gzip, chunked": (("Transfer-Encoding: gzip, chunked",), 501, "chunked"),
    "identity": (("Transfer-Encoding: identity",), 501, "chunked"),
    "chunked twice": (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 501, "chunked"),
    "a long line": (("X-A: " + "a" * 40_000,), 431, "at most 32 KiB"),
    "many lines": (tuple(f"X-{number}: a" for number in range(5_000)), 431, "at most 32 KiB"),
    "no chunk's size": (("Transfer-Encoding: chunked\r\n\r\nzz",), 400, "a body in chunks"),
    "a negative chunk": (("Transfer-Encoding: chunked\r\n\r\n-5",), 400, "a body in chunks"),
    "a chunk of another size": (("Transfer-Encoding: chunked\r\n\r\n2\r\n{}}}",), 400, "behind each chunk"),
}
"""What is added to a sound head, and what becomes of it."""


def check_refused(server: Reached, sent: bytes, status: int, said: str) -> None:
    wait_until(lambda: not server.server.server_state.tasks)
    before = len(server.logged)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        heard = b""
        while chunk := connection.recv(65536):
            heard += chunk
    assert time.monotonic() - began < 10
    ((found, body),) = replies(heard)
    error = json.loads(body)["error"]
    assert (found, said in error["message"]) == (status, True), error
    assert error["type"] == "invalid_request_error"
    assert b"nosniff" in heard
    assert "\n" not in error["message"]
    wait_until(lambda: len(server.logged) > before)
    assert len(server.logged) == before + 1
    assert server.logged[-1].split()[2] in (str(status), "499")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_of_ours(server: Reached, name: str) -> None:
    check_refused(server, *REFUSED[name])


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_refused(server: Reached, name: str) -> None:
    headers, status, said = HEADERS[name]
    check_refused(server, head(server, POST, "Connection: close", *headers), status, said)


def test_chunks_in_http_1_0_are_refused(server: Reached) -> None:
    sent = head(server, f"POST {CHAT} HTTP/1.0", "Transfer-Encoding: chunked")
    check_refused(server, sent, 400, "Transfer-Encoding in HTTP/1.0")


TAKEN = {
    "HTTP/1.0": ("GET /health HTTP/1.0",),
    "the same length twice": (GET, "Content-Length: 0", "Content-Length: 0"),
    "a folded header": (GET, "X-A: a\r\n b"),
    "an upgrade": (GET, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"),
    "an upgrade to HTTP/2": (GET, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"),
    "Latin-1": (GET, "X-A: \xe4"),
    "an expectation of nothing": (GET, "Expect: 100-continue"),
    "nothing in chunks": (GET, "Transfer-Encoding: chunked\r\n\r\n0"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_odd_and_answered(server: Reached, name: str) -> None:
    line, *more = TAKEN[name]
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(head(server, line, *more))
        if "upgrade" in name:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            return
        connection.shutdown(socket.SHUT_WR)
        heard = b""
        while chunk := connection.recv(65536):
            heard += chunk
    assert [status for status, _ in replies(heard) if status >= 200] == [200]


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:PORT/health", "127.0.0.1:PORT", 200),
        ("HTTP://LOCALHOST:PORT/health", "evil.example", 200),
        ("http://127.0.0.1:PORT/v1/models/demo", "127.0.0.1:PORT", 200),
        ("http://evil.example/health", "127.0.0.1:PORT", 403),
        ("http://user@127.0.0.1:PORT/health", "127.0.0.1:PORT", 403),
        ("http://127.0.0.1:PORT?x", "127.0.0.1:PORT", 200),
        ("http:///health", "127.0.0.1:PORT", 403),
        ("https://127.0.0.1:PORT/health", "127.0.0.1:PORT", 404),
        ("*", "127.0.0.1:PORT", 404),
        ("127.0.0.1:PORT", "127.0.0.1:PORT", 404),
    ],
)
def test_targets_that_are_addresses(server: Reached, target: str, host: str, status: int) -> None:
    port = str(server.port)
    sent = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Api-Key: {TOKEN}\r\n\r\n"
    ((found, _),) = replies(server.raw(sent.replace("PORT", port).encode()))
    assert found == status


def test_a_body_that_is_asked_for(server: Reached) -> None:
    body = chat()
    sent = head(server, POST, f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        heard = b""
        while chunk := connection.recv(65536):
            heard += chunk
    assert [status for status, _ in replies(heard)] == [200]


def test_a_body_that_is_refused_before_it_is_sent(server: Reached) -> None:
    sent = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    assert [status for status, _ in replies(server.raw(sent.encode()))] == [401]


def test_requests_behind_each_other_are_answered_in_turn(server: Reached, played: Played) -> None:
    before = len(played.asked)
    sent = b""
    for number in range(5):
        body = chat(f"pipelined {number}", stream=bool(number % 2))
        sent += head(server, POST, f"Content-Length: {len(body)}") + body
    heard = server.raw(sent + head(server, GET, "Connection: close"))
    assert [status for status, _ in replies(heard)] == [200] * 6
    assert played.asked[before:] == [f"pipelined {number}" for number in range(5)]


def test_nonsense_behind_a_request_is_answered_behind_it(server: Reached) -> None:
    body = chat()
    heard = server.raw(head(server, POST, f"Content-Length: {len(body)}") + body + b"\0\0\r\n\r\n")
    assert [status for status, _ in replies(heard)] == [200, 400]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_line_break_behind_a_last_request_is_passed_over(server: Reached, played: Played, version: str) -> None:
    played.go_on.clear()
    body = chat("hold decode")
    line = f"POST {CHAT} HTTP/{version}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(head(server, line, f"Content-Length: {len(body)}", "Connection: close") + body)
        played.reached("decode")
        connection.sendall(b"\r\n")
        time.sleep(0.05)
        played.go_on.set()
        heard = b""
        while chunk := connection.recv(65536):
            heard += chunk
    assert [status for status, _ in replies(heard)] == [200]


def half_closed(server: Reached, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    return connection


@pytest.mark.parametrize("phase", ["", "encode", "prefill", "decode"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_who_sends_no_more_is_answered(server: Reached, played: Played, phase: str, streamed: bool) -> None:
    played.go_on.clear()
    body = chat(f"hold {phase}" if phase else "hello", stream=streamed)
    with half_closed(server, head(server, POST, f"Content-Length: {len(body)}") + body) as connection:
        if phase:
            played.reached(phase)
            time.sleep(0.3)  # several looks at whether it still reads
            assert played.phase == phase
            played.go_on.set()
        heard = b""
        while chunk := connection.recv(65536):
            heard += chunk
    found = replies(heard)
    assert [status for status, _ in found if status != 100] == [200]
    said = found[-1][1].decode()
    if streamed:
        assert said.endswith("data: [DONE]\n\n")
    else:
        assert json.loads(said)["choices"][0]["message"]["content"] == "one two"


@pytest.mark.parametrize("phase", ["encode", "prefill", "decode"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("pipelined", [False, True], ids=["alone", "with another behind"])
def test_who_sends_no_more_and_goes_is_noticed(
    server: Reached, played: Played, phase: str, streamed: bool, pipelined: bool
) -> None:
    played.go_on.clear()
    body = chat(f"hold {phase}", stream=streamed)
    sent = head(server, POST, f"Content-Length: {len(body)}") + body
    connection = half_closed(server, 2 * sent if pipelined else sent)
    played.reached(phase)
    time.sleep(0.1)
    assert played.phase == phase
    connection.close()
    began = time.monotonic()
    played.reached("")
    assert time.monotonic() - began < 2
    assert played.cancelled[-1] == f"hold {phase}"


def test_who_goes_with_another_request_behind_is_noticed(server: Reached, played: Played) -> None:
    played.go_on.clear()
    body = chat("hold decode")
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
    connection.sendall(2 * (head(server, POST, f"Content-Length: {len(body)}") + body))
    played.reached("decode")
    connection.close()
    played.reached("")
    assert played.cancelled[-1] == "hold decode"


@pytest.mark.parametrize("sent", ["", "GET /hea", POST + "\r\nHost: x\r\n"], ids=["nothing", "a word", "a header"])
def test_who_ends_in_the_middle_is_closed(server: Reached, sent: str) -> None:
    with half_closed(server, sent.encode()) as connection:
        assert connection.recv(100) == b""


def test_who_ends_in_the_middle_of_a_body_is_closed(server: Reached) -> None:
    with half_closed(server, head(server, POST, "Content-Length: 100") + b"{") as connection:
        assert connection.recv(100) == b""


def test_a_fault_behind_the_beginning_of_a_reply_closes_quietly(
    server: Reached, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object, done: Done) -> bytes:
        raise RuntimeError(done.answer.text)

    monkeypatch.setattr(Chunks, "_end", broken)
    body = chat(stream=True)
    heard = server.raw(head(server, POST, f"Content-Length: {len(body)}") + body)
    assert heard.startswith(b"HTTP/1.1 200")
    assert b"[DONE]" not in heard
    assert not heard.endswith(b"0\r\n\r\n")
    said = capfd.readouterr().err
    assert "RuntimeError in" in said
    assert "one two" not in said
    wait_until(lambda: server.logged[-1].startswith(f"POST {CHAT} 200"))
