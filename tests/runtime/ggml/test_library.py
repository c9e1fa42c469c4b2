"""One copy of ggml for all who call it, and one log that keeps speaking."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest
from llava_edge.benchmark.contestants.mtmd import Mtmd, text_model, write_text_model
from llava_edge.runtime.bundle.bundle import demo_bundle
from llava_edge.runtime.errors import NativeError
from llava_edge.runtime.ggml.library import ggml_function, library_folder, listening
from llava_edge.runtime.language.vocabulary import load_model_file, open_vocabulary

COPIED_REGISTRY = """
import ctypes
import llama_cpp.llama_cpp as lib
from llava_edge.runtime.ggml.library import ggml_function
count = lib._lib["ggml_backend_reg_count"]
count.restype = ctypes.c_size_t
before = count()
register = ggml_function("ggml_backend_register", None, ctypes.c_void_p)
first = ggml_function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)(0)
copy = ctypes.create_string_buffer(ctypes.string_at(first, 48), 64)
register(ctypes.addressof(copy))
print(before, count(), ggml_function("ggml_backend_reg_count", ctypes.c_size_t)())
"""
EVERY_CALLER = """
import llava_edge.benchmark.speed.roofline, llava_edge.quantize.language.layout, llava_edge.quantize.language.stream
import llava_edge.runtime.ggml.rpc
from llava_edge.runtime.ggml import devices, tensor
tensor.check_layout()
devices.has_gpu()
print(*{line.split()[-1] for line in open("/proc/self/maps") if "libggml" in line})
"""


def run(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_registers_a_backend_reaches_llama_cpps_registry() -> None:
    before, llama_cpps, ours = map(int, run(COPIED_REGISTRY))
    assert (llama_cpps, ours) == (before + 1, before + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_no_library_is_loaded_twice() -> None:
    loaded = [Path(path) for path in run(EVERY_CALLER)]
    assert {path.parent for path in loaded} == {library_folder()}
    names = sorted(path.name.split(".so")[0] for path in loaded)
    assert names == sorted(set(names))
    assert "libggml-base" in names


def test_a_function_is_typed_once_and_is_no_other_callers() -> None:
    first = ggml_function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    assert first is ggml_function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    assert first is not lib._lib.ggml_type_name
    assert first(0) == b"f32"
    with pytest.raises(AttributeError):
        ggml_function("ggml_no_such_function", None)


def test_listeners_hear_and_errors_keep_their_reason(tmp_path: Path) -> None:
    (tmp_path / "none.gguf").write_bytes(b"GGUFnothing")
    with listening() as said, open_vocabulary(demo_bundle() / "llm.gguf"):
        pass
    assert "llama_model_loader" in "".join(said)
    heard = len(said)
    with pytest.raises(NativeError) as caught, open_vocabulary(tmp_path / "none.gguf"):
        pass
    assert "no reason given" not in str(caught.value)
    assert len(said) == heard


def test_mtmd_leaves_the_log_as_it_is(tmp_path: Path) -> None:
    """Errors of llama.cpp have their reason after mtmd was there, and mtmd's own have theirs."""
    write_text_model(tmp_path / "text.gguf", 64)
    (tmp_path / "none.gguf").write_bytes(b"GGUFnothing")
    with text_model(tmp_path / "text.gguf") as model:
        with pytest.raises(NativeError, match="mtmd_init_from_file"):
            Mtmd(tmp_path / "none.gguf", model, threads=1)
        gc.collect()
        with pytest.raises(NativeError, match="llama_model_load_from_file"):
            load_model_file(tmp_path / "none.gguf", lib.llama_model_default_params())
