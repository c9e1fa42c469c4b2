"""The table of types against the installed ggml and against the gguf package."""

from __future__ import annotations

import ctypes

import gguf
import llama_cpp.llama_cpp as lib
import pytest
from llava_edge.runtime.ggml.types import BF16, BY_NAME, F16, F32, TYPES, ggml_type, row_bytes, tensor_bytes
from llava_edge.runtime.options import KV_TYPES

IN_GGUF = {kind.name.lower(): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
GGUF_ERRS = {"q8_1": (32, 40)}
"""The gguf package takes its two scales for float32; ggml stores halves, and never writes it to a file."""


def native(name: str, result: type, number: int) -> object:
    function = lib._lib[name]
    function.restype, function.argtypes = result, [ctypes.c_int]
    return function(number)


def test_every_type_is_ggmls_own() -> None:
    """Number, name and block of all types there are; ggml gave the missing numbers up."""
    assert len(BY_NAME) == len(TYPES) == len({kind.number for kind in TYPES})
    for number in range(lib.GGML_TYPE_COUNT):
        name, weights, size = (
            native("ggml_type_name", ctypes.c_char_p, number).decode().lower(),  # type: ignore[attr-defined]
            native("ggml_blck_size", ctypes.c_int64, number),
            native("ggml_type_size", ctypes.c_size_t, number),
        )
        assert [kind[1:] for kind in TYPES if kind.number == number] == ([(name, weights, size)] if weights else [])
    assert max(kind.number for kind in TYPES) == lib.GGML_TYPE_COUNT - 1


def test_every_type_of_the_gguf_package() -> None:
    for kind in gguf.GGMLQuantizationType:
        ours = BY_NAME[kind.name.lower()]
        assert ours.number == kind
        assert (ours.weights, ours.size) == IN_GGUF[ours.name] or IN_GGUF[ours.name] == GGUF_ERRS.get(ours.name)


def test_bytes_of_rows_and_tensors() -> None:
    function = lib._lib["ggml_row_size"]
    function.restype, function.argtypes = ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]
    for kind in TYPES:
        assert row_bytes(kind.number, 512) == function(kind.number, 512)
        assert tensor_bytes(kind.name, (6, 512)) == 6 * function(kind.number, 512)


@pytest.mark.parametrize("kind", KV_TYPES)
def test_cache_types_are_in_the_table(kind: str) -> None:
    assert native("ggml_type_name", ctypes.c_char_p, ggml_type(kind)) == kind.encode()


def test_types_that_have_a_name_of_their_own() -> None:
    kinds = gguf.GGMLQuantizationType
    assert (ggml_type(""), F32, F16, BF16) == (kinds.F16, kinds.F32, kinds.F16, kinds.BF16)
