"""Bundles made smaller: every recipe answers, says what it is, and costs what it should."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from llava_edge.quantize import pipeline
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime import Bundle, load
from llava_edge.runtime.bundle import bundle as bundles
from llava_edge.runtime.bundle import work_folder
from llava_edge.runtime.errors import BundleError, NativeError, OptionError, StorageError
from llava_edge.runtime.ggml.llm_recipes import QUANTIZED
from llava_edge.runtime.pictures.built_in import built_in_picture
from llava_edge.runtime.planning.shape_sources import folder_shape
from llava_edge.runtime.planning.shapes import llm_bytes

MATRIX = "blk.0.ffn_gate.weight"
EXPECTED = {
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q6_k": "Q6_K",
    "q5_k_m": "Q5_K",
    "q4_k_m": "Q4_K",
    "iq4_xs": "IQ4_XS",
    "q4_0": "Q4_0",
}
WORST_KL = {"f16": 1e-3, "bf16": 2e-2, "q8_0": 2e-2}
"""Nats at the first token; below eight bits a random model says nothing about a trained one."""


def matrix(bundle: Path) -> gguf.ReaderTensor:
    reader = gguf.GGUFReader(bundle / "llm.gguf")
    return next(tensor for tensor in reader.tensors if tensor.name == MATRIX)


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_llm_recipes(recipe: str, tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = quantize_bundle(tiny_bundle, tmp_path / "small", llm=recipe, vision="keep")
    assert manifest.llm.recipe == recipe
    assert manifest.vision == Bundle.open(tiny_bundle).manifest.vision
    tensor, original = matrix(tmp_path / "small"), matrix(tiny_bundle)
    assert tensor.tensor_type.name == EXPECTED[recipe]
    back = gguf.dequantize(tensor.data, tensor.tensor_type)
    error = np.linalg.norm(back - original.data) / np.linalg.norm(original.data)
    bits = tensor.n_bytes * 8 / tensor.n_elements
    assert error < 2.0 ** (2.2 - bits)  # a uniform quantizer's error halves with every bit
    assert manifest.parity.measured["prompt_ids"] == 1.0
    assert manifest.parity.measured["logits_kl"] <= WORST_KL.get(recipe, np.inf)
    with load(tmp_path / "small") as model:
        assert model.ask("What is this?", [built_in_picture(manifest.geometry)], max_tokens=4).tokens


@pytest.mark.parametrize(
    ("llm", "vision", "bound"), [("q4_k_m", "int8", 0.03), ("q8_0", "w8", 0.03), ("iq4_xs", "w4", 0.3)]
)
def test_granite_vision(llm: str, vision: str, bound: float, exported: Any, tmp_path: Path) -> None:
    """Rows of 200 fill no block of 128 or 32, features of four layers differ in size, the head is tied."""
    checkpoint, bundle = exported("granite", "transformers")
    manifest = quantize_bundle(bundle, tmp_path / "small", llm=llm, vision=vision)
    assert (manifest.llm.recipe, manifest.llm.architecture) == (llm, "granite")
    assert (manifest.vision.recipe, manifest.vision.kind) == (vision, "siglip")
    assert 0 < manifest.vision.feature_error <= bound
    planned, found = folder_shape(checkpoint), folder_shape(tmp_path / "small")
    assert llm_bytes(planned.llm, llm) == llm_bytes(found.llm, llm)
    assert (planned.picture_tokens, planned.picture_tiles) == (found.picture_tokens, found.picture_tiles)
    with load(tmp_path / "small") as model:
        assert model.ask("What is this?", [built_in_picture(manifest.geometry)], max_tokens=4).tokens


@pytest.mark.parametrize(("recipe", "bound"), [("f16", 2e-3), ("int8", 0.03)])
def test_vision_recipes(recipe: str, bound: float, tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = quantize_bundle(tiny_bundle, tmp_path / "small", llm="keep", vision=recipe)
    assert manifest.vision.recipe == recipe
    assert 0 < manifest.vision.feature_error <= bound
    assert manifest.parity.measured["features"] <= 1.5 * bound
    before, after = (path / "vision.onnx" for path in (tiny_bundle, tmp_path / "small"))
    assert after.stat().st_size < before.stat().st_size
    assert (tmp_path / "small" / "llm.gguf").read_bytes() == (tiny_bundle / "llm.gguf").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"llm": "q3_k"}, "an LLM recipe among"),
        ({"vision": "int4"}, "a vision recipe among"),
    ],
)
def test_unknown_recipes_are_refused(arguments: dict[str, str], said: str, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        quantize_bundle(tiny_bundle, tmp_path / "small", **arguments)
    assert not list(tmp_path.iterdir())


def test_what_was_asked_is_checked_before_every_byte_is_read(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large bundle takes a minute to hash: the hash of this one is wrong, and nobody has come so far to see it."""
    monkeypatch.setattr(bundles, "HASH_ON_OPEN", 0)  # as if its files were large
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, damaged)
    content = bytearray((damaged / "llm.gguf").read_bytes())
    content[-1] ^= 1
    (damaged / "llm.gguf").write_bytes(content)
    with pytest.raises(OptionError, match="nope"):
        quantize_bundle(damaged, tmp_path / "smaller", llm="nope")
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="there"):
        quantize_bundle(damaged, tmp_path / "there", llm="q8_0")
    with pytest.raises(BundleError, match=r"llm\.gguf"):
        quantize_bundle(damaged, tmp_path / "smaller", llm="q8_0")


def test_quantizing_twice_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    quantize_bundle(tiny_bundle, tmp_path / "small", llm="q8_0", vision="keep")
    with pytest.raises(OptionError, match="got q8_0"):
        quantize_bundle(tmp_path / "small", tmp_path / "smaller", llm="q4_0", vision="keep")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_failures_leave_nothing(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError):
        quantize_bundle(tmp_path / "none", tmp_path / "small")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="choose another path"):
        quantize_bundle(tiny_bundle, tmp_path / "taken")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline.shutil, "copyfile", fail)
    with pytest.raises(StorageError, match="free some space"):
        quantize_bundle(tiny_bundle, tmp_path / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


KEEP = """
import os, signal, sys
from pathlib import Path
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime.bundle import work_folder

work_folder.PIECE_BYTES = 100_000

def die(done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

quantize_bundle(Path(sys.argv[1]), Path(sys.argv[2]), llm="keep", vision="keep", progress=die)
"""


def test_a_kept_llm_that_was_killed_is_continued(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, source = tmp_path / "kept", (tiny_bundle / "llm.gguf").read_bytes()
    for fatal in (100_000, 300_000):
        done = subprocess.run([sys.executable, "-c", KEEP, str(tiny_bundle), str(target), str(fatal)])
        assert done.returncode == -signal.SIGKILL
        assert not target.exists()
    monkeypatch.setattr(work_folder, "PIECE_BYTES", 100_000)
    read: list[int] = []
    steps: list[str] = []

    def progress(done: int, total: int) -> None:
        assert total == len(source)
        read.append(done)

    quantize_bundle(tiny_bundle, target, llm="keep", vision="keep", progress=progress, on_step=steps.append)
    assert "continuing what was interrupted: 3 parts are written" in steps
    assert read == [*range(300_000, len(source), 100_000), len(source)]
    assert (target / "llm.gguf").read_bytes() == source
    assert Bundle.open(target, hash_all=True).manifest.llm == Bundle.open(tiny_bundle).manifest.llm
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_llama_cpps_refusal_is_one_line(tmp_path: Path) -> None:
    from llava_edge.quantize.language.quantizer import quantize_llm

    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(NativeError) as caught:
        quantize_llm(tmp_path / "broken.gguf", tmp_path / "out.gguf", recipe="q8_0")
    assert "\n" not in str(caught.value)


def test_a_bundle_is_not_written_into_its_source(tiny_bundle: Path) -> None:
    before = sorted(tiny_bundle.iterdir())
    with pytest.raises(OptionError, match="a destination outside the bundle"):
        quantize_bundle(tiny_bundle, tiny_bundle / "deep" / "smaller", llm="q8_0", vision="keep")
    assert sorted(tiny_bundle.iterdir()) == before
