"""Chat completions from an OpenAI-compatible endpoint, with patience: rate limit, retries, clear errors."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from ...runtime.errors import JudgeError, OptionError, shown, without_credentials

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_PAUSE = 60.0
LARGEST = 16 * 2**20
"""Bytes that an answer may have."""
_PASSING = {408, 409, 425, 429}
"""Statuses below 500 that are worth another try."""


@dataclass(frozen=True)
class Reply:
    """The text of a completion, and the tokens the endpoint counted (0 where it says nothing)."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is reached. ``url`` ends where ``/chat/completions`` is put behind it.

    The key comes from the environment variable ``key_variable``; without it none is sent.
    ``per_minute`` requests at most (0: no limit), ``retries`` more tries after a failure that
    passes, ``timeout`` in seconds.
    """

    url: str
    model: str
    key_variable: str = KEY_VARIABLE
    per_minute: float = 0.0
    retries: int = 5
    timeout: float = 120.0
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError:  # an address in brackets that is none, a port that is no number
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(
                expected="the judge's URL as https://host/v1",
                got=repr(without_credentials(self.url)),
                fix="give the endpoint's base URL",
            )
        if parts.username is not None or parts.password is not None:
            raise OptionError(
                expected="the judge's URL without a user and a password",
                got=without_credentials(self.url),
                fix=f"give a key in {self.key_variable}",
            )
        if not (self.per_minute >= 0 and self.retries >= 0 and self.timeout > 0 and self.max_tokens > 0 and self.model):
            raise OptionError(
                expected="a model's name, retries and requests a minute of at least 0, a timeout above 0",
                got=without_credentials(str(self)),
                fix="correct the option",
            )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key and the pictures to a place nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """One model behind an endpoint. ``clock`` and ``sleep`` are in seconds."""

    def __init__(
        self,
        options: EndpointOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options = options
        self._clock = clock
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._earliest = float("-inf")
        self._settings: dict[str, Any] = {"temperature": 0, "max_tokens": options.max_tokens}

    @property
    def model(self) -> str:
        """The name of the model asked."""
        return self._options.model

    def complete(self, messages: list[dict[str, Any]]) -> Reply:
        """Ask once, patiently. Raises :class:`JudgeError` when the tries are used up or there is no use in trying."""
        failures = 0
        while True:
            self._wait_for_turn()
            try:
                return _reply(self._post(messages))
            except urllib.error.HTTPError as error:
                with error:
                    problem = self._explain(error)
                if self._adapt(error.code, problem):
                    continue
                if error.code not in _PASSING and error.code < 500:
                    raise self._error(problem) from error
                pause = _asked_pause(error)
            except JudgeError:
                raise
            except (OSError, HTTPException, ValueError) as error:  # no connection, timeout, an answer cut off
                problem = self._hide(str(error) or type(error).__name__)
                pause = None
            failures += 1
            if failures > self._options.retries:
                raise self._error(f"{problem} (tried {failures} times)")
            self._sleep(min(2.0 ** (failures - 1) if pause is None else pause, MAX_PAUSE))

    def _post(self, messages: list[dict[str, Any]]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        body = {"model": self._options.model, "messages": messages, **self._settings}
        request = urllib.request.Request(
            self._options.url.rstrip("/") + "/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        with self._opener.open(request, timeout=self._options.timeout) as response:
            said = response.read(LARGEST + 1)
        if len(said) > LARGEST:
            raise self._error(f"more than {LARGEST // 2**20} MiB")
        if said.strip() and not said.lstrip().startswith(b"{"):  # cut off it would begin as JSON does: no use in trying
            raise self._error(f"no JSON: {shown(self._hide(said[:100].decode('utf-8', 'replace')))}")
        return json.loads(said)

    def _wait_for_turn(self) -> None:
        if not self._options.per_minute:
            return
        if (wait := self._earliest - self._clock()) > 0:
            self._sleep(wait)
        self._earliest = self._clock() + 60 / self._options.per_minute

    def _adapt(self, status: int, problem: str) -> bool:
        """Meet a model that wants the other name for its limit, or no temperature; whether that changed anything."""
        if status != 400:
            return False
        if "max_completion_tokens" in problem and "max_tokens" in self._settings:
            self._settings["max_completion_tokens"] = self._settings.pop("max_tokens")
            return True
        return "temperature" in problem and self._settings.pop("temperature", None) is not None

    def _explain(self, error: urllib.error.HTTPError) -> str:
        try:
            said = error.read(10_000).decode("utf-8", "replace")
        except (OSError, HTTPException):
            said = ""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = str(json.loads(said)["error"]["message"])
        return self._hide(f"HTTP {error.code} {' '.join(said.split())[:300]}".strip())

    def _hide(self, text: str) -> str:
        """Keep the key out of messages: some servers quote it back."""
        key = self._key()
        return text.replace(key, "***") if key else text

    def _key(self) -> str:
        key = os.environ.get(self._options.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise OptionError(
                expected=f"a key of printable ASCII characters in {self._options.key_variable}",
                got="other characters",
                fix="set the variable again",
            )
        return key

    def _error(self, problem: str) -> JudgeError:
        host = urlsplit(self._options.url).hostname
        return JudgeError(
            expected=f"{self._options.model} at {host} to answer",
            got=problem,
            fix=f"check the URL, the model's name and the key in {self._options.key_variable}; a rerun continues",
        )


def _reply(answer: Any) -> Reply:
    """Read a completion; an answer of another shape is an error that passes, as proxies produce them."""
    try:
        text = answer["choices"][0]["message"]["content"]
        usage = answer.get("usage") or {}
        if not isinstance(text, str | None):
            raise TypeError("content that is no text")
        return Reply(text or "", int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"an answer without a message: {str(answer)[:100]}") from error


def _asked_pause(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks us to wait (the other form of Retry-After, a date, is rare and ignored)."""
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return None
