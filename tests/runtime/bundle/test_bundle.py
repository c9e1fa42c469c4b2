"""Bundles on disk: opened with suspicion, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava_edge.runtime.bundle import bundle as bundle_module
from llava_edge.runtime.bundle.bundle import Bundle, write_manifest
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
    "extra file": (lambda folder: (folder / "extra.bin").write_bytes(b"x"), "also extra.bin"),
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
    "a used file not listed": (edit(lambda raw: raw["llm"].update(file="other.gguf")), "other.gguf not listed"),
}


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
