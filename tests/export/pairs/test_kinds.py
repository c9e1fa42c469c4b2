"""Pairs that are none: every wrong file is named for what it is, in one line, and nothing is written."""

from __future__ import annotations

import dataclasses
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from llava_edge.export.importing import import_pair
from llava_edge.runtime.errors import LlavaEdgeError
from support.checkpoints import make_checkpoint
from support.command_line import run_here
from support.gguf_files_written import write_plan
from support.projector_files import ProjectorFile

Make = Callable[[Path], tuple[Path, Path]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("pairs") / "checkpoint")


@pytest.fixture(scope="module")
def llm(checkpoint: Path) -> Path:
    from llava_edge.export.pipeline import make_plan

    return write_plan(make_plan(str(checkpoint)), checkpoint.parent / "llm.gguf")


@pytest.fixture(scope="module")
def projector(checkpoint: Path) -> Path:
    return ProjectorFile().write(checkpoint, checkpoint.parent / "mmproj.gguf")


def small(path: Path, architecture: str, tensors: dict[str, tuple[int, ...]], **settings: Any) -> Path:
    """A GGUF file of zeros. ``settings``: keys with "_" for "."."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in settings.items():
        name = key.replace("__", ".")
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(name, value)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


BLOCK = {"token_embd.weight": (8, 32), "blk.0.attn_q.weight": (32, 32)}
FIRST: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "none.gguf", "got nothing"),
    "a folder": (lambda folder: folder, "got a folder of"),
    "tensors": (lambda folder: folder / "checkpoint" / "model.safetensors", "a safetensors file"),
    "a LoRA": (lambda folder: small(folder / "a.gguf", "llama", BLOCK, general__type="adapter"), "a LoRA adapter"),
    "an imatrix": (lambda folder: small(folder / "i.gguf", "llama", {}, general__type="imatrix"), "an importance"),
    "a vocabulary": (lambda folder: small(folder / "v.gguf", "llama", {}), "a vocabulary without weights (llama)"),
    "an image model": (lambda folder: small(folder / "f.gguf", "flux", {"x": (4,)}), "a GGUF file of flux"),
    "another architecture": (lambda folder: small(folder / "g.gguf", "gemma3", BLOCK), "among llama, qwen2"),
    "a later part": (
        lambda folder: small(folder / "m-00002-of-00003.gguf", "llama", BLOCK, split__no=1, split__count=3),
        "part 1, from 0, of 3",
    ),
    "a part missing": (
        lambda folder: small(folder / "m-00001-of-00002.gguf", "llama", BLOCK),
        "no m-00002-of-00002.gguf",
    ),
    "a text file": (lambda folder: text_file(folder), "another kind of file"),
    "a truncated file": (lambda folder: truncated(folder), "bytes"),
}  # fmt: skip


def text_file(folder: Path) -> Path:
    (folder / "notes.gguf").write_text("hello")
    return folder / "notes.gguf"


def truncated(folder: Path) -> Path:
    raw = (folder / "llm.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(raw[: len(raw) // 2])
    return folder / "cut.gguf"


def refused(first: Path, second: Path, destination: Path) -> str:
    with pytest.raises(LlavaEdgeError) as caught:
        import_pair(first, second, destination)
    assert not destination.exists()
    assert not list(destination.parent.glob(f".{destination.name}*"))
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("case", FIRST)
def test_the_first_file(case: str, checkpoint: Path, llm: Path, projector: Path, tmp_path: Path) -> None:
    make, expected = FIRST[case]
    assert expected in refused(make(llm.parent), projector, tmp_path / "bundle")


def test_two_of_one_kind_and_the_other_order(llm: Path, projector: Path, tmp_path: Path) -> None:
    destination = tmp_path / "bundle"
    assert "a projector (mmproj) in" in (said := refused(llm, llm, destination))
    assert "got a language model (llama)" in said
    assert "got a projector (mlp)" in refused(projector, projector, destination)
    assert f"give {llm} {projector}" in refused(projector, llm, destination)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "Qwen2-VL": ({"keys": {"projector_type": "qwen2vl_merger"}}, "type qwen2vl_merger, of Qwen2-VL"),
    "Qwen2-VL before types": (
        {"keys": {"projector_type": None, "has_qwen2vl_merger": True}}, "type qwen2vl_merger, of Qwen2-VL",
    ),
    "MiniCPM-V before types": (
        {"keys": {"projector_type": "resampler", "has_minicpmv_projector": True}}, "type minicpmv, of MiniCPM-V",
    ),
    "MiniCPM-V": ({"keys": {"projector_type": "resampler"}}, "type resampler, of MiniCPM-V"),
    "two modalities": (
        {"keys": {"projector_type": None, "vision.projector_type": "gemma3"}}, "type gemma3, of Gemma 3",
    ),
    "a type nobody knows": ({"keys": {"projector_type": "x" * 999}}, "a projector of type xxx"),
    "Yi-VL": ({"tensors": {"mm.3.weight": np.zeros((4, 4), np.float32)}}, "mlp_norm, of Yi-VL"),
    "LLaVA 1.5": ({"tensors": {"model.image_newline": None}}, "one of LLaVA-1.5: it has no image_newline"),
    "LLaVA 1.0": ({"tensors": {"mm.2.weight": None}}, "without a second layer"),
    "SigLIP": ({"tensors": {"v.class_embd": None}}, "a tower without a class token"),
    "flat": ({"keys": {"vision.mm_patch_merge_type": "flat"}}, "got flat"),
    "pad": ({"keys": {"vision.image_aspect_ratio": "pad"}}, "got pad"),
    "Granite Vision": ({"feature_layer": (1, 2)}, "features of one layer"),
    "a layer that is not there": ({"feature_layer": (3,)}, "the 3 layers"),
    "audio": ({"keys": {"has_vision_encoder": False}}, "without a vision tower"),
    "another activation": ({"keys": {"use_silu": True}}, "got silu"),
    "a tensor missing": ({"tensors": {"v.blk.1.ln2.bias": None}}, "missing: model.vision_tower.encoder.layers.1"),
    "a layer missing": ({"tensors": {f"v.blk.0.{one}.{kind}": None for kind in ("weight", "bias") for one in (
        "attn_q", "attn_k", "attn_v", "attn_out", "ln1", "ln2", "ffn_up", "ffn_down")}}, "a CLIP tower"),
    "a tensor too many": ({"tensors": {"v.view_seperator": np.zeros(4, np.float32)}}, "unknown: v.view_seperator"),
    "another width": ({"tensors": {"mm.2.weight": np.zeros((192, 256), np.float32)}}, "got one for width 192"),
    "another tile": ({"keys": {"vision.image_size": 336}}, "image_size 56, as the tensors"),
    "half a pinpoint": ({"keys": {"vision.image_grid_pinpoints": [56, 112, 56]}}, "pairs of pixels"),
    "half tiles": ({"keys": {"vision.image_grid_pinpoints": [60, 112]}}, "multiples of 56"),
    "a word for pinpoints": ({"keys": {"vision.image_grid_pinpoints": "(1x1)"}}, "another type"),
    "a mean of two": ({"keys": {"vision.image_mean": [0.5, 0.5]}}, "three numbers"),
    "no heads": ({"keys": {"vision.attention.head_count": 0}}, "attention heads that divide"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_other_projectors_by_name(case: str, checkpoint: Path, llm: Path, tmp_path: Path) -> None:
    changes, expected = OTHERS[case]
    path = dataclasses.replace(ProjectorFile(), **changes).write(checkpoint, tmp_path / "mmproj.gguf")
    said = refused(llm, path, tmp_path / "bundle")
    assert expected in said
    assert len(said) < 900


def retyped(source: Path, target: Path, key: str, value: bytes) -> Path:
    """A copy with a string of the head replaced by another of its length."""
    raw = source.read_bytes()
    place = raw.index(key.encode())
    at = raw.index(struct.pack("<Q", len(value)), place) + 8
    target.write_bytes(raw[:at] + value + raw[at + len(value) :])
    return target


def test_another_tokenizer(llm: Path, projector: Path, tmp_path: Path) -> None:
    other = retyped(llm, tmp_path / "t5.gguf", "tokenizer.ggml.model", b"rwkv")
    assert "byte-level BPE tokenizer (llama, gpt2)" in refused(other, projector, tmp_path / "bundle")


def test_on_the_command_line(llm: Path, projector: Path, tmp_path: Path) -> None:
    status, out, said = run_here("import", str(projector), str(llm), "-o", str(tmp_path / "b"))
    assert (status, out) == (1, "")
    assert said.startswith("llava-edge: expected the language model first")
    assert len(said.splitlines()) == 1
    status, out, said = run_here("import", str(llm), "-o", str(tmp_path / "b"))
    assert status == 2
    shutil.copy(llm, tmp_path / "here.gguf")
    status, _, said = run_here("export", str(tmp_path / "here.gguf"), "-o", str(tmp_path / "b"))
    assert "llava-edge import" in said
    assert not (tmp_path / "b").exists()
