"""Quantizing piece by piece writes what llama.cpp's own quantizer writes, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from llava_edge.quantize.language import stream as llm_stream
from llava_edge.quantize.language.layout import LlmLayout, lay_out_quantized
from llava_edge.quantize.language.quantizer import ImportanceByWeight, quantize_llm
from llava_edge.quantize.language.stream import write_quantized
from llava_edge.quantize.pipeline import quantize_bundle
from llava_edge.runtime.bundle.bundle import Bundle
from llava_edge.runtime.bundle.gguf_layout import SPLIT_SIZE
from llava_edge.runtime.bundle.gguf_reading import read_model
from llava_edge.runtime.bundle.work_folder import Journal, Work, continuing_bundle
from llava_edge.runtime.errors import BundleError, NativeError
from llava_edge.runtime.ggml.llm_recipes import QUANTIZED
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from support.checkpoints import make_checkpoint
from support.gguf_files_written import write_plan
from support.gguf_reading import read_fields

pytestmark = pytest.mark.slow

SOURCES = ("f32", "f16", "bf16")
TOKENS = [5, 300, 17, 42, 256, 99]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one language model in every type that can be quantized, and f16 in several files."""
    from llava_edge.export.pipeline import make_plan

    folder = tmp_path_factory.mktemp("source")
    plan = make_plan(str(make_checkpoint(folder / "checkpoint", "llama3", text={"num_hidden_layers": 9})))
    for kind in SOURCES:
        write_plan(plan, folder / f"{kind}.gguf", kind)
    write_plan(plan, folder / "split.gguf", "f16", split_size=1_000_000)
    return folder


def lay_out(
    source: Path, recipe: str, split_size: int = SPLIT_SIZE, importance: ImportanceByWeight | None = None
) -> LlmLayout:
    return lay_out_quantized(
        source,
        lambda one, other: quantize_llm(one, other, recipe=recipe, importance=importance),
        name="llm.gguf",
        split_size=split_size,
    )


def stream(
    source: Path,
    folder: Path,
    recipe: str,
    split_size: int = SPLIT_SIZE,
    importance: ImportanceByWeight | None = None,
) -> Path:
    layout = lay_out(source, recipe, split_size, importance)
    folder.mkdir()
    work = Work(folder, Journal(folder.with_suffix(".journal"), "key"))
    write_quantized(work, layout, source, importance=importance)
    return folder / layout.files[0].name


def last_logits(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    llm = Llm(path, options=LoadOptions(threads=1))
    llm.ensure_context(len(TOKENS))
    llm.decode_tokens(TOKENS, 0, logits=True)
    logits = llm.logits()
    llm.close()
    return logits


def test_a_source_of_another_alignment(source: Path, tmp_path: Path) -> None:
    """The same numbers as of a source with the usual one, at the places that its own asks for."""
    plain = gguf.GGUFReader(source / "f16.gguf")
    writer = gguf.GGUFWriter(tmp_path / "aligned.gguf", "llama")
    writer.add_custom_alignment(128)
    for key, field in plain.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in plain.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    usual = gguf.GGUFReader(stream(source / "f16.gguf", tmp_path / "usual", "q4_k_m"))
    aligned = gguf.GGUFReader(stream(tmp_path / "aligned.gguf", tmp_path / "ours", "q4_k_m"))
    assert (aligned.alignment, usual.alignment) == (128, 32)
    assert all(tensor.data_offset % 128 == 0 for tensor in aligned.tensors)
    assert {tensor.name: tensor.data.tobytes() for tensor in aligned.tensors} == {
        tensor.name: tensor.data.tobytes() for tensor in usual.tensors
    }


@pytest.mark.parametrize("recipe", QUANTIZED)
def test_bytes_are_llama_cpps(recipe: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_stream, "SLAB_NUMBERS", 20_000)  # many slabs and pieces, none of them even
    monkeypatch.setattr(llm_stream, "PIECE_NUMBERS", 3_000)
    for kind in SOURCES if recipe == "q4_k_m" else ("f16",):
        quantize_llm(source / f"{kind}.gguf", tmp_path / f"{kind}.gguf", recipe=recipe)
        ours = stream(source / f"{kind}.gguf", tmp_path / kind, recipe)
        assert ours.read_bytes() == (tmp_path / f"{kind}.gguf").read_bytes()


@pytest.mark.parametrize("recipe", ["q4_k_m", "iq4_xs"])
def test_bytes_with_an_importance_matrix_are_llama_cpps(recipe: str, source: Path, tmp_path: Path) -> None:
    """Columns that matter very differently, and one weight that the matrix does not know."""
    path, random = source / "f16.gguf", np.random.default_rng(7)
    matrices = [one for one in read_model(path).tensors if len(one.shape) == 2 and one.name != "token_embd.weight"]
    importance = {one.name: random.lognormal(0, 3, one.shape[0]).astype(np.float32) for one in matrices[1:]}
    quantize_llm(path, tmp_path / "theirs.gguf", recipe=recipe, importance=importance)
    ours = stream(path, tmp_path / "ours", recipe, importance=importance).read_bytes()
    assert ours == (tmp_path / "theirs.gguf").read_bytes()
    assert ours != stream(path, tmp_path / "without", recipe).read_bytes()


def test_several_types_in_one_model(source: Path) -> None:
    """The comparison above means nothing if llama.cpp gave every matrix the same type."""
    assert len(set(lay_out(source / "f16.gguf", "q4_k_m").types.values())) == 3


def test_files_of_a_split_model(source: Path, tmp_path: Path) -> None:
    """From several files into one, and from one into several that llama.cpp reads as the same model."""
    first = next(source.glob("split-00001-of-*.gguf"))
    assert len(read_model(first).tensors) == len(read_model(source / "f16.gguf").tensors)
    whole = stream(source / "f16.gguf", tmp_path / "whole", "q4_k_m")
    assert stream(first, tmp_path / "joined", "q4_k_m").read_bytes() == whole.read_bytes()
    split = stream(source / "f16.gguf", tmp_path / "split", "q4_k_m", 500_000)
    names = sorted(path.name for path in split.parent.iterdir())
    assert len(names) > 3
    assert split.name == f"llm-00001-of-{len(names):05d}.gguf"
    for number, name in enumerate(names):
        fields = read_fields(split.parent / name)
        assert (fields["split.no"], fields["split.count"]) == (number, len(names))
        assert fields["split.tensors.count"] == len(read_model(whole).tensors)
    assert np.array_equal(last_logits(split), last_logits(whole))


def quantize_and_die(source: Path, target: Path, fatal: int) -> None:
    """In a process of its own: quantize, and be killed at piece ``fatal``."""
    llm_stream.SLAB_NUMBERS, llm_stream.PIECE_NUMBERS = 20_000, 3_000
    round_piece, count = llm_stream._round, 0

    def counted(*arguments: object) -> memoryview:
        nonlocal count
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return round_piece(*arguments)  # type: ignore[arg-type]

    llm_stream._round = counted
    layout = lay_out(source, "q4_k_m", 500_000)
    with continuing_bundle(target, key="key", kept=layout.sizes) as work:
        write_quantized(work, layout, source, threads=1)


def test_killed_and_continued(source: Path, tmp_path: Path) -> None:
    whole = stream(source / "f16.gguf", tmp_path / "whole", "q4_k_m", 500_000).parent
    target, finished = tmp_path / "bundle", 0
    for fatal in (70, 200, 333):
        code = (
            "import test_stream as t; from pathlib import Path; "
            f"t.quantize_and_die(Path({str(source / 'f16.gguf')!r}), Path({str(target)!r}), {fatal})"
        )
        here = Path(__file__)
        path = os.pathsep.join([str(here.parent), str(here.parents[2]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        lines = len((tmp_path / ".bundle.partial" / "journal").read_text().splitlines())
        assert lines > finished
        finished = lines
    layout, heard = lay_out(source / "f16.gguf", "q4_k_m", 500_000), []
    with continuing_bundle(target, key="key", kept=layout.sizes) as work:
        write_quantized(work, layout, source / "f16.gguf", progress=lambda done, total: heard.append((done, total)))
    assert 0 < heard[0][0] < heard[0][1] == heard[-1][0]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_numbers_that_cannot_be_quantized(source: Path, tmp_path: Path) -> None:
    raw = bytearray((source / "f32.gguf").read_bytes())
    tensor = next(one for one in read_model(source / "f32.gguf").tensors if one.name == "blk.3.ffn_up.weight")
    raw[tensor.offset : tensor.offset + 4] = np.float32(np.inf).tobytes()
    (tmp_path / "broken.gguf").write_bytes(raw)
    with pytest.raises(NativeError, match=r"finite numbers of blk\.3\.ffn_up"):
        stream(tmp_path / "broken.gguf", tmp_path / "out", "q8_0")


def test_a_quantized_source_is_refused(source: Path, tmp_path: Path) -> None:
    quantize_llm(source / "f16.gguf", tmp_path / "small.gguf", recipe="q8_0")
    with pytest.raises(BundleError, match="in f32, f16 or bf16"):
        lay_out(tmp_path / "small.gguf", "q4_0")


def test_a_bundle_in_several_files(tiny_bundle: Path, tmp_path: Path) -> None:
    """Quantized into several files, opened, asked; then copied as it is by "keep"."""
    needs = []
    manifest = quantize_bundle(
        tiny_bundle, tmp_path / "small", llm="q8_0", vision="keep", split_size=400_000, on_need=needs.append
    )
    bundle = Bundle.open(tmp_path / "small", hash_all=True)
    assert len(bundle.llm_paths) > 2
    assert manifest.llm.file == bundle.llm_paths[0].name
    for path in bundle.llm_paths:
        assert needs[0].files[path.name] == path.stat().st_size
    whole = quantize_bundle(tiny_bundle, tmp_path / "whole", llm="q8_0", vision="keep")
    assert manifest.parity.measured == whole.parity.measured
    kept = quantize_bundle(tmp_path / "small", tmp_path / "kept", llm="keep", vision="keep")
    assert {entry for entry in kept.files if "llm" in entry.name} == {
        entry for entry in manifest.files if "llm" in entry.name
    }
    bundle.llm_paths[1].unlink()
    with pytest.raises(BundleError, match=bundle.llm_paths[1].name):
        Bundle.open(tmp_path / "small")
