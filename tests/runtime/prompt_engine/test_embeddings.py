"""Tokens given as embeddings: the same bits as by their numbers, whatever the matrix is stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions

TOKENS = [int(one) for one in np.random.default_rng(5).integers(0, 200, 100)]


def quantized(source: Path, kind: str, path: Path) -> Path:
    """``source`` with its embeddings too in ``kind``."""
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}")
    parameters.pure = True
    assert lib.llama_model_quantize(str(source).encode(), str(path).encode(), parameters) == 0
    return path


@pytest.mark.parametrize(("family", "kind"), [("llama3", "Q4_0"), ("granite", "Q8_0"), ("qwen", "F16")])
def test_logits_are_equal_bit_by_bit(exported: Any, family: str, kind: str, tmp_path: Path) -> None:
    """llama.cpp multiplies Granite's embeddings, whichever way they come."""
    path = quantized(Path(exported(family)[1]) / "llm.gguf", kind, tmp_path / "llm.gguf")
    llm = Llm(path, options=LoadOptions(threads=2, gpu_layers=0, prompt_engine="onnxruntime"))
    try:
        llm.ensure_context(256)
        llm.decode_tokens(TOKENS, 0, logits=True)
        expected = llm.logits()
        llm.truncate(0)
        assert llm.joins_text
        rows = llm.embeddings(TOKENS)
        assert rows.shape == (len(TOKENS), llm.dim)
        llm.decode_embeddings(rows, 0, logits=True)
        assert np.array_equal(llm.logits(), expected)
        assert not np.array_equal(rows[0], rows[1])
    finally:
        llm.close()


def test_llama_cpp_alone_reads_tokens(tiny_bundle: Path) -> None:
    llm = Llm(tiny_bundle / "llm.gguf", options=LoadOptions(gpu_layers=0))
    assert not llm.joins_text
    llm.close()
