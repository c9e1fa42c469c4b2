"""The socket that a server listens on: an address of this machine, or a file that only its user may open."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from ..runtime.errors import OptionError

BACKLOG = 128


def listen_at(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 takes a free one. Raises OptionError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise OptionError(
                expected="an address or name of this machine for --host",
                got=f"{host[:200]}, which is none",
                fix="choose another, such as 127.0.0.1",
            ) from None
        raise OptionError(
            expected=f"a free port at {host[:200]}",
            got=f"{port}: {os.strerror(error.errno or 0)}",
            fix="choose another --port or --host",
        ) from None
    except (OverflowError, UnicodeError):
        raise OptionError(
            expected="an address and a port of this machine",
            got=f"{host[:200]!r} and {port}",
            fix="choose another --port or --host",
        ) from None


def listen_in(path: Path) -> socket.socket:
    """Listen on a Unix socket that its user alone may open. Raises OptionError."""
    if not hasattr(socket, "AF_UNIX"):
        raise OptionError(expected="a system with Unix sockets", got="--socket", fix="use --port 0")
    _make_room(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except (OSError, ValueError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OptionError(expected=f"a socket at {path}", got=reason, fix="choose another path") from None
    finally:
        os.umask(before)
    return listener


def forget(path: Path | None) -> None:
    """Take the socket's file away."""
    if path is not None:
        with suppress(OSError):
            path.unlink()


def _make_room(path: Path) -> None:
    """Take away what a killed server left; refuse where somebody still listens, or where something else is."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise OptionError(expected=f"no file at {path}", got="one that is no socket", fix="choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            forget(path)
            return
    raise OptionError(expected=f"a free socket at {path}", got="a server that listens there", fix="choose another path")
