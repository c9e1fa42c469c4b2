"""Laid-out GGUF files are those that the gguf package writes, in one file and in several."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from llava_edge.runtime.bundle.gguf_layout import GgufFile, TensorSpec, lay_out_files, split_names, whole_name
from llava_edge.runtime.bundle.gguf_reading import read_model
from llava_edge.runtime.bundle.work_folder import Journal, Work, write_tensors
from llava_edge.runtime.errors import BundleError
from llava_edge.runtime.ggml.types import F16, F32

DRAW = np.random.default_rng(0)
TENSORS = {
    "token_embd.weight": DRAW.normal(size=(40, 32)).astype(np.float16),
    "blk.0.attn_norm.weight": DRAW.normal(size=32).astype(np.float32),
    "blk.0.ffn_up.weight": DRAW.normal(size=(48, 32)).astype(np.float16),
    "blk.0.ffn_down.weight": DRAW.normal(size=(32, 48)).astype(np.float16),
    "output.weight": DRAW.normal(size=(40, 32)).astype(np.float16),
}


def write_with_gguf(path: Path, split_size: int) -> list[Path]:
    writer = gguf.GGUFWriter(path, "llama", split_max_size=split_size)
    writer.add_name("a model")
    writer.add_token_list(["a", "<unk>", "ß"])
    writer.add_array("llama.floats", [0.5, 1.5])
    writer.add_add_bos_token(True)
    for name, values in TENSORS.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob("*.gguf"))


def lay_out_as(first: Path, split_size: int) -> tuple[GgufFile, ...]:
    pairs = read_model(first).pairs
    kinds = {np.dtype(np.float16): F16, np.dtype(np.float32): F32}
    specs = [TensorSpec(name, one.shape[::-1], kinds[one.dtype], one.nbytes) for name, one in TENSORS.items()]
    return lay_out_files(pairs, specs, name="model.gguf", split_size=split_size)


@pytest.mark.parametrize(("split_size", "files"), [(10**9, 1), (5700, 3), (100, 5)])
def test_files_are_those_of_the_gguf_package(split_size: int, files: int, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs = write_with_gguf(tmp_path / "theirs" / "model.gguf", split_size if files > 1 else 0)
    laid_out = lay_out_as(theirs[0], split_size)
    work = Work(tmp_path / "ours", Journal(tmp_path / "journal", "key"))
    write_tensors(work, laid_out, chunks=lambda name: [TENSORS[name].reshape(-1).view(np.uint8).data])
    ours = sorted((tmp_path / "ours").iterdir())
    assert len(ours) == files
    assert [path.name for path in ours] == [path.name for path in theirs] == [file.name for file in laid_out]
    assert [path.stat().st_size for path in ours] == [file.size for file in laid_out]
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_a_split_model_is_read_as_one(tmp_path: Path) -> None:
    for folder in ("whole", "split"):
        (tmp_path / folder).mkdir()
    (whole,) = write_with_gguf(tmp_path / "whole" / "model.gguf", 0)
    first = write_with_gguf(tmp_path / "split" / "model.gguf", 5700)[0]
    assert read_model(first).pairs == read_model(whole).pairs
    tensors = {one.name: one for one in read_model(first).tensors}
    assert set(tensors) == set(TENSORS)
    for name, values in TENSORS.items():
        raw = tensors[name].path.read_bytes()[tensors[name].offset :][: values.nbytes]
        assert (raw, tensors[name].shape) == (values.tobytes(), values.shape[::-1])


def test_names() -> None:
    three = ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf")
    assert split_names(three[0]) == three
    assert split_names("m.gguf") == ("m.gguf",)
    assert whole_name(three[0]) == whole_name("m.gguf") == "m.gguf"


@pytest.mark.parametrize(
    "raw", [b"", b"GGUF", b"ONNX" + bytes(64), b"GGUF" + bytes(64), b"GGUF\3\0\0\0" + b"\xff" * 64]
)
def test_what_is_no_gguf_is_one_line(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(raw)
    with pytest.raises(BundleError) as caught:
        read_model(tmp_path / "model.gguf")
    assert "\n" not in str(caught.value)
