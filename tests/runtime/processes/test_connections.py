"""Keep-alive on connections to workers: as Linux has it, as macOS and Windows, played, have it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from llava_edge.runtime.processes import connections

IDLE, PAUSE, PROBES = 3, 1, 4


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """The client's end of one."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        yield client


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What is set on sockets, without setting it."""
    noted: list[tuple[int, int, int]] = []

    class Noting(socket.socket):
        def setsockopt(self, *setting: int) -> None:  # type: ignore[override]
            noted.append(setting)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Noting)
    return noted


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux's settings")
def test_the_worker_is_asked_whether_it_is_there(connection: socket.socket) -> None:
    other = connection.getsockname()[1] ^ 1
    connections.watch_connections([other])
    assert not connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    connections.watch_connections([other, connection.getpeername()[1]])
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    found = [connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    assert found == [IDLE, PAUSE, PROBES, 1000 * (IDLE + PAUSE * PROBES)]


def test_macos_has_another_name_for_it(
    connection: socket.socket, settings: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TCP_KEEPIDLE", "TCP_USER_TIMEOUT"):
        monkeypatch.delattr(socket, name, raising=False)
    for name, number in (("TCP_KEEPALIVE", 0x10), ("TCP_KEEPINTVL", 0x101), ("TCP_KEEPCNT", 0x102)):
        monkeypatch.setattr(socket, name, number, raising=False)
    connections.watch_connections([connection.getpeername()[1]])
    ends = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    ends += [(socket.IPPROTO_TCP, number, value) for number, value in ((0x10, IDLE), (0x101, PAUSE), (0x102, PROBES))]
    assert settings == ends * (len(settings) // len(ends))
    assert settings


def test_windows_lists_no_open_files(
    connection: socket.socket, settings: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", absent)
    connections.watch_connections([connection.getpeername()[1]])
    assert not settings
