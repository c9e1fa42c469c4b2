"""Pictures in a request: data URIs, uploads by their hash, base64; never an address that would have to be fetched."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from ..errors import RequestError, shown
from ..settings import Limits

FindPicture = Callable[[str], bytes | None]
"""The bytes of an upload by its id, or None."""
UPLOAD = "picture:"
_SPACE = re.compile(r"\s+")


def read_picture(url: str, param: str, limits: Limits, find: FindPicture) -> bytes:
    """The bytes behind ``url``. Raises RequestError."""
    if url[:5].lower() == "data:":
        return _data_uri(url, param, limits)
    if url.startswith((UPLOAD, "sha256-")):
        return find_upload(url.removeprefix(UPLOAD), param, find)
    raise RequestError(
        expected="a picture as a data URI, or picture:sha256-… of an upload",
        got=shown(url),
        fix="send the file itself: data:image/jpeg;base64,…, or POST it to /v1/pictures; nothing is fetched",
        code="unsupported_image_url",
        param=param,
    )


def find_upload(name: str, param: str | None, find: FindPicture) -> bytes:
    """The bytes of an upload by its id. Raises RequestError (404), after which a client uploads it again."""
    if (data := find(name)) is None:
        raise RequestError(
            expected="the id of a picture that was uploaded within the last hour (sha256- and 64 hex digits)",
            got=shown(name),
            fix="POST the picture to /v1/pictures again",
            status=404,
            code="picture_not_found",
            param=param,
        )
    return data


def _data_uri(url: str, param: str, limits: Limits) -> bytes:
    head, comma, payload = url.partition(",")
    if not comma:
        raise _no_picture("a data URI with a comma before its data", shown(url), param)
    if head.lower().endswith(";base64"):
        return read_base64(payload, param, limits)
    if len(payload) > 3 * limits.picture:
        raise too_large(param, limits)
    return _sized(unquote_to_bytes(payload), param, limits)


def read_base64(text: str, param: str, limits: Limits) -> bytes:
    """The bytes that ``text`` spells; line breaks and missing padding are forgiven, also the alphabet of URLs."""
    if len(text) > 2 * limits.picture:
        raise too_large(param, limits)
    plain = _SPACE.sub("", unquote_to_bytes(text).decode("latin-1") if "%" in text else text)
    plain = plain.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _no_picture("a picture in base64", f"{shown(text[:40])} ({error})", param) from None
    return _sized(data, param, limits)


def _sized(data: bytes, param: str, limits: Limits) -> bytes:
    if len(data) > limits.picture:
        raise too_large(param, limits)
    if not data:
        raise _no_picture("a picture", "no bytes", param)
    return data


def too_large(param: str, limits: Limits) -> RequestError:
    """The error of a picture file above the limit."""
    return RequestError(
        expected=f"a picture file of at most {limits.picture / 2**20:g} MiB",
        got="a larger one",
        fix="scale it down or compress it more",
        code="invalid_image",
        param=param,
    )


def _no_picture(expected: str, got: str, param: str) -> RequestError:
    return RequestError(expected=expected, got=got, fix="send the file's bytes", code="invalid_image", param=param)
