"""Where bundles are pulled from: the hub, any server that has one as plain files, a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NoReturn, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from ..runtime.bundle.bundle import MANIFEST, Bundle
from ..runtime.errors import BundleError, OptionError, first_line, shown
from . import http
from .card import CARD, licence_of
from .http import Body, NotThere
from .hub import HUB_ID

_REVISION = re.compile(r"(?!.*\.\.)[\w][\w./-]{0,199}")
_HUB = "https://huggingface.co"
_PIECE = 2**20
_WHAT = "a hub id like owner/name or owner/name@revision, https://…/manifest.json, or a bundle's folder"


class Origin(Protocol):
    """Where a bundle's files are: ``label`` is what ``pull`` was told, ``name`` what the model would be called.

    ``place`` is the label without a revision: of the same place a model is a newer one, of another place another one.
    """

    label: str
    place: str
    name: str
    revision: str
    """The very revision that the files are of, where there is such a thing; known once the manifest was asked for."""

    def open(self, name: str, start: int = 0) -> Body:
        """A file from byte ``start`` on, or from 0. Raises NotThere, NotNow, BundleError."""
        ...

    def explain_absence(self) -> BundleError:
        """What there is instead of a bundle."""
        ...


def origin_of(what: str) -> Origin:
    """What ``pull`` was told to take: a folder that is there, an address, a hub id. Raises OptionError, BundleError."""
    if _is_there(what):
        return Folder(Path(what))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", what):
        return Address(what)
    hub_id, at, revision = what.partition("@")
    if HUB_ID.fullmatch(hub_id) and (not at or _REVISION.fullmatch(revision)):
        return HubRepository(hub_id, revision)
    raise OptionError(expected=_WHAT, got=repr(shown(what)), fix="check the name; a folder must be there")


def _is_there(path: str) -> bool:
    with suppress(OSError, ValueError):  # a name too long, or with a zero in it
        return bool(path) and os.path.lexists(path)
    return False


class Folder:
    """A bundle on this machine's disks."""

    revision = ""

    def __init__(self, folder: Path) -> None:
        """Open it. Raises :class:`BundleError`."""
        self._folder = Bundle.open(os.path.abspath(folder)).path
        self.label = self.place = str(self._folder)
        self.name = self._folder.resolve().name

    def open(self, name: str, start: int = 0) -> Body:
        """See :class:`Origin`."""
        path = self._folder / name
        if not path.is_file():
            raise NotThere(str(path))
        pieces = _read(path, start)
        return Body(start, path.stat().st_size, pieces, {}, pieces.close)

    def explain_absence(self) -> BundleError:
        """See :class:`Origin`."""
        return BundleError(expected=f"a bundle in {self.label}", got="none any more", fix="pull it again")


def _read(path: Path, start: int) -> Generator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        raise BundleError(
            expected=f"a file that can be read at {path}", got=first_line(error), fix="check its permissions"
        ) from error


class Address:
    """A bundle that some server has, as the files that it is made of."""

    revision = ""

    def __init__(self, url: str) -> None:
        """Check the address. Raises OptionError, BundleError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.path.endswith(f"/{MANIFEST}"):
            fix = "give the address of the bundle's manifest.json"
            _refuse_address(url, "give the folder's path without file://" if parts.scheme == "file" else fix)
        if parts.username is not None or parts.query or parts.fragment:
            _refuse_address("one with a user, a query or a fragment", "leave them out: addresses are kept and shown")
        http.check_url(url)
        self.label = self.place = url
        self.name = unquote(parts.path).rsplit("/", 2)[-2]

    def open(self, name: str, start: int = 0) -> Body:
        """See :class:`Origin`."""
        return http.get(urljoin(self.label, quote(name)), start=start)

    def explain_absence(self) -> BundleError:
        """See :class:`Origin`."""
        return BundleError(
            expected=f"a bundle's manifest at {shown(self.label)}", got="status 404", fix="check the address"
        )


def _refuse_address(got: str, fix: str) -> NoReturn:
    raise OptionError(expected="an address like https://…/manifest.json", got=shown(got), fix=fix)


class HubRepository:
    """A repository of the hub whose top folder is a bundle."""

    def __init__(self, hub_id: str, revision: str = "") -> None:
        """HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are honoured. Raises :class:`BundleError`."""
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise BundleError(expected=f"the hub to serve {hub_id}", got="HF_HUB_OFFLINE", fix="unset it")
        self.place = hub_id
        self.label = f"{hub_id}@{revision}" if revision else hub_id
        self.name = hub_id.rpartition("/")[2]
        self.revision = ""
        self._asked = revision or "main"
        self._endpoint = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")

    def open(self, name: str, start: int = 0) -> Body:
        """See :class:`Origin`. The first answer settles the revision, so that all files are of one."""
        revision = quote(self.revision or self._asked, safe="")
        body = http.get(
            f"{self._endpoint}/{self.place}/resolve/{revision}/{quote(name)}", start=start, token=_token(), plain=True
        )
        commit = body.headers.get("X-Repo-Commit", "")
        if not self.revision and re.fullmatch(r"[0-9a-f]{40}", commit):
            self.revision = commit
        return body

    def explain_absence(self) -> BundleError:
        """See :class:`Origin`."""
        expected = f"a bundle in {self.label} on the hub"
        with suppress(Exception):  # it is the explanation of an error
            self.open("config.json").close()
            fix = f"run: llava-edge export {self.place} -o BUNDLE"
            return BundleError(expected=expected, got="a checkpoint, not exported yet", fix=fix)
        return BundleError(expected=expected, got="no manifest.json, or no such repository", fix="check the name")


def hub_licence(hub_id: str) -> str:
    """The licence that a repository of the hub names; "" where there is none, or the hub does not say."""
    with suppress(Exception), HubRepository(hub_id).open(CARD) as body:
        return licence_of(b"".join(islice(body.pieces, 16)).decode("utf-8", errors="replace"))
    return ""


def _token() -> str:
    """What the hub's own tools would send: HF_TOKEN, or what their login has kept."""
    if text := os.environ.get("HF_TOKEN", "").strip():
        return text
    with suppress(OSError, ValueError, RuntimeError):
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return Path(os.environ.get("HF_TOKEN_PATH") or home / "token").read_text(encoding="ascii").strip()
    return ""
