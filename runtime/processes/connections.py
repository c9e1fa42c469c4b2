"""Addresses of workers: written as HOST:PORT, asked whether they are there, watched while they serve.

The greeting is llama.cpp's RPC protocol (``ggml/src/ggml-rpc``): one command byte, the length of
the request, the request; then the length of the response and the response.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Sequence

from ..errors import WorkerError
from ..option_checks import parse_endpoint

GREETING_SECONDS = 5.0
"""A worker serves one client at a time; one that just lost its client takes a moment to free its memory."""
WorkerMemory = tuple[str, int]
"""A device of a worker: the worker's HOST:PORT, the device's free bytes."""
START = "start it there with 'llava-edge worker'"
_HELLO, _CAPABILITIES, _VERSION = 14, 24, 4  # RPC_CMD_HELLO, which never changes; bytes of its parts
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 3, 1, 4
"""A silent connection is asked after 3 s and given up 4 s later: under the 10 s that an error may take."""


def is_loopback(endpoint: str) -> bool:
    """Whether an endpoint is an address of this machine itself."""
    host, _ = parse_endpoint(endpoint)
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def check_workers(endpoints: Sequence[str]) -> None:
    """Greet every worker, so that a missing or busy one is an error and not a hang. Raises :class:`WorkerError`."""
    for endpoint in endpoints:
        try:
            with socket.create_connection(parse_endpoint(endpoint), timeout=GREETING_SECONDS) as connection:
                _greet(connection)
        except TimeoutError:
            raise WorkerError(
                expected=f"an answer from worker {endpoint} within {GREETING_SECONDS:g} s",
                got="silence",
                fix="a worker serves one model at a time: close the other one, or start one more worker",
            ) from None
        except OSError as error:
            raise WorkerError(
                expected=f"a worker at {endpoint}", got=error.strerror or str(error) or type(error).__name__, fix=START
            ) from None


def _greet(connection: socket.socket) -> None:
    connection.sendall(struct.pack(f"<BQ{_CAPABILITIES}x", _HELLO, _CAPABILITIES))
    left = 8 + _VERSION + _CAPABILITIES
    while left:  # a socket with a timeout gives what there is
        if not (received := connection.recv(left)):
            raise OSError("it hung up: not a llama.cpp worker, or one of another version")
        left -= len(received)


def gone_workers(endpoints: Sequence[str], *, timeout: float = 1.0) -> list[str]:
    """Those that no longer take connections."""
    return [one for one in endpoints if not _connects(one, timeout)]


def _connects(endpoint: str, timeout: float) -> bool:
    try:
        socket.create_connection(parse_endpoint(endpoint), timeout=timeout).close()
    except OSError:
        return False
    return True


def watch_connections(ports: Sequence[int]) -> None:
    """Let the kernel notice a vanished machine on this process's connections from or to ``ports``.

    llama.cpp opens these sockets without keep-alive: when the other machine loses power, a receive
    would wait for ever. Sockets are found among the open files, because llama.cpp does not give
    them out; systems without ``/dev/fd`` go without.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):  # the listing's own descriptor has gone by now
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    _watch(int(name), ports)


def _watch(descriptor: int, ports: Sequence[int]) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family != socket.AF_INET or connection.type != socket.SOCK_STREAM:
            return
        if not {connection.getpeername()[1], connection.getsockname()[1]} & set(ports):
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"  # macOS calls it so
        settings = {idle: _IDLE_SECONDS, "TCP_KEEPINTVL": _PROBE_SECONDS, "TCP_KEEPCNT": _PROBES}
        settings["TCP_USER_TIMEOUT"] = 1000 * (_IDLE_SECONDS + _PROBE_SECONDS * _PROBES)  # for data under way
        for option, value in settings.items():
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
