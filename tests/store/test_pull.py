"""Models by name: what is pulled is what was published, from whatever server, and a kill halves nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from llava_edge.cli.terminal.plan_sources import shape_of
from llava_edge.runtime.bundle import bundle as opening
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.bundle.named import find_bundle, is_name, model_names, models_folder, names_of
from llava_edge.runtime.errors import BundleError, CheckpointError, LlavaEdgeError, OptionError, StorageError
from llava_edge.runtime.system import filesystems
from llava_edge.store import blobs, http
from llava_edge.store import pull as pulling
from llava_edge.store.catalogue import catalogue
from llava_edge.store.pull import pull, remove
from support.hub_server import COMMIT, Fault, hub_server
from support.made_bundles import contents, make_bundle

ROOT = Path(__file__).parents[2]
Serve = Callable[..., list[str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, no waiting between tries, and every file as large as those that opening does not hash."""
    monkeypatch.setattr(opening, "HASH_ON_OPEN", -1)
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "store"))
    monkeypatch.setattr(blobs, "WAITS", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(pulling, "WAITS", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(blobs, "_POLL", 0.005)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "published" / "small")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves a folder as ``someone/small`` of the hub that is asked; gives the list of files asked for."""
    with ExitStack() as stack:

        def start(folder: Path, fault: Fault | None = None) -> list[str]:
            endpoint, asked = stack.enter_context(hub_server({"someone/small": folder}, fault))
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            return asked

        yield start


def left(store: Path) -> dict[str, list[str]]:
    """What is in the store's folders, locks left out."""
    return {
        name: sorted(os.listdir(store / name)) if (store / name).is_dir() else []
        for name in ("models", "bundles", "blobs", "partial")
    }


NOTHING = {"models": [], "bundles": [], "blobs": [], "partial": []}


# what is pulled


@pytest.mark.parametrize("way", ["folder", "hub", "hub at a revision", "address"])
def test_what_is_pulled_is_what_was_published(way: str, bundle: Path, store: Path, serve: Serve) -> None:
    (bundle / "README.md").write_text("# A card\n")
    serve(bundle)
    address = f"{os.environ['HF_ENDPOINT']}/someone/small/resolve/main/manifest.json"
    what = {
        "folder": str(bundle),
        "hub": "someone/small",
        "hub at a revision": "someone/small@refs/pr/1",
        "address": address,
    }[way]
    heard: list[tuple[int, int]] = []
    model = pull(what, name="tiny", progress=lambda done, total: heard.append((done, total)))
    assert contents(model.folder) == contents(bundle)
    assert contents(Bundle.open("tiny", hash_all=True).path) == contents(bundle)
    size = sum(len(one) for name, one in contents(bundle).items() if name not in ("manifest.json", "README.md"))
    assert heard[-1] == (size, size)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    (listed,) = [one.to_json() for one in catalogue()]
    assert listed.pop("modified").endswith("Z")
    assert listed == {"name": "tiny", "source": what, "bytes": size, "llm": "q4_k_m", "vision": "int8"}
    assert model.revision == (COMMIT if way.startswith("hub") else "")
    assert left(store)["partial"] == []


@pytest.mark.parametrize(("what", "name"), [("published/small", "small"), ("someone/small", "small")])
def test_names_of_their_own(what: str, name: str, bundle: Path, store: Path, serve: Serve) -> None:
    serve(bundle)
    assert pull(what).name == name
    assert names_of(find_bundle(name)) == (name,)


def test_what_bundles_share_is_there_once(tmp_path: Path, store: Path) -> None:
    pull(str(make_bundle(tmp_path / "published" / "f16")))
    pull(str(make_bundle(tmp_path / "published" / "q4", llm=1)))
    first, second = find_bundle("f16"), find_bundle("q4")
    for name in ("vision.onnx", "newline.npy", "parity.npz"):
        assert (first / name).samefile(second / name)
    assert len(left(store)["blobs"]) == 5
    remove("f16")
    assert Bundle.open("q4", hash_all=True).path == second
    assert len(left(store)["blobs"]) == 4
    assert remove("q4") > 500_000
    assert left(store) == NOTHING


def test_a_second_name_for_the_same_bundle(bundle: Path, store: Path) -> None:
    pull(str(bundle), name="one")
    pull(str(bundle), name="two")
    assert names_of(find_bundle("two")) == ("one", "two")
    assert remove("one") == 0
    assert Bundle.open("two", hash_all=True)


def test_without_second_names_for_files_there_is_a_copy(
    bundle: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: object, target: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(filesystems.os, "link", no_links)
    assert contents(pull(str(bundle)).folder) == contents(bundle)
    assert left(store)["blobs"] == []
    pull(str(bundle))
    assert remove("small") == 0
    assert left(store) == NOTHING


def test_a_newer_bundle_of_the_same_place(bundle: Path, store: Path, serve: Serve, tmp_path: Path) -> None:
    serve(bundle)
    old = pull("someone/small")
    shutil.rmtree(bundle)
    make_bundle(bundle, llm=7)
    new = pull("someone/small@main")
    assert contents(find_bundle("small")) == contents(bundle)
    assert new.folder != old.folder
    assert not old.folder.exists()
    assert len(left(store)["blobs"]) == 4


@pytest.mark.parametrize("name", ["small", "Small", "SMALL"])
def test_a_name_that_is_taken(name: str, bundle: Path, store: Path, tmp_path: Path) -> None:
    pull(str(bundle), name="small")
    other = make_bundle(tmp_path / "other", llm=3)
    with pytest.raises(BundleError, match="llava-edge rm small" if name == "small" else "give --as small"):
        pull(str(other), name=name)
    assert contents(find_bundle("small")) == contents(bundle)
    assert model_names() == ("small",)


# names

BAD_NAMES = [
    " ",
    "com1",
    "Aux.tar.gz",
    "$HOME",
    "*",
    "../x",
    "a/b",
    "a\\b",
    "..",
    ".x",
    "-x",
    "x.",
    "CON",
    "nul.gguf",
    "x" * 97,
    "a b",
    "x\0",
    "ä",
    "a:b",
    "x\n",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_none(name: str, bundle: Path, store: Path) -> None:
    assert not is_name(name)
    with pytest.raises(OptionError, match="--as"):
        pull(str(bundle), name=name)
    with pytest.raises(BundleError):
        remove(name)
    with pytest.raises(BundleError, match="a bundle folder at" if name != ".." else "manifest"):
        Bundle.open(name)
    assert not store.exists()


def test_an_empty_name_is_none_either(bundle: Path, store: Path) -> None:
    with pytest.raises(OptionError, match="--as"):
        pull(str(bundle), name="")
    assert not store.exists()


@pytest.mark.parametrize("name", ["con", "small.", "x y", "äpfel", ".hidden"])
def test_a_folder_whose_name_is_none_needs_another(name: str, bundle: Path, store: Path, tmp_path: Path) -> None:
    folder = bundle.rename(tmp_path / name)
    with pytest.raises(OptionError, match="give one with --as NAME"):
        pull(str(folder))
    assert not store.exists()
    assert pull(str(folder), name="D1").name == "D1"


@pytest.mark.parametrize("what", ["someone/con", "someone/small.", "someone/_", "someone/.x"])
def test_a_hub_id_whose_name_is_none_needs_another(what: str, store: Path) -> None:
    """Said before anything is asked of the hub."""
    with pytest.raises(OptionError, match="--as NAME"):
        pull(what)


def test_names_can_not_lead_out_of_the_store(bundle: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text(json.dumps({"source": "", "revision": "", "manifest": "0" * 64}))
    pull(str(bundle))
    for name in ("../../out", f"{tmp_path}/out"):
        assert find_bundle(name) == Path(name)
        with pytest.raises(BundleError):
            remove(name)
    assert (tmp_path / "out.json").exists()


def test_what_is_there_comes_before_a_name(bundle: Path, store: Path, tmp_path: Path) -> None:
    pull(str(bundle), name="here")
    assert Bundle.open("here").path.parent == store / "bundles"
    (tmp_path / "here").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json in here"):
        Bundle.open("here")


def test_an_unknown_name_is_told_the_known_ones(bundle: Path, store: Path) -> None:
    with pytest.raises(BundleError, match="'llava-edge pull' a model"):
        Bundle.open("tiny")
    pull(str(bundle), name="tiny")
    with pytest.raises(BundleError, match="or a name of 'llava-edge list': tiny"):
        Bundle.open("tinny")


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the two pages that say so."""
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("models.md", "install.md")]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLAVA_EDGE_MODELS", "~/models")
    assert models_folder() == tmp_path / "models"
    monkeypatch.delenv("LLAVA_EDGE_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert models_folder() == tmp_path / "data" / "llava-edge" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert models_folder() == tmp_path / ".local" / "share" / "llava-edge" / "models"
    assert all(f"`~/{models_folder().relative_to(tmp_path)}` (`XDG_DATA_HOME`)" in page for page in pages)
    monkeypatch.setattr("sys.platform", "darwin")
    assert all(f"`~/{models_folder().relative_to(tmp_path)}`" in page for page in pages)


# servers that are broken


def send(request: BaseHTTPRequestHandler, status: int, content: bytes = b"", **headers: str) -> bool:
    request.send_response(status)
    for key, value in headers.items():
        request.send_header(key.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(content)
    return True


class EndsEarly:
    """Every connection ends after so many bytes, though more were promised."""

    def __init__(self, after: int, *, ranges: bool = True) -> None:
        self.after, self.ranges, self.sent = after, ranges, 0

    def __call__(self, request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        if not name.endswith((".onnx", ".gguf")):
            return False
        if not self.ranges:
            start = 0
            self.after += 60_000  # else it would never come to an end
        rest = content[start:]
        self.sent += len(rest[: self.after])
        said = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        return send(request, 206 if start else 200, rest[: self.after], Content_Length=str(len(rest)), **said)


class Once:
    """Does something else the first time that a file is asked for."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.seen = fault, set[str]()

    def __call__(self, request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        first = name not in self.seen
        self.seen.add(name)
        return first and self.fault(request, name, content, start)


def resets(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
    request.connection.close()
    return True


def busy(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
    return send(request, 503, b"later", Retry_After="0")


def unmeasured(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
    return send(request, 200, content)


def lies_about_the_part(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
    """Ends early, and then begins elsewhere than it was asked to, once."""
    if name != "llm.gguf":
        return False
    return send(request, 200, content[:50_000], Content_Length=str(len(content)))


def nonsense(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
    request.wfile.write(b"220 mail.example.com ESMTP\r\n\r\n")
    return True


MENDED = {
    "connections that end early": EndsEarly(70_000),
    "and no ranges": EndsEarly(70_000, ranges=False),
    "resets": Once(resets),
    "busy": Once(busy),
    "no lengths": unmeasured,
    "ends early once": Once(lies_about_the_part),
    "no HTTP": Once(nonsense),
}


@pytest.mark.parametrize("fault", MENDED)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_servers_that_are_put_up_with(fault: str, bundle: Path, store: Path, serve: Serve) -> None:
    serve(bundle, MENDED[fault])
    assert contents(pull("someone/small").folder) == contents(bundle)
    assert left(store)["partial"] == []


def test_what_has_arrived_is_not_fetched_again(bundle: Path, store: Path, serve: Serve) -> None:
    fault = EndsEarly(70_000)
    serve(bundle, fault)
    pull("someone/small")
    assert fault.sent == 500_000


def test_a_part_from_elsewhere_is_not_taken(bundle: Path, store: Path, serve: Serve) -> None:
    def shifted(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        if name != "llm.gguf":
            return False
        if not start:
            return send(request, 200, content[:50_000], Content_Length=str(len(content)))
        rest, said = content[start + 1 :], f"bytes {start + 1}-{len(content) - 1}/{len(content)}"
        return send(request, 206, rest, Content_Length=str(len(rest)), Content_Range=said)

    serve(bundle, shifted)
    with pytest.raises(BundleError, match="it goes on where it stopped"):
        pull("someone/small")
    assert catalogue() == ()


def changed(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def answering(status: int, **headers: str) -> Fault:
    def fault(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        return name == "vision.onnx" and send(request, status, **headers)

    return fault


def sending(change: Callable[[bytes], bytes], file: str = "vision.onnx", length: bool = True) -> Fault:
    def fault(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        said = {"Content_Length": str(len(change(content)))} if length else {}
        return name == file and send(request, 200, change(content), **said)

    return fault


def manifest_with(change: Callable[[dict], object]) -> Fault:  # type: ignore[type-arg]
    def altered(content: bytes) -> bytes:
        raw = json.loads(content)
        change(raw)
        return json.dumps(raw).encode()

    return sending(altered, "manifest.json")


def renamed(raw: dict, name: str) -> None:  # type: ignore[type-arg]
    raw["vision"]["file"] = name
    next(one for one in raw["files"] if one["name"] == "vision.onnx")["name"] = name


REFUSED = {
    "another file": (sending(changed), r"vision\.onnx of someone/small with SHA-256"),
    "another size": (sending(lambda content: content + b"more"), "200000 bytes.*got 200004"),
    "a file that ends early, always": (sending(lambda content: content[:-1], length=False), "goes on where it"),
    "an error page": (sending(lambda content: b"<html>", length=False), "goes on where it"),
    "no such file": (answering(404), "which its manifest lists"),
    "unauthorized": (answering(401), "HF_TOKEN"),
    "forbidden": (answering(403), "HF_TOKEN"),
    "broken for ever": (answering(500), "status 500"),
    "a circle": (answering(302, Location="vision.onnx"), r"status 302 [^\\;]*; .*in circles"),
    "to a file": (answering(302, Location="file:///etc/passwd"), "nothing can be fetched"),
    "to FTP": (answering(307, Location="ftp://example.invalid/x"), "https://"),
    "a manifest that is none": (sending(lambda content: b"<html>", "manifest.json"), "got HTML; check the address"),
    "a manifest in another alphabet": (sending(lambda content: b"\xff" + content, "manifest.json"), "UTF-8"),
    "a manifest without an end": (sending(lambda content: b" " * 2**23 + content, "manifest.json"), "at most"),
    "a name that is a path": (manifest_with(lambda raw: renamed(raw, "../../vision.onnx")), "plain file names"),
    "a name of Windows' paths": (manifest_with(lambda raw: renamed(raw, "..\\vision.onnx")), "plain file names"),
    "a name that is absolute": (manifest_with(lambda raw: renamed(raw, "/etc/vision.onnx")), "plain file names"),
    "a file that is listed twice": (
        manifest_with(lambda raw: raw["files"].append(raw["files"][0])),
        "each file once in the manifest",
    ),
    "a hash that is a path": (
        manifest_with(lambda raw: raw["files"][0].update(sha256="../../../vision")),
        "a SHA-256 of",
    ),
    "an empty hash": (manifest_with(lambda raw: raw["files"][0].update(sha256="")), "a SHA-256 of"),
    "a manifest of another age": (manifest_with(lambda raw: raw.update(schema=99)), "upgrade"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_servers_that_are_not(fault: str, bundle: Path, store: Path, serve: Serve, tmp_path: Path) -> None:
    pull(str(bundle), name="before")
    before = contents(find_bundle("before"))
    make_bundle(tmp_path / "new", vision=5)
    serve(tmp_path / "new", REFUSED[fault][0])
    around = sorted(path for path in tmp_path.rglob("*") if store not in path.parents)
    with pytest.raises(LlavaEdgeError, match=REFUSED[fault][1]) as caught:
        pull("someone/small")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 800
    assert model_names() == ("before",)
    assert contents(find_bundle("before")) == before
    assert len(left(store)["bundles"]) == 1
    assert sorted(path for path in tmp_path.rglob("*") if store not in path.parents) == around


def test_what_is_safe_is_not_sent_to_what_is_not(bundle: Path, store: Path, serve: Serve) -> None:
    """From an address that need not be encrypted, on this machine, to one on another machine."""
    serve(bundle, answering(302, Location="http://example.invalid/x"))
    with pytest.raises(BundleError, match=r"got http://example\.invalid/x; ask for it over https"):
        pull(f"{os.environ['HF_ENDPOINT']}/someone/small/resolve/main/manifest.json", name="small")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("someone/nothing", "no such repository"),
        ("someone/checkpoint", "llava-edge export someone/checkpoint"),
        ("http://example.invalid/manifest.json", "https://"),
        ("https://example.invalid/llm.gguf", "manifest.json"),
        ("https://user:secret@example.invalid/a/manifest.json", "a user"),
        ("https://example.invalid/a/manifest.json?token=secret", "a query"),
        ("ftp://example.invalid/a/manifest.json", "an address like"),
        ("file:///a/manifest.json", "an address like.* without file://"),
        ("nothing", "a hub id like"),
        ("someone/small@../x", "a hub id like"),
        ("someone/small@", "a hub id like"),
        ("", "a hub id like"),
        ("published", "small"),
        ("published/small/llm.gguf", "GGUF|a file"),
        ("x" * 5000, "a hub id like"),
    ],
)
def test_what_is_no_bundle(
    what: str, said: str, bundle: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    with hub_server({"someone/checkpoint": tmp_path / "checkpoint"}) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(LlavaEdgeError, match=said) as caught:
            pull(what)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert not store.exists()


def test_offline_is_heard(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BundleError, match="HF_HUB_OFFLINE"):
        pull("someone/small")


@pytest.mark.parametrize("kept", ["variable", "file"])
def test_the_token_goes_to_the_hub_alone(
    kept: str, bundle: Path, store: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kept == "variable":
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
    else:
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text("hf_secret\n")
    seen: dict[str, list[str | None]] = {"hub": [], "elsewhere": []}

    def elsewhere(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        seen["elsewhere"].append(request.headers.get("Authorization"))
        return False

    with hub_server({"a/cdn": bundle}, elsewhere) as (other, _):

        def hub(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
            seen["hub"].append(request.headers.get("Authorization"))
            if name == "llm.gguf":
                return send(request, 302, Location=f"{other}/a/cdn/resolve/main/llm.gguf")
            if name == "newline.npy" and "again" not in request.path:
                return send(request, 307, Location="/someone/small/resolve/again/newline.npy")
            return False

        serve(bundle, hub)
        assert contents(pull("someone/small").folder) == contents(bundle)
        assert set(seen["hub"]) == {"Bearer hf_secret"}
        assert seen["elsewhere"] == [None]
        seen["elsewhere"].clear()
        pull(f"{other}/a/cdn/resolve/main/manifest.json", name="cdn")
        assert set(seen["elsewhere"]) == {None}


# what was interrupted


def stops_in_the_middle(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
    return name == "llm.gguf" and send(request, 200, content[: start or 100_000], Content_Length=str(len(content)))


@pytest.mark.parametrize("rotten", [False, True])
def test_going_on(rotten: bool, bundle: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrived before is used, and thrown away where it is not what it should be."""
    starts: list[int] = []
    broken = [True]

    def fault(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        if name == "llm.gguf":
            starts.append(start)
            if broken and start:
                return send(request, 500)
            if broken:
                return send(request, 200, content[:100_000], Content_Length=str(len(content)))
        return False

    with hub_server({"someone/small": bundle}, fault) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(BundleError, match="it goes on where it stopped"):
            pull("someone/small")
        (partial,) = (store / "partial").iterdir()
        assert partial.stat().st_size == 100_000
        if rotten:
            partial.write_bytes(changed(partial.read_bytes()))
        broken.clear()
        starts.clear()
        needs: list[int] = []
        model = pull("someone/small", on_need=lambda need: needs.append(need.kept))
        assert contents(model.folder) == contents(bundle)
        assert starts == ([100_000, 0] if rotten else [100_000])
        assert needs[0] >= 100_000


def test_two_pulls_at_once(bundle: Path, store: Path, serve: Serve) -> None:
    """Locks are those of open files, so two threads stand for two processes. Each file comes once."""

    def slow(request: BaseHTTPRequestHandler, name: str, content: bytes, start: int) -> bool:
        threading.Event().wait(0.05)
        return False

    asked = serve(bundle, slow)
    found: list[object] = []

    def one(name: str) -> None:
        try:
            found.append(contents(pull("someone/small", name=name).folder))
        except LlavaEdgeError as error:
            found.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("same", "same", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [contents(bundle)] * 3
    assert model_names() == ("other", "same")
    assert all(asked.count(name) == 1 for name in ("llm.gguf", "vision.onnx"))


def test_a_file_that_goes_while_another_comes(
    bundle: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes the model that a file was shared with, behind our back: it is fetched again."""
    pull(str(make_bundle(tmp_path / "other", llm=9)))
    real, done = pulling._install, []

    def removed_before(*given: object, **more: object) -> None:
        if not done:
            done.append(remove("other"))
        real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pulling, "_install", removed_before)
    assert contents(pull(str(bundle)).folder) == contents(bundle)


KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
store, first, second, last = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
os.environ["LLAVA_EDGE_MODELS"] = str(store)
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.bundle.named import model_names
from llava_edge.store.pull import pull, remove
def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
STEPS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"}
def act():
    if last == "pull": pull(str(place))
    else: remove("model")
def forked(count):
    child = os.fork()
    if child: return os.waitpid(child, 0)[1]
    left = [count]
    def step(event, given):
        if event in STEPS and any(str(store) in str(one) for one in given):
            left[0] -= 1
            if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    try: act()
    except BaseException: os._exit(1)
    os._exit(0)
wanted = [content(first), content(second) if last == "pull" else None]
place = store.parent / "published" / "model"
def publish(folder):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
seen = set()
for count in range(1, 1000):
    shutil.rmtree(store, ignore_errors=True)
    publish(first)
    pull(str(place))
    publish(second)
    status = forked(count)
    found = content(Bundle.open("model", hash_all=True).path) if model_names() == ("model",) else None
    assert found in wanted, count
    seen.add(wanted.index(found))
    if status == 0: break
    assert os.WIFSIGNALED(status), count
    if last == "pull" or model_names(): act()
    after = content(Bundle.open("model", hash_all=True).path) if model_names() else None
    assert after == wanted[1], count
    assert not any((store / "partial").iterdir()), count
    pull(str(place))
    remove("model")
    left = [path for name in ("models", "bundles", "blobs") for path in (store / name).iterdir()]
    assert not left, (count, left)
assert seen == {0, 1} and count > 10
print(count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("last", ["pull", "remove"])
def test_killed_at_every_step(last: str, tmp_path: Path) -> None:
    """Each time a file is opened, made, renamed, linked or removed: before it, the process is killed."""
    first, second = make_bundle(tmp_path / "first"), make_bundle(tmp_path / "second", llm=1)
    store = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(store), str(first), str(second), last],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# disks


def test_a_disk_that_is_too_small(bundle: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 9 * 10**5, 10**5))
    with pytest.raises(StorageError, match="free some space"):
        pull(str(bundle))
    assert not store.exists()


@pytest.mark.parametrize("name", ["sync_open", "replace_file"])
def test_a_disk_that_is_full_nevertheless(
    name: str, bundle: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(blobs, name, full)
        with pytest.raises(StorageError, match="free some space"):
            pull(str(bundle))
    assert catalogue() == ()
    assert contents(pull(str(bundle)).folder) == contents(bundle)


def test_a_store_that_can_not_be_made(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLAVA_EDGE_MODELS", str(tmp_path / "file" / "store"))
    assert catalogue() == ()
    with pytest.raises(StorageError, match="room and permission"):
        pull(str(bundle))
    with pytest.raises(BundleError):
        remove("small")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_can_only_be_read(bundle: Path, store: Path) -> None:
    pull(str(bundle))
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert Bundle.open("small", hash_all=True)
        with pytest.raises(StorageError):
            remove("small")
    finally:
        for folder in folders:
            folder.chmod(0o755)


# a store that somebody else has written in


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}', '{"source":"","revision":"","manifest":"../x"}'])
def test_a_name_that_says_nothing(text: str, bundle: Path, store: Path, tmp_path: Path) -> None:
    pull(str(bundle), name="right")
    (store / "models" / "wrong.json").write_text(text)
    (store / "models" / ".hidden.json").write_text("{}")
    (wrong,) = [one for one in catalogue() if one.fault]
    assert (wrong.name, len(catalogue())) == ("wrong", 2)
    with pytest.raises(BundleError, match=r"wrong\.json.*pull the model again"):
        Bundle.open("wrong")
    pull(str(make_bundle(tmp_path / "mended", llm=2)), name="wrong")
    assert not any(one.fault for one in catalogue())
    assert Bundle.open("right", hash_all=True)


@pytest.mark.parametrize("damage", ["flipped", "shorter", "missing", "no bundle"])
def test_pulling_again_mends(damage: str, bundle: Path, store: Path) -> None:
    folder = pull(str(bundle)).folder
    blob = folder / "llm.gguf"
    if damage == "flipped":
        blob.write_bytes(changed(blob.read_bytes()))
    elif damage == "shorter":
        blob.write_bytes(blob.read_bytes()[:-1])
    elif damage == "missing":
        blob.unlink()
    else:
        shutil.rmtree(folder)
        assert [one.fault != "" for one in catalogue()] == [True]
    assert contents(pull(str(bundle)).folder) == contents(bundle)
    assert Bundle.open("small", hash_all=True)


def test_only_forgotten_leftovers_are_collected(bundle: Path, store: Path) -> None:
    pull(str(bundle))
    old, new = store / "partial" / ("0" * 64), store / "blobs" / ("1" * 64)
    for path in (old, new):
        path.write_bytes(b"interrupted")
    os.utime(old, (0, 0))
    pull(str(bundle))
    assert (old.exists(), new.exists()) == (False, True)


def test_http_answers_are_read_strictly() -> None:
    for url in ("http://127.0.0.1/x", "http://localhost:80/x", "http://[::1]/x", "https://example.invalid/x"):
        http.check_url(url)
    for url in ("http://127.0.0.1.example.invalid/x", "https:///x", "HTTPS:x", "http://localhost.example.invalid/"):
        with pytest.raises(BundleError):
            http.check_url(url)


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
def test_a_damaged_model_is_pulled_again(damage: str, bundle: Path, store: Path) -> None:
    model = pull(str(bundle), name="small")
    path = model.folder / "vision.onnx"
    data = path.read_bytes()
    path.chmod(0o600)
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "shortened" else bytes([*data[:-1], data[-1] ^ 1]))
    with pytest.raises(BundleError) as caught:
        Bundle.open("small", hash_all=True)
    command = f"llava-edge pull {model.source} --as small"
    assert caught.value.fix == f"run: {command}"
    pull(*command.split()[2:3], name="small")
    assert contents(Bundle.open("small", hash_all=True).path) == contents(bundle)


@pytest.mark.parametrize("kind", ["file", "empty folder", "damaged bundle"])
def test_what_hides_a_model_is_said(kind: str, bundle: Path, store: Path, tmp_path: Path) -> None:
    pull(str(bundle), name="8b")
    if kind == "file":
        (tmp_path / "8b").write_text("x")
    elif kind == "empty folder":
        (tmp_path / "8b").mkdir()
    else:
        (make_bundle(tmp_path / "8b") / "vision.onnx").unlink()
    with pytest.raises(BundleError, match=r"the model 8b of 'llava-edge list' is hidden by \./8b"):
        Bundle.open("8b")
    if kind != "damaged bundle":
        with pytest.raises(CheckpointError, match=r"hidden by \./8b"):
            shape_of("8b")
