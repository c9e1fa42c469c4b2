"""Weights that go to ggml's buffers one by one: which are named, and that llama.cpp computes the same with them."""

from __future__ import annotations

import ctypes
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from llava_edge.runtime.bundle.bundle import demo_bundle
from llava_edge.runtime.ggml import rearranged
from llava_edge.runtime.ggml.library import listening
from llava_edge.runtime.ggml.types import BY_NAME
from llava_edge.runtime.language import native_model
from llava_edge.runtime.language.llm import Llm
from llava_edge.runtime.options import LoadOptions
from llava_edge.runtime.processes.repacking import CLOSE, repacking_works
from llava_edge.runtime.system.machine import has_amx, processor_flags
from support.native_log import buffer_sizes

TENSORS = {
    "token_embd.weight": ("q4_k", (256, 96)),
    "blk.0.attn_norm.weight": ("f32", (256,)),
    "blk.0.attn_q.weight": ("q4_k", (256, 96)),
    "blk.0.attn_k.weight": ("q8_0", (256, 40)),  # 40 outputs are not whole tiles
    "blk.0.attn_v.weight": ("q6_k", (256, 96)),
    "blk.0.ffn_up.weight": ("iq4_nl", (256, 96)),
    "output.weight": ("q8_0", (256, 96)),
}


def stored(**others: str) -> list[Any]:
    return [
        SimpleNamespace(name=name, shape=shape, type=BY_NAME[others.get(kind, kind)].number)
        for name, (kind, shape) in TENSORS.items()
    ]


def named(parameters: Any) -> dict[bytes, int]:
    """Pattern and buffer of each entry, up to the empty one."""
    found, index = {}, 0
    overrides = ctypes.cast(parameters.tensor_buft_overrides, ctypes.POINTER(rearranged._Override))
    while overrides[index].pattern is not None:
        found[overrides[index].pattern] = overrides[index].buffer_type
        index += 1
    return found


@pytest.mark.parametrize(
    ("tensors", "amx", "unit"),
    [(stored(), False, 7), (stored(), True, None), (stored(q6_k="q5_k"), True, 7), ([], True, 7)],
)
def test_one_switch_for_all(tensors: Any, amx: bool, unit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rearranged, "_matrix_unit", lambda: unit)
    for rearrange in (True, False):
        parameters = SimpleNamespace()
        rearranged.set_buffers(parameters, tensors, rearrange=rearrange, amx=amx)
        assert vars(parameters) == {"use_extra_bufts": rearrange}


def test_what_gains_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rearranged, "_matrix_unit", lambda: 7)
    parameters = SimpleNamespace()
    rearranged.set_buffers(parameters, stored(), rearrange=True, amx=True)
    assert parameters.use_extra_bufts is False
    assert named(parameters) == {rb"^blk\.0\.attn_q\.weight$": 7, rb"^output\.weight$": 7}


def test_another_library_has_no_such_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise AttributeError

    monkeypatch.setattr(rearranged, "ggml_function", missing)
    assert rearranged._matrix_unit() is None
    monkeypatch.undo()
    monkeypatch.setattr(rearranged, "MATRIX_UNIT", "nobody's")
    assert rearranged._matrix_unit() is None


def logits(said: list[str], **choices: Any) -> npt.NDArray[np.float32]:
    with listening() as heard:
        llm = Llm(demo_bundle() / "llm.gguf", options=LoadOptions(threads=1, gpu_layers=0, **choices))
    said += heard
    with closing(llm):
        llm.ensure_context(128)
        llm.decode_tokens(list(range(3, 103)), 0, logits=True)
        return llm.logits()


@pytest.mark.skipif("avx2" not in processor_flags(), reason="neither AMX nor rearranged buffers for K-quants")
def test_llama_cpp_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo in q4_k_m, its q6_k left plain; without AMX in the buffers that llama.cpp has for the CPU's vectors."""
    if not has_amx():
        monkeypatch.setattr(rearranged, "MATRIX_UNIT", "CPU_REPACK")
        monkeypatch.setattr(native_model, "has_amx", lambda: True)
    elif not repacking_works():
        pytest.skip("llama.cpp compiled by a GCC whose AMX products die")
    plainly: list[str] = []
    some: list[str] = []
    every: list[str] = []
    expected = logits(plainly, repack=False)
    found = logits(some, repack=True)
    monkeypatch.setattr(rearranged, "SLOWER", frozenset())
    logits(every, repack=True)
    sizes = [buffer_sizes(said, "model").get(rearranged.MATRIX_UNIT, 0) for said in (plainly, some, every)]
    assert 0 == sizes[0] < sizes[1]
    if has_amx():
        assert sizes[1] < sizes[2]
    assert not np.array_equal(found, expected)
    assert float(np.abs(found - expected).max()) <= CLOSE * float(np.abs(expected).max())
