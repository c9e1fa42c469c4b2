"""Who may ask: the Host that was meant, the Origin that a browser says, and the token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import Scope

from ..errors import RequestError, shown
from ..settings import Settings

OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
ALLOWED_HEADERS = (
    "authorization, content-type, x-api-key, openai-beta, openai-organization, openai-project, x-stainless-arch, "
    "x-stainless-async, x-stainless-custom-poll-interval, x-stainless-helper-method, x-stainless-lang, x-stainless-os, "
    "x-stainless-package-version, x-stainless-poll-helper, x-stainless-read-timeout, x-stainless-retry-count, "
    "x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout, user-agent, x-requested-with"
)
"""What browsers ask for on behalf of OpenAI's clients; without these their preflight fails."""


_SCHEME = b"http://"


class Access:
    """The rules of one server. ``port`` 0 stands for a Unix socket, whose clients have no port to name."""

    def __init__(self, settings: Settings, *, opens_to_others: bool = True) -> None:
        """``opens_to_others``: whether there are --allow-host and --allow-origin, for errors to name them."""
        self._settings = settings
        self._opens = opens_to_others
        names = {*OWN_NAMES, f"[{settings.host}]" if ":" in settings.host else settings.host}
        self._hosts = {f"{name}:{settings.port}".lower() for name in names}
        if settings.port in (0, 80):
            self._hosts |= {name.lower() for name in names}
        self._extra_hosts = {host.lower() for host in settings.allowed_hosts}
        self._session = secrets.token_urlsafe(32)
        self.cookie = f"llava_edge_{settings.port}"

    def check_host(self, headers: Headers) -> None:
        """Refuse a Host that is not ours: a page whose name was pointed at this address sends its own."""
        hosts = [host.lower() for host in headers.getlist("host")]
        if len(hosts) != 1 or not (hosts[0] in self._hosts or self._is_extra(hosts[0])):
            raise RequestError(
                expected="this server's own name and port in Host",
                got=shown(", ".join(hosts)) if hosts else "none",
                fix="use the address it printed" + (", or start it with --allow-host" if self._opens else ""),
                status=403,
                code="host_not_allowed",
            )

    def allows_origin(self, headers: Headers) -> bool:
        """Whether a page of another origin was allowed by --allow-origin."""
        return headers.get("origin") in self._settings.allowed_origins

    def check_origin(self, method: str, headers: Headers) -> None:
        """Refuse pages of other origins, and changes that they ask for without saying who they are."""
        if self.allows_origin(headers):
            return
        origins = headers.getlist("origin")
        own = f"http://{headers.get('host', '').lower()}"
        crossing = headers.get("sec-fetch-site") == "cross-site" and method not in SAFE_METHODS
        if crossing or any(origin.lower() != own for origin in origins):
            raise RequestError(
                expected="a request from this server's own page or from no page",
                got=f"one from {shown(origins[0])}" if origins else "one from another site",
                fix="start the server with --allow-origin, if you trust that page"
                if self._opens
                else "open the address that it printed",
                status=403,
                code="origin_not_allowed",
            )

    def check_token(self, headers: Headers, address: str | None = None) -> None:
        """Refuse who has no token: as a bearer, as ``x-api-key``, or in the page's cookie.

        ``address`` is a token in the page's address, which was not the right one.
        """
        token = self._settings.token
        if not token:
            return
        given = [value[7:] for value in headers.getlist("authorization") if value[:7].lower() == "bearer "]
        given += headers.getlist("x-api-key")
        if any(_equal(one.strip(), token) for one in given) or _equal(self._cookie_of(headers), self._session):
            return
        raise RequestError(
            expected="this server's token as Authorization: Bearer",
            got="another one" if given or address else "none",
            fix="give the client the token as its API key; in a browser open this server's address with /?token=TOKEN",
            status=401,
            code="invalid_api_key",
        )

    def session_for(self, token: str) -> str | None:
        """The cookie that a page gets for the token in its address: not the token, since cookies know no ports."""
        if not self._settings.token or not _equal(token, self._settings.token):
            return None
        return f"{self.cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def preflight(self, headers: Headers) -> dict[str, str]:
        """The headers that answer a browser's question before a request of an allowed page."""
        return {
            **self.cors(headers),
            "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": "600",
        }

    def cors(self, headers: Headers) -> dict[str, str]:
        """The headers that let an allowed page read a reply."""
        if not self.allows_origin(headers):
            return {}
        return {
            "Access-Control-Allow-Origin": headers["origin"],
            "Access-Control-Expose-Headers": "Retry-After, X-Queue-Length",
            "Vary": "Origin",
        }

    def _is_extra(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        without_port = name if colon and port.isdecimal() else host
        return host in self._extra_hosts or without_port in self._extra_hosts

    def _cookie_of(self, headers: Headers) -> str:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return ""
        return cookies[self.cookie].value if self.cookie in cookies else ""


def name_target(scope: Scope) -> None:
    """Take a target that is a whole address apart: its host stands for the one in Host, as HTTP/1.1 wants it."""
    address = scope["raw_path"]
    if not address.lower().startswith(_SCHEME):
        return
    host, slash, path = address[len(_SCHEME) :].partition(b"/")
    scope["raw_path"] = slash + path or b"/"
    scope["path"] = unquote(scope["raw_path"].decode("ascii"))
    scope["headers"] = [(b"host", host), *((name, value) for name, value in scope["headers"] if name != b"host")]


def _equal(given: str, right: str) -> bool:
    """Whether two secrets are equal, in a time that tells neither where they differ nor how long one is."""
    digests = [hashlib.sha256(one.encode("utf-8", "replace")).digest() for one in (given, right)]
    return hmac.compare_digest(*digests)
