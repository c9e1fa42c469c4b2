"""Weights of a plan against llama.cpp's own quantizer, tensor by tensor and byte by byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from llava_edge.runtime.bundle.bundle import demo_bundle
from llava_edge.runtime.bundle.gguf_reading import read_head
from llava_edge.runtime.errors import BundleError, OptionError
from llava_edge.runtime.ggml.llm_recipes import LLM_RECIPES
from llava_edge.runtime.planning.recipe_types import tensor_types
from llava_edge.runtime.planning.shape_sources import folder_shape, llm_shape
from llava_edge.runtime.planning.shapes import LlmShape, llm_bytes
from support.native_log import Planned, quantized_types
from support.sparse_gguf import SIZES, shape_of, write_sparse


@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_gets_the_type_llama_cpp_gives_it(name: str, tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "model.gguf", SIZES[name])
    shape = shape_of(SIZES[name])
    for recipe in LLM_RECIPES:
        assert shape.stored_types(recipe) == quantized_types(path, recipe), recipe
    planned = Planned(path)
    assert llm_bytes(shape, "f16").total == planned.size
    assert shape.parameters == sum(int(np.prod(one)) for _, one in SIZES[name].tensors())
    planned.close()


@pytest.mark.parametrize("recipe", ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0", "iq4_xs"])
def test_bytes_of_files_that_llama_cpp_wrote(recipe: str, tmp_path: Path) -> None:
    """A real quantization; its header read by us and by the gguf package, its size by llama.cpp."""
    import gguf
    from llava_edge.benchmark.seeded.llm import write_seeded_llm
    from llava_edge.quantize.language.quantizer import quantize_llm

    write_seeded_llm(tmp_path / "f16.gguf", LlmShape("llama", 9, 256, 4, 1, 64, 768, 640, 8192))
    path = tmp_path / f"{recipe}.gguf"
    quantize_llm(tmp_path / "f16.gguf", path, recipe=recipe, threads=1)
    found = llm_shape(path, recipe=recipe)
    unread = dataclasses.replace(found, recipe="", sizes={})
    assert llm_bytes(found, recipe) == llm_bytes(unread, recipe)
    planned = Planned(path, simulate=False)
    assert planned.size == llm_bytes(unread, recipe).total
    planned.close()
    reader = gguf.GGUFReader(path)
    assert found.sizes == {one.name: int(one.n_bytes) for one in reader.tensors}
    types = {one.name: one.tensor_type.name.lower() for one in reader.tensors}
    assert types == unread.stored_types(recipe)


def test_the_demo_bundles_header_is_what_the_gguf_package_reads() -> None:
    import gguf

    model = folder_shape(demo_bundle())
    path = demo_bundle() / "llm.gguf"
    reader = gguf.GGUFReader(path)
    header = read_head(path)
    assert {tensor.name: tensor.type for tensor in header.tensors} == {
        tensor.name: tensor.tensor_type for tensor in reader.tensors
    }
    assert model.llm.parameters == sum(int(one.n_elements) for one in reader.tensors)
    assert header.settings["llama.block_count"] == model.llm.layers
    assert header.settings["tokenizer.ggml.tokens"].count == len(reader.fields["tokenizer.ggml.tokens"].data)


def test_a_split_model_counts_whole(tmp_path: Path) -> None:
    import gguf

    whole = demo_bundle() / "llm.gguf"
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(tmp_path / "llm.gguf", "llama", split_max_size=1_000_000)
    for key in ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
                "attention.key_length", "feed_forward_length", "context_length"):  # fmt: skip
        writer.add_uint32(f"llama.{key}", int(reader.fields[f"llama.{key}"].contents()))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first, *others = sorted(tmp_path.glob("*.gguf"))
    assert others
    assert llm_shape(first, recipe="q4_k_m") == llm_shape(whole, recipe="q4_k_m")


def test_a_header_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "text.gguf").write_bytes(b"not a model, but long enough for a header")
    whole = (demo_bundle() / "llm.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:900])
    for name in ("empty", "text", "cut"):
        with pytest.raises(BundleError, match="GGUF"):
            read_head(tmp_path / f"{name}.gguf")


def test_an_unknown_recipe() -> None:
    with pytest.raises(OptionError, match="q4_k_m"):
        tensor_types([], "q9", layers=1, heads_per_kv=1, type_70b=False)
