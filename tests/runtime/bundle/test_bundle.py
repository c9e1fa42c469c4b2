"""Bundles on disk: opened with suspicion, written whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.bundle import bundle as bundle_module
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle, write_manifest
from llava_edge.runtime.bundle.manifest import SCHEMA, LlmPart, Manifest, Parity, Source, VisionPart
from llava_edge.runtime.errors import BundleError, StorageError
from llava_edge.runtime.pictures.geometry import Geometry
from llava_edge.runtime.prompts.template_spec import TemplateSpec
from llava_edge.runtime.system.storage import file_sha256, storage_error, writing_folder

Damage = Callable[[Path], None]


def manifest() -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name="test",
        created_by="llava-edge tests",
        source=Source("somewhere", "transformers", "LlavaNextForConditionalGeneration", "00"),
        geometry=Geometry(28, 14, ((28, 56), (56, 28)), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        merge_type="spatial_unpad",
        template=TemplateSpec(
            "{{ messages }}", "list", "<image>", "<s>", "</s>", True, {"<s>": 1, "</s>": 2}, ("</s>",), "none"
        ),
        vision=VisionPart("vision.onnx", "f32", 4, 0.0),
        llm=LlmPart("llm.gguf", "f16", "llama", 4, 2048),
        newline="newline.npy",
        parity=Parity("parity.npz", "transformers", {"features": 1e-7}),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose weights are a few bytes: enough for everything that only looks at files."""
    path = tmp_path / "bundle"
    with writing_folder(path) as temporary:
        (temporary / "vision.onnx").write_bytes(b"onnx" * 10)
        (temporary / "llm.gguf").write_bytes(b"gguf" * 10)
        np.save(temporary / "newline.npy", np.arange(4, dtype=np.float32))
        np.savez_compressed(temporary / "parity.npz", pixels=np.zeros(3, np.float32))
        write_manifest(temporary, manifest())
    return path


def test_what_is_written_can_be_opened(folder: Path) -> None:
    opened = Bundle.open(folder, hash_all=True)
    assert opened.manifest.files[0].sha256 == file_sha256(folder / opened.manifest.files[0].name)
    assert opened.manifest.geometry == manifest().geometry
    assert opened.newline().tolist() == [0, 1, 2, 3]
    assert list(opened.parity_values()) == ["pixels"]
    assert Manifest.from_json(opened.manifest.to_json(), where="here") == opened.manifest
    assert opened.vision_path.name == "vision.onnx"
    assert not list(folder.parent.glob(".bundle*"))


def edit(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(folder: Path) -> None:
        raw = json.loads((folder / "manifest.json").read_text())
        change(raw)
        (folder / "manifest.json").write_text(json.dumps(raw))

    return damage


def swap_for_link(folder: Path) -> None:
    shutil.move(folder / "llm.gguf", folder.parent / "elsewhere.gguf")
    (folder / "llm.gguf").symlink_to(folder.parent / "elsewhere.gguf")


def link_manifest(folder: Path) -> None:
    shutil.move(folder / "manifest.json", folder.parent / "elsewhere.json")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere.json")


def rename_in_manifest(name: str) -> Damage:
    def change(raw: dict[str, Any]) -> None:
        raw["files"][0]["name"] = name

    return edit(change)


def first_schema(raw: dict[str, Any]) -> dict[str, Any]:
    """Make a manifest what it was in schema 1."""
    raw["schema"] = 1
    del raw["reading"], raw["vision"]["kind"]
    return raw


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "got none"),
    "a symlinked manifest": (link_manifest, "symbolic link"),
    "manifest not UTF-8": (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe{"), "UTF-8"),
    "manifest not JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "expected JSON"),
    "manifest a list": (lambda folder: (folder / "manifest.json").write_text("[]"), "schema None"),
    "later schema": (edit(lambda raw: raw.update(schema=99)), "upgrade llava-edge"),
    "earlier schema": (edit(lambda raw: raw.update(schema=0)), "export the bundle again"),
    "unknown key": (edit(lambda raw: raw.update(extra=1)), "got 'extra'"),
    "missing key": (edit(lambda raw: raw.pop("newline")), "the keys newline"),
    "wrong type": (edit(lambda raw: raw["vision"].update(dim="4")), "int at"),
    "true for a number": (edit(lambda raw: raw["vision"].update(dim=True)), "int at"),
    "object where a list belongs": (edit(lambda raw: raw.update(files={})), "at "),
    "part not an object": (edit(lambda raw: raw.update(llm=3)), "an object"),
    "unknown merge type": (edit(lambda raw: raw.update(merge_type="flat")), "one of spatial_unpad"),
    "a mean of two channels": (edit(lambda raw: raw["geometry"].update(mean=[0.5, 0.5])), "mean"),
    "missing file": (lambda folder: (folder / "llm.gguf").unlink(), "the files llm.gguf"),
    "schema true": (edit(lambda raw: raw.update(schema=True)), "schema True"),
    "deep nesting": (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "expected JSON"),
    "a number too large": (
        lambda folder: (folder / "manifest.json").write_text('{"schema": 1' + "0" * 9999),
        "expected JSON",
    ),
    "not a number": (edit(lambda raw: raw["geometry"].update(mean=[float("nan")] * 3)), "a finite number"),
    "a number past floats": (edit(lambda raw: raw["geometry"].update(rescale=10**400)), "a finite number"),
    "a std of 0": (edit(lambda raw: raw["geometry"].update(std=[0.5, 0.5, 0])), "the last two not 0"),
    "a patch of 0": (edit(lambda raw: raw["geometry"].update(patch_size=0)), "whole patches"),
    "a tile of 0": (edit(lambda raw: raw["geometry"].update(image_size=0)), "whole patches"),
    "no pinpoints": (edit(lambda raw: raw["geometry"].update(pinpoints=[])), "1 to 4096 pinpoints"),
    "a pinpoint of 0": (edit(lambda raw: raw["geometry"].update(pinpoints=[[0, 28]])), "got 0x28"),
    "half tiles": (edit(lambda raw: raw["geometry"].update(pinpoints=[[42, 28]])), "got 42x28"),
    "huge pinpoints": (edit(lambda raw: raw["geometry"].update(pinpoints=[[7000, 7000]])), "got 7000x7000"),
    "no image token": (edit(lambda raw: raw["template"].update(image_token="")), "an empty one"),
    "a token without text": (edit(lambda raw: raw["template"]["special_tokens"].update({"": 3})), "an empty one"),
    "a negative id": (edit(lambda raw: raw["template"]["special_tokens"].update({"<s>": -3})), "got -3"),
    "another width": (edit(lambda raw: raw["llm"].update(dim=5)), "as wide as the language model"),
    "a context of 0": (edit(lambda raw: raw["llm"].update(context_length=0)), "llm.context_length above 0"),
    "another reading": (edit(lambda raw: raw.update(reading="ours")), "one of transformers, original"),
    "no reading": (edit(lambda raw: raw.pop("reading")), "the keys reading"),
    "a reading in the geometry": (edit(lambda raw: raw["geometry"].update(reading="original")), "no geometry.reading"),
    "another kind of tower": (edit(lambda raw: raw["vision"].update(kind="resnet")), "a vision tower among clip"),
    "no kind of tower": (edit(lambda raw: raw["vision"].pop("kind")), "the keys kind"),
    "a reading in schema 1": (edit(lambda raw: first_schema(raw).update(reading="original")), "got 'reading'"),
    "a kind of tower in schema 1": (
        edit(lambda raw: first_schema(raw)["vision"].update(kind="clip")),
        "no vision.kind",
    ),
    "another vision recipe": (edit(lambda raw: raw["vision"].update(recipe="w1")), "a vision recipe among f32"),
    "altered file": (lambda folder: (folder / "llm.gguf").write_bytes(b"GGUF" * 10), "SHA-256"),
    "longer file": (lambda folder: (folder / "llm.gguf").write_bytes(b"gguf" * 11), "40 bytes"),
    "symlinked file": (swap_for_link, "a symbolic link"),
    "folder instead of a file": (
        lambda folder: ((folder / "llm.gguf").unlink(), (folder / "llm.gguf").mkdir())[1],
        "something else",
    ),
    "a path upwards": (rename_in_manifest("../llm.gguf"), "plain file names"),
    "two dots": (rename_in_manifest(".."), "plain file names"),
    "an absolute path": (rename_in_manifest("/etc/passwd"), "plain file names"),
    "a Windows path": (rename_in_manifest("C:\\llm.gguf"), "plain file names"),
    "a stop token without an id": (edit(lambda raw: raw["template"].update(stop_tokens=["<x>"])), "none for <x>"),
    "a BOS without an id": (edit(lambda raw: raw["template"].update(bos_token="<b>")), "none for <b>"),
    "a file listed twice": (edit(lambda raw: raw["files"].append(raw["files"][0])), "each file once in the manifest"),
    "a used file not listed": (edit(lambda raw: raw["llm"].update(file="other.gguf")), "other.gguf not listed"),
}


def test_schema_1_reads_as_transformers(folder: Path) -> None:
    now = Bundle.open(folder).manifest
    edit(first_schema)(folder)
    opened = Bundle.open(folder).manifest
    assert (opened.reading, opened.vision.kind) == ("transformers", "clip")
    assert opened == now
    assert Bundle.open(demo_bundle()).manifest.reading == "transformers"


@pytest.mark.parametrize("reading", ["transformers", "original"])
def test_a_reading_is_kept(reading: Any, folder: Path) -> None:
    before = Bundle.open(folder).manifest
    write_manifest(folder, dataclasses.replace(before, geometry=dataclasses.replace(before.geometry, reading=reading)))
    raw = json.loads((folder / "manifest.json").read_text())
    assert (raw["schema"], raw["reading"], "reading" in raw["geometry"]) == (2, reading, False)
    opened = Bundle.open(folder).manifest
    assert opened.reading == opened.geometry.reading == reading


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_bundles_are_refused_in_one_line(case: str, folder: Path) -> None:
    damage, said = DAMAGES[case]
    damage(folder)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_large_files_are_hashed_only_on_demand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "llm.gguf").write_bytes(b"GGUF" * 10)
    monkeypatch.setattr(bundle_module, "HASH_ON_OPEN", 8)
    Bundle.open(folder)
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.open(folder, hash_all=True)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="got nothing"):
        Bundle.open(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="got a file"):
        Bundle.open(tmp_path / "file")


def test_newline_of_another_length_is_refused(folder: Path) -> None:
    np.save(folder / "newline.npy", np.arange(5, dtype=np.float32))
    with pytest.raises(BundleError, match="newline vector of length 4"):
        Bundle(folder, manifest()).newline()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def fail() -> None:
        with writing_folder(target) as temporary:
            (temporary / "llm.gguf").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="free some space"):
        fail()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with writing_folder(tmp_path / "bundle") as temporary:
            (temporary / "llm.gguf").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


def test_an_existing_target_is_not_touched(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(StorageError, match="choose another path"), writing_folder(folder):
        pass
    assert sorted(folder.iterdir()) == before


def test_a_target_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="check the path"), writing_folder(tmp_path / "file" / "bundle"):
        pass


def test_storage_errors_pass_through(tmp_path: Path) -> None:
    inner = storage_error(OSError(errno.EACCES, os.strerror(errno.EACCES)), tmp_path)
    with pytest.raises(StorageError, match="Permission denied"), writing_folder(tmp_path / "bundle"):
        raise inner


SYSTEM_FILES = (".DS_Store", "._llm.gguf", ".gitattributes", "Thumbs.db", "README.md", "desktop.ini", ".nfs000123")


def test_what_the_manifest_does_not_list_is_ignored_and_named(folder: Path) -> None:
    for name in SYSTEM_FILES:
        (folder / name).write_bytes(b"anything")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".broken").symlink_to("nowhere")
    assert set(Bundle.open(folder, hash_all=True).unlisted()) == {*SYSTEM_FILES, ".cache", ".broken"}


def test_a_file_that_the_system_adds_while_a_bundle_is_written_is_not_listed(tmp_path: Path, folder: Path) -> None:
    expected = Bundle.open(folder).manifest.files
    (folder / ".DS_Store").write_bytes(b"anything")
    write_manifest(folder, manifest())
    assert Bundle.open(folder).manifest.files == expected


def as_the_hub_caches_it(folder: Path, *, below: str = "") -> Path:
    """Lay ``folder`` out as huggingface_hub's cache does: a snapshot of links to blobs."""
    repository = folder.parent / "models--someone--bundle"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123abcd" / below
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        blob = blobs / file_sha256(path)
        shutil.move(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.mark.parametrize("below", ["", "q4"])
def test_links_of_the_hubs_cache_are_followed(folder: Path, below: str) -> None:
    snapshot = as_the_hub_caches_it(folder, below=below)
    assert Bundle.open(snapshot, hash_all=True).newline().tolist() == [0, 1, 2, 3]
    (folder.parent / "link").symlink_to(snapshot)
    assert Bundle.open(folder.parent / "link", hash_all=True).unlisted() == ()
    target = (snapshot / "llm.gguf").resolve()
    target.write_bytes(b"GGUF" * 10)
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.open(snapshot)


@pytest.mark.parametrize("name", ["llm.gguf", "manifest.json", "newline.npy"])
@pytest.mark.parametrize("way", ["elsewhere", "past the blobs", "by two links", "blobs that are a link"])
def test_links_out_of_the_hubs_cache_are_refused(folder: Path, name: str, way: str) -> None:
    snapshot = as_the_hub_caches_it(folder)
    link, outside = snapshot / name, folder.parent / "elsewhere"
    blob = link.resolve()
    if way == "blobs that are a link":
        shutil.move(blob.parent, outside)
        blob.parent.symlink_to(outside)
    else:
        shutil.move(blob, outside)
        link.unlink()
        if way == "by two links":
            blob.symlink_to(outside)
            link.symlink_to(Path("../../blobs") / blob.name)
        else:
            link.symlink_to(outside if way == "elsewhere" else Path("../../blobs/../../elsewhere"))
    assert (snapshot / name).exists()
    with pytest.raises(BundleError, match="a symbolic link"):
        Bundle.open(snapshot)


def pickled(path: Path) -> None:
    np.save(path, np.array([{}, {}], object), allow_pickle=True)


def of_many(path: Path) -> None:
    """An array whose head promises a terabyte."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**38,)})
        file.write(b"1234")


JUNK: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b"") and None,
    "junk": lambda path: path.write_bytes(b"PK\x03\x04 junk that is no archive") and None,
    "a head alone": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'") and None,
    "objects": pickled,
    "a terabyte": of_many,
    "not a number": lambda path: np.save(path, np.full(4, np.nan, np.float32)),
    "text": lambda path: np.save(path, np.array(["a"] * 4)),
    "fields": lambda path: np.save(path, np.zeros(4, [("a", "<f4")])),
}


@pytest.mark.parametrize("case", JUNK)
def test_arrays_that_are_none_are_refused_in_one_line(case: str, folder: Path, tmp_path: Path) -> None:
    """Hashes hold: whoever made the bundle made it so. In the archive it is a member, and the archive itself."""
    JUNK[case](folder / "newline.npy")
    JUNK[case](tmp_path / "member.npy")
    with zipfile.ZipFile(folder / "parity.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "member.npy", "pixels.npy")
    write_manifest(folder, manifest())
    opened = Bundle.open(folder)
    for read in (opened.newline, opened.parity_values):
        with pytest.raises(BundleError) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    shutil.move(folder / "newline.npy", folder / "parity.npz")
    with pytest.raises(BundleError, match="archive of numpy arrays"):
        opened.parity_values()
