"""What a server is started with: where it listens, who may ask, and how much."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal

from ..runtime.errors import OptionError

Detail = Literal["high", "low", "auto"]
DETAILS: tuple[Detail, ...] = ("high", "low", "auto")
MIB = 2**20
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+")
_HOST = re.compile(r"(?:[^/?#\s:\[\]]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"(?!-)(?=.*[A-Za-z_])[\w-]+(?:\.[\w-]+)*\.?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")


@dataclass(frozen=True)
class Limits:
    """How much one client may ask of the server. Sizes in bytes, times in seconds."""

    body: int = 64 * MIB
    picture: int = 20 * MIB
    pictures: int = 16
    messages: int = 256
    text: int = 1 * MIB
    """Characters of all messages together."""
    schema: int = 256 * 1024
    depth: int = 64
    """Levels of nested lists and objects in JSON."""
    stops: int = 16
    stop_length: int = 256
    waiting: int = 8
    """Requests that wait while one computes."""
    request_seconds: float = 3600.0
    read_seconds: float = 30.0
    """For the headers; a body has this long and one second more for every 64 KiB."""
    connections: int = 128
    kept_pictures: int = 64
    kept_bytes: int = 256 * 10**6
    kept_seconds: float = 3600.0


@dataclass(frozen=True)
class Settings:
    """How a server is reached and guarded. ``token`` empty means none is asked for; loopback alone may have that.

    ``allowed_hosts`` and ``allowed_origins`` come on top of the server's own. ``detail`` overrides what clients ask
    for; ``picture_tokens`` are for requests that say nothing. ``idle_unload`` are seconds after which a model that
    nobody asks is unloaded; None means never.
    ``alive_seconds`` is how long a reply may be silent before something is sent that only says so.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    detail: Detail | None = None
    picture_tokens: int | str | None = None
    idle_unload: float | None = None
    alive_seconds: float = 15.0
    shutdown_endpoint: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _check_address(self.host)
        if not self.token and not is_loopback(self.host):
            raise OptionError(
                expected="a token where other machines can reach the server",
                got=f"--no-token with --host {self.host}",
                fix="leave --no-token out, or listen at 127.0.0.1",
            )
        if "*" in self.allowed_origins:
            raise OptionError(
                expected="origins one by one", got="--allow-origin '*'", fix="name the pages that you trust"
            )
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise OptionError(
                    expected="an origin such as https://example.com or app://desk for --allow-origin",
                    got=repr(origin[:200]),
                    fix="write scheme, :// and host, with its port if it has one",
                )
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise OptionError(
                    expected="a host such as desk.local or desk.local:8080 for --allow-host",
                    got=repr(host[:200]),
                    fix="write the name alone, with its port if it has one",
                )
        if self.limits.waiting < 0:
            raise OptionError(
                expected="a queue of 0 or more", got=str(self.limits.waiting), fix="choose another --queue"
            )


def _check_address(host: str) -> None:
    """Refuse what is no address and no name, before it is looked up: systems read "127.1" and "*" as they like."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if len(host) > 253 or not _NAME.fullmatch(host):
            raise OptionError(
                expected="an address of this machine such as 127.0.0.1 or ::1, or its name, for --host",
                got=repr(host[:200]),
                fix="write it alone; the port goes to --port, and 0.0.0.0 is every address",
            ) from None


def parse_duration(text: str) -> float:
    """Seconds of "15m", "1.5h", "30s" or a plain number of seconds. Raises OptionError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise OptionError(expected="a time such as 15m", got=repr(text[:200]), fix="give a number and s, m, h or d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``. A name other than localhost may be anything, so it is not."""
    if host in ("localhost", ""):
        return host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
