"""Who may ask, and how much: every default of the server, over a real socket."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from llava_edge.runtime.errors import OptionError
from llava_edge.serve.settings import Limits, Settings, is_loopback, parse_duration
from support.running_server import TOKEN, Played, Reached, question, running
from support.waiting import wait_until

CHAT = "/v1/chat/completions"
ALLOWED = "https://app.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Reached]:
    with running(Played(), allowed_origins=(ALLOWED,), allowed_hosts=("box.local", "box.example:99")) as reached:
        yield reached


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:PORT", True),
        ("localhost:PORT", True),
        ("LOCALHOST:PORT", True),
        ("[::1]:PORT", True),
        ("box.local", True),
        ("box.local:1", True),
        ("box.example:99", True),
        ("box.example:98", False),
        ("evil.example:PORT", False),
        ("localhost", False),
        ("localhost:1", False),
        ("127.0.0.1", False),
        ("localhost.evil.example:PORT", False),
        ("notlocalhost:PORT", False),
        ("127.0.0.1.nip.io:PORT", False),
        ("127.1:PORT", False),
        ("2130706433:PORT", False),
        ("0.0.0.0:PORT", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/health"])
def test_hosts(server: Reached, host: str, allowed: bool, path: str) -> None:
    status, _, body = server.request("GET", path, headers={"Host": host.replace("PORT", str(server.port))})
    assert status == (200 if allowed else 403)
    if not allowed:
        assert json.loads(body)["error"]["code"] == "host_not_allowed"


def test_two_hosts_or_none(server: Reached) -> None:
    host = f"127.0.0.1:{server.port}"
    two = f"GET /health HTTP/1.0\r\nHost: {host}\r\nHost: evil\r\n\r\n"
    assert status_of(server.raw(two.encode())) in (400, 403)
    assert status_of(server.raw(b"GET /health HTTP/1.0\r\n\r\n")) == 403


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:PORT", True),
        (ALLOWED, True),
        ("http://127.0.0.1:1", False),
        ("http://localhost:PORT", False),
        ("https://127.0.0.1:PORT", False),
        ("https://evil.example", False),
        ("null", False),
        ("file://", False),
        (ALLOWED + ".evil", False),
    ],
)
def test_origins(server: Reached, origin: str | None, allowed: bool) -> None:
    headers = {"Origin": origin.replace("PORT", str(server.port))} if origin else {}
    for method, path, body in (("GET", "/v1/models", None), ("POST", CHAT, question("x"))):
        status, replied, said = server.request(method, path, body, headers)
        assert status == (200 if allowed else 403), said
        assert replied.get("access-control-allow-origin") == (ALLOWED if origin == ALLOWED else None)
        assert "access-control-allow-credentials" not in replied


@pytest.mark.parametrize(("site", "allowed"), [("same-origin", True), ("none", True), ("cross-site", False)])
def test_what_a_browser_says_of_the_site(server: Reached, site: str, allowed: bool) -> None:
    status, _, _ = server.request("POST", CHAT, question("x"), {"Sec-Fetch-Site": site})
    assert status == (200 if allowed else 403)


@pytest.mark.parametrize(("origin", "status"), [(ALLOWED, 204), ("https://evil.example", 403)])
def test_preflight(server: Reached, origin: str, status: int) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
        "Authorization": "",
    }
    found, headers, _ = server.request("OPTIONS", CHAT, headers=asked)
    assert found == status
    allowed = headers.get("access-control-allow-headers", "")
    assert all(name in allowed for name in ("authorization", "content-type", "x-stainless-lang")) == (status == 204)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "", "X-Api-Key": "wrong"},
        {"Authorization": "", "Cookie": f"token={TOKEN}"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/", "/v1/models", "/api/tags", "/metrics", "/v1/status", "/nowhere", f"/?token={TOKEN}x"]
)
def test_no_token_no_answer(server: Reached, headers: dict[str, str], path: str) -> None:
    status, replied, body = server.request("GET", path, headers=headers)
    assert (status, replied["www-authenticate"]) == (401, "Bearer")
    assert TOKEN.encode() not in body
    assert status == server.request("POST", CHAT, question("x"), headers)[0]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer {TOKEN}"},
        {"Authorization": "", "X-Api-Key": TOKEN},
        {"Authorization": "Bearer wrong", "X-Api-Key": TOKEN},
    ],
)
def test_the_right_token(server: Reached, headers: dict[str, str]) -> None:
    assert server.request("GET", "/v1/models", headers=headers)[0] == 200


HTML = {"Authorization": "", "Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(("path", "said"), [("/", "has none"), ("/?token=wrong", "is another one")])
def test_people_without_the_right_token_get_a_page(server: Reached, path: str, said: str) -> None:
    status, headers, body = server.request("GET", path, headers=HTML)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert headers["content-type"].startswith("text/html")
    assert said in body.decode()
    assert "/?token=TOKEN" in body.decode()
    assert b"wrong" not in body
    for other, sent in (("/v1/models", HTML), (path, {**HTML, "Accept": "*/*"})):  # programs
        assert "application/json" in server.request("GET", other, headers=sent)[1]["content-type"]


def test_a_wrong_token_in_the_address_is_another_one(server: Reached) -> None:
    assert b"got another one" in server.request("GET", "/?token=wrong", headers={"Authorization": ""})[2]
    assert b"got none" in server.request("GET", "/", headers={"Authorization": ""})[2]


def test_where_shutdown_is_said(server: Reached) -> None:
    assert b"--sidecar" in server.request("POST", "/v1/shutdown", {})[2]


def test_health_needs_no_token(server: Reached) -> None:
    assert server.request("GET", "/health", headers={"Authorization": ""})[0] == 200


def test_a_page_trades_the_token_for_a_cookie(server: Reached) -> None:
    status, headers, _ = server.request("GET", f"/?token={TOKEN}", headers={"Authorization": ""})
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    with_cookie = {"Authorization": "", "Cookie": cookie.partition(";")[0]}
    assert server.request("GET", "/v1/models", headers=with_cookie)[0] == 200
    crossing = {**with_cookie, "Origin": "http://127.0.0.1:1"}
    assert server.request("POST", CHAT, question("x"), crossing)[0] == 403


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nowhere", "/metrics"])
def test_headers_of_every_reply(server: Reached, path: str) -> None:
    _, headers, _ = server.request("GET", path)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert not {"server", "x-powered-by", "date"} & headers.keys()


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"])
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/api/chat", "/api/generate", "/api/show", "/v1/pictures"])
def test_no_form_can_ask(server: Reached, kind: str, path: str) -> None:
    status, _, _ = server.request("POST", path, json.dumps(question("x")).encode(), {"Content-Type": kind})
    assert status == 415


def test_compressed_bodies_are_refused(server: Reached) -> None:
    assert server.request("POST", CHAT, question("x"), {"Content-Encoding": "gzip"})[0] == 415


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("DELETE", "/v1/models"), ("PUT", "/api/chat")])
def test_wrong_methods_are_errors_in_the_one_form(server: Reached, method: str, path: str) -> None:
    status, headers, body = server.request(method, path)
    assert status == 405
    assert headers["content-type"] == "application/json"
    assert "error" in json.loads(body)


@pytest.mark.parametrize(
    "path", ["//v1//models", "/v1/models/", "/v1/models/../models", "/%2e%2e/etc/passwd", "/v1/models/%00"]
)
def test_strange_paths(server: Reached, path: str) -> None:
    status, headers, body = server.request("GET", path)
    assert status in (200, 404)
    assert headers["content-type"] == "application/json"
    json.loads(body)


SMALL = Limits(body=2000, picture=1000, read_seconds=0.3, connections=4, kept_pictures=2)


@pytest.fixture(scope="module")
def small() -> Iterator[Reached]:
    with running(Played(), SMALL) as reached:
        yield reached


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_large_bodies(small: Reached, declared: bool) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {TOKEN}\r\n"
    if declared:
        sent = f"{head}Content-Length: 1000000000000\r\n\r\n".encode()
    else:
        sent = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"800\r\n" + b" " * 0x800 + b"\r\n"
    began = time.monotonic()
    said = small.raw(sent)
    assert status_of(said) == 413
    assert b"body_too_large" in said
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("headers", [{"Authorization": ""}, {"Host": "evil"}], ids=["no token", "foreign host"])
def test_who_sends_much_in_vain_hears_why(server: Reached, headers: dict[str, str]) -> None:
    status, _, body = server.request("POST", CHAT, b" " * 30_000_000, {"Content-Type": "application/json", **headers})
    assert status in (401, 403)
    json.loads(body)


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "a word", "a header"])
def test_slow_headers(small: Reached, sent: bytes) -> None:
    began = time.monotonic()
    small.raw(sent)
    assert 0.2 < time.monotonic() - began < 5


def test_slow_headers_of_a_second_request(small: Reached) -> None:
    first = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{small.port}\r\n\r\nGET /hea"
    assert small.raw(first.encode()).count(b"HTTP/1.1") == 1


def test_headers_that_trickle(small: Reached) -> None:
    with closing(socket.create_connection(("127.0.0.1", small.port), timeout=5)) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011, PT012
            while time.monotonic() - began < 5:
                connection.sendall(b"G")
                time.sleep(0.02)
    assert time.monotonic() - began < 5


def test_too_many_connections(small: Reached) -> None:
    wait_until(lambda: not small.server.server_state.connections)
    held = [socket.create_connection(("127.0.0.1", small.port)) for _ in range(4)]
    wait_until(lambda: len(small.server.server_state.connections) == 4)
    said = small.raw(b"GET /health HTTP/1.1\r\n")
    assert status_of(said) == 429
    assert b"retry-after" in said.lower()
    for one in held:
        one.close()
    wait_until(lambda: small.request("GET", "/health")[0] == 200)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /\r\n\r\n",
        b"\r\n" * 5 + b"x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA" + b"a" * 70_000,
    ],
    ids=["TLS", "no version", "no request", "long header"],
)
def test_what_is_no_request(small: Reached, garbage: bytes) -> None:
    said = small.raw(garbage)
    assert status_of(said) == (431 if len(garbage) > 1000 else 400)
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"
    assert small.request("GET", "/health")[0] == 200


def test_large_pictures(small: Reached) -> None:
    status, _, body = small.request("POST", "/v1/pictures", bytes(1001), {"Content-Type": "image/png"})
    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")


def test_the_log_has_no_secrets_and_one_line_a_request(server: Reached) -> None:
    before = len(server.logged)
    server.ask("private words")
    server.request("GET", f"/?token={TOKEN}")
    server.request("GET", "/v1/models%0aforged%20200")
    wait_until(lambda: len(server.logged) == before + 3)
    lines = server.logged[before:]
    assert all("\n" not in line and "private" not in line and TOKEN not in line for line in lines)
    assert [line.split()[:3] for line in lines[:2]] == [["POST", CHAT, "200"], ["GET", "/", "303"]]


def test_no_shutdown_from_outside_unless_it_is_a_sidecar(server: Reached) -> None:
    assert server.json("POST", "/v1/shutdown", {})[0] == 404
    with running(Played(), shutdown_endpoint=True) as sidecar:
        assert sidecar.request("POST", "/v1/shutdown", {}, {"Authorization": ""})[0] == 401
        assert sidecar.json("POST", "/v1/shutdown", {})[0] == 200
        wait_until(lambda: sidecar.server.should_exit)


def test_a_fault_in_an_endpoint_is_an_error_like_all_others(capfd: pytest.CaptureFixture[str]) -> None:
    with running(Played()) as server:
        server.server.application.service.models.entries = ()  # type: ignore[union-attr]
        status, body = server.json("POST", CHAT, question("private"))
        assert (status, body["error"]["type"], body["error"]["code"]) == (500, "server_error", "server_error")
    assert "IndexError in" in capfd.readouterr().err


def test_no_token_where_none_is_wanted() -> None:
    with running(Played(), token="") as server:
        assert server.request("GET", "/v1/models")[0] == 200
        assert server.request("GET", "/v1/models", headers={"Host": "evil.example"})[0] == 403


def test_no_host_is_none_of_ours() -> None:
    assert not is_loopback("")
    with pytest.raises(OptionError, match="an address of this machine"):
        Settings(host="", token="x")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org"])
def test_other_machines_need_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(OptionError):
        Settings(host=host)
    Settings(host=host, token="x")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback(host: str) -> None:
    Settings(host=host)


def test_no_origin_for_all() -> None:
    with pytest.raises(OptionError):
        Settings(allowed_origins=("*",))
    with pytest.raises(OptionError):
        Settings(limits=dataclasses.replace(Limits(), waiting=-1))


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900), ("1.5h", 5400), ("30s", 30), ("45", 45), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "5 weeks", "1e9", "nan"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(OptionError):
        parse_duration(text)
