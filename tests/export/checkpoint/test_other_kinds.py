"""What is no whole trained checkpoint is named for what it is, with what to do; briefly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from llava_edge.export.checkpoint.checkpoint import open_checkpoint
from llava_edge.runtime.bundle.bundle import Bundle, demo_bundle
from llava_edge.runtime.errors import BundleError, CheckpointError
from safetensors.torch import load_file, save_file
from support.checkpoints import make_checkpoint

Make = Callable[[Path], None]


def weights(folder: Path, rename: Callable[[str], str]) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({rename(name): value for name, value in state.items()}, folder / "model.safetensors")


def adapter(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "liuhaotian/llava-v1.6"}')
    (folder / "adapter_model.safetensors").write_bytes(b"x")


def original_adapter(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "non_lora_trainables.bin").write_bytes(b"x")


def projector(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "mm_projector.bin").write_bytes(b"x")


def projector_by_names(folder: Path) -> None:
    save_file({f"model.mm_projector.{n}.weight": torch.zeros(2, 2) for n in (0, 2)}, folder / "model.safetensors")


def quantized(**settings: object) -> Make:
    def make(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**raw, "quantization_config": settings}))

    return make


def lfs(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def ggufs(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model-q4.gguf").write_bytes(b"GGUF")


KINDS: dict[str, tuple[Make, str]] = {
    "LoRA": (adapter, r"a LoRA adapter alone .* of liuhaotian/llava-v1\.6; merge it into its base"),
    "original LoRA": (original_adapter, r"a LoRA adapter alone \(non_lora_trainables\.bin\); merge"),
    "unmerged": (lambda folder: weights(folder, "base_model.model.{}".format), "an unmerged LoRA model"),
    "projector": (projector, "a projector alone"),
    "projector by its names": (projector_by_names, "a projector alone"),
    "bitsandbytes": (quantized(load_in_4bit=True), r"\(bitsandbytes, 4 bits\); export the full-precision"),
    "AWQ": (quantized(quant_method="awq", bits=4), r"\(AWQ, 4 bits\)"),
    "GPTQ": (quantized(quant_method="gptq", bits=8), r"\(GPTQ, 8 bits\)"),
    "another method": (quantized(quant_method="x" * 999), "a quantized checkpoint"),
    "AWQ without a config": (lambda folder: weights(folder, "{}.qweight".format), "quantized tensors"),
    "LFS": (lfs, "a git LFS pointer.*git lfs pull"),
    "GGUF": (ggufs, r"a folder of GGUF files \(model-q4\.gguf\)"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_other_forms_of_a_checkpoint(kind: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna", "original")
    make, said = KINDS[kind]
    make(folder)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(str(folder))
    assert len(str(caught.value)) < 1000
    assert "report" not in str(caught.value)


def test_a_thousand_names_are_not_listed(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c")
    weights(folder, "x.{}".format)
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more; left over: .* and \d+ more") as caught:
        open_checkpoint(str(folder))
    assert len(str(caught.value)) < 1000


def test_a_bundle_is_exported_already() -> None:
    with pytest.raises(CheckpointError, match="a bundle, exported already"):
        open_checkpoint(str(demo_bundle()))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF\x03\x00", "a GGUF file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x02}q", "a pickle"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"anything", "a file"),
    ],
)
def test_files(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    for opening, error in ((open_checkpoint, CheckpointError), (Bundle.open, BundleError)):
        with pytest.raises(error, match=f"got {said}"):
            opening(str(tmp_path / "file"))


def test_what_is_loaded_as_a_bundle_and_is_none(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoints" / "c")
    with pytest.raises(BundleError, match="a checkpoint, not exported yet; run: llava-edge export"):
        Bundle.open(checkpoint)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "demo").symlink_to(demo_bundle())
    with pytest.raises(BundleError, match=r"a folder with bundles in it \(demo\); give one of those"):
        Bundle.open(tmp_path / "bundles")


@pytest.mark.parametrize("source", ["x" * 5000, "a\0b", "a" * 5000 + "/b"])
def test_names_that_are_none(source: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    assert len(str(caught.value)) < 500


def test_a_tower_of_another_machine(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "vicuna", "original", tower=False)
    expected = open_checkpoint(str(folder)).fingerprint
    tower = (folder / "clip").rename(tmp_path / "clip")
    with pytest.raises(CheckpointError, match=r"mm_vision_tower in .*config\.json.*--vision-tower DIR") as caught:
        open_checkpoint(str(folder))
    assert "/clip" in caught.value.got
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "mm_vision_tower": str(folder / "clip")}))
    assert open_checkpoint(str(folder), vision_tower=str(tower)).fingerprint == expected
